"""CelebA, as its publishers, torchvision or Kaggle lay it out; aligned images or original photos.

    python datasets_scripts/celeba.py --source CELEBA --output data/celeba

CELEBA is a folder or archive that holds the images, `img_align_celeba` (`img_celeba` with
`--original`), and the annotation files `list_attr_celeba`, `list_eval_partition` and
`identity_CelebA` (.txt or .csv), at any depth and also inside further archives. Kaggle's copy has
no identities: people are then unknown, and only the official partition ensures that no person is in
two splits. If an original photo shows several faces, the one in the box of `list_bbox_celeba` is
used, or without a box the one nearest to the middle. Unpack the publishers' `img_celeba.7z.001`
and its further parts with 7z first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from label2label.data.schema import GENDERS, SPLITS, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from preparation.card import read_description
from preparation.framing import Box, ReadImage
from preparation.program import dataset_parser, prepare, run_program
from preparation.sources import Download, Images

ATTRIBUTES = "list_attr_celeba"
IDENTITIES = "identity_CelebA"
PARTITION = "list_eval_partition"
BOXES = "list_bbox_celeba"

NO_IDENTITIES = (
    "The source holds no identities, so that of no two images it is known whether they show one "
    "person; the official partition is by person."
)


def read_words(download: Download, stem: str) -> Iterator[tuple[str, list[str]]]:
    """Read the words of each line of a CelebA text file, or of Kaggle's CSV file of that name."""
    for where, line in download.lines(f"{stem}.txt", f"{stem}.csv"):
        yield where, line.split("," if "," in line else None)


def read_values(download: Download, stem: str) -> dict[str, tuple[str, str]]:
    """Read a file with one value per image; return (place in the file, value) by image."""
    values = {}
    for where, words in read_words(download, stem):
        if len(words) != 2:
            raise UserError(f"{where}: expected an image and one value")
        if words[0] != "image_id":  # the header of Kaggle's files
            values[words[0]] = (where, words[1])
    return values


def read_header(lines: Iterator[tuple[str, list[str]]]) -> tuple[int | None, list[str]]:
    """Read the number of images (None in Kaggle's copy) and the attribute names."""
    declared = None
    where, words = next(lines, (ATTRIBUTES, []))
    if len(words) == 1 and words[0].isdecimal():
        declared = int(words[0])
        where, words = next(lines, (where, []))
    names = words[1:] if words[:1] == ["image_id"] else words
    if sorted(names) != sorted(get_vocabulary("celeba-40").attributes):
        raise UserError(f"{where}: expected the number of images, then CelebA's 40 attribute names")
    return declared, names


def read_samples(
    download: Download,
    images: Images,
    identities: dict[str, tuple[str, str]] | None,
    partition: dict[str, tuple[str, str]],
) -> Iterator[Sample]:
    """Read and check CelebA's annotations."""
    lines = read_words(download, ATTRIBUTES)
    declared, names = read_header(lines)
    number = 0
    for where, (name, *values) in lines:
        number += 1
        if len(values) != len(names) or not {"1", "-1"}.issuperset(values):
            raise UserError(f"{where}: expected {len(names)} values of 1 or -1 after the name")
        for other, file in ((partition, PARTITION), (identities, IDENTITIES)):
            if other is not None and name not in other:
                raise UserError(f"{where}: {name} has no line in {file}")
        split_where, split = partition[name]
        if split not in ("0", "1", "2"):
            raise UserError(f"{split_where}: the partition must be 0, 1 or 2")
        if name not in images:
            raise UserError(f"{where}: the image {name} is missing from {images.where}")
        attributes = {name: value == "1" for name, value in zip(names, values, strict=True)}
        yield Sample(
            key=name,
            split=SPLITS[int(split)],
            attributes=attributes,
            identity=identities[name][1] if identities else None,
            source="celeba",
            gender=GENDERS[attributes["Male"]],
        )
    if number != (len(partition) if declared is None else declared):
        raise UserError(
            f"{ATTRIBUTES} holds {number} images, but should hold {declared or len(partition)}"
        )


def read_boxes(download: Download) -> dict[str, Box]:
    """Read the box (x0, y0, x1, y1; pixels) of the labelled face by original photo, if given."""
    if download.find_text(f"{BOXES}.txt", f"{BOXES}.csv") is None:
        return {}
    boxes = {}
    for where, words in read_words(download, BOXES):
        if len(words) == 5 and all(word.isdecimal() for word in words[1:]):
            x, y, width, height = map(int, words[1:])
            if width and height:
                boxes[words[0]] = (float(x), float(y), float(x + width), float(y + height))
        elif boxes:
            raise UserError(f"{where}: expected an image, left, top, width and height")
    return boxes


def main() -> None:
    """Prepare CelebA as the command line says."""
    parser = dataset_parser(__doc__, source="folder or archive of CelebA's files")
    parser.add_argument(
        "--original", action="store_true", help="read the original photos, img_celeba"
    )
    arguments = parser.parse_args()
    download = Download(arguments.source)
    images = download.images("img_celeba" if arguments.original else "img_align_celeba")
    partition = read_values(download, PARTITION)
    identities = None
    if download.find_text(f"{IDENTITIES}.txt", f"{IDENTITIES}.csv"):
        identities = read_values(download, IDENTITIES)
    else:
        print(NO_IDENTITIES, file=sys.stderr)
    description = read_description(
        "celeba",
        images="original photos" if arguments.original else "aligned images",
        identities="" if identities else NO_IDENTITIES,
    )
    boxes = read_boxes(download) if arguments.original else {}
    prepare(
        arguments,
        read_samples(download, images, identities, partition),
        ReadImage(images, arguments.align, boxes),
        get_vocabulary("celeba-40"),
        description,
        total=len(partition),
    )


if __name__ == "__main__":
    run_program(main)
