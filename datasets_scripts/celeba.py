"""CelebA, from its official files: img_align_celeba (zip or folder) and three text files.

    python datasets_scripts/celeba.py --source CELEBA --output data/celeba

`list_attr_celeba.txt`, `identity_CelebA.txt` and `list_eval_partition.txt` name the same images in
the same order and are read side by side, line by line, so that memory does not grow with the
number of images. The images are stored as they are, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.program import dataset_parser, prepare, run_program
from label2label.data.preparation.sources import RawImages, ReadImage, open_images
from label2label.data.preparation.text import open_text
from label2label.data.schema import GENDERS, SPLITS, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError

ATTRIBUTES = "list_attr_celeba.txt"
IDENTITIES = "identity_CelebA.txt"
PARTITION = "list_eval_partition.txt"

DESCRIPTION = DatasetDescription(
    title="CelebA",
    summary="Faces of celebrities with 40 attributes, in the dataset schema of label2label.",
    origin=(
        "CelebFaces Attributes (Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015), "
        "<https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html>: the aligned images, with the "
        "official attribute, identity and partition files."
    ),
    terms=(
        "CelebA agreement: non-commercial research only; the images may not be redistributed, "
        "sold or published."
    ),
    process=(
        "The JPEG files are stored byte for byte. Labels of 1 became true and of -1 false; "
        "`gender` is the attribute `Male`. Splits are those of the partition file."
    ),
    biases=(
        "The people are celebrities: mostly young, light-skinned, made up and photographed by "
        "professionals; race is not labelled. Labels were collected by a company and are noisy: an "
        "audit (arXiv:2210.07356) found 12 of the 40 attributes labelled with at least 95 % "
        "consistency. `Attractive`, `Big_Nose`, `Chubby` and others are opinions, and `Male` is "
        "perceived gender, not identity."
    ),
    program="datasets_scripts/celeba.py",
    license_name="celeba-agreement",
    license_link="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    tags=("celeba",),
)


def read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read a text file of CelebA's, one line at a time.

    Args:
        path: The file.

    Yields:
        `FILE, line N` for error messages, and the words of the line; blank lines are left out.

    Raises:
        UserError: If the file is missing or is not text.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}, line {number}", line.split()


def read_samples(source: Path, images: RawImages) -> Iterator[Sample]:
    """Read and check CelebA's annotations.

    Args:
        source: Folder of the official files.
        images: The images that the annotations must name.

    Yields:
        One sample per image, in the files' order.

    Raises:
        UserError: If the files disagree, a value is out of range, an image is missing, or a person
            is in two splits; the message names the file and the line.
    """
    attribute_lines = read_lines(source / ATTRIBUTES)
    declared, names = read_header(attribute_lines, source / ATTRIBUTES)
    lines = zip_lines(
        attribute_lines, read_lines(source / IDENTITIES), read_lines(source / PARTITION)
    )
    split_of_identity: dict[str, str] = {}
    number = 0
    for (where, attribute_words), (where_id, id_words), (where_split, split_words) in lines:
        number += 1
        name, values = attribute_words[0], attribute_words[1:]
        for other, words in ((where_id, id_words), (where_split, split_words)):
            if len(words) != 2 or words[0] != name:
                raise UserError(f"{other}: expected {name} (as in {where}) and one value")
        if len(values) != len(names) or not {"1", "-1"}.issuperset(values):
            raise UserError(f"{where}: expected {len(names)} values of 1 or -1 after the name")
        if split_words[1] not in ("0", "1", "2"):
            raise UserError(f"{where_split}: the partition must be 0, 1 or 2")
        if name not in images:
            raise UserError(f"{where}: the image {name} is missing from {images.path}")
        split, identity = SPLITS[int(split_words[1])], id_words[1]
        if split_of_identity.setdefault(identity, split) != split:
            raise UserError(f"{where_split}: person {identity} is already in another split")
        attributes = {name: value == "1" for name, value in zip(names, values, strict=True)}
        yield Sample(
            key=name,
            split=split,
            attributes=attributes,
            identity=identity,
            source="celeba",
            gender=GENDERS[attributes["Male"]],
        )
    if number != declared:
        raise UserError(
            f"{source / ATTRIBUTES}, line 1: it says {declared} images, but {number} follow"
        )


def read_header(lines: Iterator[tuple[str, list[str]]], path: Path) -> tuple[int, list[str]]:
    """Read the first two lines of the attribute file.

    Args:
        lines: Its lines.
        path: The file, for error messages.

    Returns:
        The number of images that it declares, and the attribute names.

    Raises:
        UserError: If they are not a count and CelebA's 40 attribute names.
    """
    where, count = next(lines, (f"{path}, line 1", []))
    if len(count) != 1 or not count[0].isdecimal():
        raise UserError(f"{where}: expected the number of images")
    where, names = next(lines, (f"{path}, line 2", []))
    if set(names) != set(get_vocabulary("celeba-40").attributes) or len(names) != 40:
        raise UserError(f"{where}: expected CelebA's 40 attribute names")
    return int(count[0]), names


def zip_lines(
    *files: Iterator[tuple[str, list[str]]],
) -> Iterator[tuple[tuple[str, list[str]], ...]]:
    """Read several files side by side.

    Args:
        files: Lines of each.

    Yields:
        One line of each.

    Raises:
        UserError: If one file ends before another.
    """
    while True:
        lines = [next(file, None) for file in files]
        present = [line for line in lines if line is not None]
        if len(present) < len(lines):
            if present:
                raise UserError(
                    f"{present[0][0]}: {present[0][1][0]} has no line in another of {ATTRIBUTES}, "
                    f"{IDENTITIES} and {PARTITION}, which must list the same images"
                )
            return
        yield tuple(present)


def main() -> None:
    """Prepare CelebA as the command line says."""
    arguments = dataset_parser(__doc__, source="folder of the official files").parse_args()
    images = open_images(arguments.source, "img_align_celeba")
    attributes = arguments.source / ATTRIBUTES
    total, _ = read_header(read_lines(attributes), attributes)
    samples = read_samples(arguments.source, images)
    vocabulary = get_vocabulary("celeba-40")
    prepare(arguments, samples, ReadImage(images), vocabulary, DESCRIPTION, total=total)


if __name__ == "__main__":
    run_program(main)
