"""Datasets whose file names hold the labels: UTKFace, All-Age-Faces, SCUT-FBP5500, real face masks.

    python datasets_scripts/by_name.py utkface --source UTKFACE --output data/utkface

- `utkface`: `AGE_GENDER_RACE_TIME.jpg.chip.jpg`, in `UTKFace`, `crop_part1` or `utkcropped` (the
  crops), or otherwise `part1` to `part3` (the photos in the wild).
- `all-age-faces`: `NNNNNAXX.jpg`, in `original images` or `images`. XX is the age in years; numbers
  up to 07380 are women, higher ones men.
- `scut-fbp5500`: `AF12.jpg`, in `Images` or `images`: A or C (Asian, Caucasian), F or M, a number.
- `masks`: `with_mask/NAME` and `without_mask/NAME`. A NAME that begins with `augmented_` is a
  rotated or brightened copy of another image; only train keeps these.

The source may also be the folder of images itself. Images are split by `splits.csv` (columns image
and split) if it exists, otherwise by a hash of their names. Images with a name of any other form
are counted, listed and left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from label2label.data.schema import GENDERS, YOUNG_BELOW, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError, printable
from preparation.card import read_description
from preparation.framing import ReadImage
from preparation.program import (
    SPLITS_FILE,
    dataset_parser,
    prepare,
    read_splits,
    run_program,
    split_by_hash,
)
from preparation.sources import Download, Images

UTKFACE_RACES = ("White", "Black", "Asian", "Indian", "Others")
OLDEST = 116
LAST_WOMAN = 7380  # of All-Age-Faces
SCUT_RACES = {"A": "Asian", "C": "Caucasian"}


@dataclass(frozen=True)
class NamedSet:
    """A dataset whose file names hold the labels."""

    form: str  # an image's name, for messages
    pattern: str  # regular expression of the names
    read: Callable[..., dict[str, Any] | None]  # groups to fields of `Sample`; None: out of range
    roots: tuple[str | tuple[str, ...], ...]  # as for `Download.images`
    depth: int = 1
    vocabulary: str = "celeba-40"


def describe_person(male: bool, age: int | None = None, race: str | None = None) -> dict[str, Any]:
    """Return the fields of `Sample` that follow from sex, age and race."""
    young = {} if age is None else {"Young": age < YOUNG_BELOW}
    attributes = {"Male": male, **young}
    return {"attributes": attributes, "gender": GENDERS[male], "age": age, "race": race}


def read_utkface(age: str, gender: str, race: str) -> dict[str, Any] | None:
    """Read a UTKFace name; gender 0 is male."""
    if int(age) > OLDEST:
        return None
    return describe_person(gender == "0", int(age), UTKFACE_RACES[int(race)])


SETS = {
    "utkface": NamedSet(
        *("AGE_GENDER_RACE_TIME.jpg", r"(\d{1,3})_([01])_([0-4])_[^_]+", read_utkface),
        roots=("UTKFace", "crop_part1", "utkcropped", ("part1", "part2", "part3")),
    ),
    "all-age-faces": NamedSet(
        *("NNNNNAXX.jpg", r"(\d{5})A(\d{1,3})\.\w+"),
        read=lambda number, age: describe_person(int(number) > LAST_WOMAN, int(age)),
        roots=("original images", "images"),
        vocabulary="union",
    ),
    "scut-fbp5500": NamedSet(
        *("AF12.jpg", r"([AC])([FM])\d+\.\w+"),
        read=lambda race, sex: describe_person(sex == "M", race=SCUT_RACES[race]),
        roots=("Images", "images"),
    ),
    "masks": NamedSet(
        *("with_mask/NAME or without_mask/NAME", r"(with|without)_mask/.+"),
        read=lambda folder: {"attributes": {"Wearing_Mask": folder == "with"}},
        roots=(("with_mask", "without_mask"),),
        depth=2,
        vocabulary="korean-11",
    ),
}


def read_samples(
    name: str, images: Images, splits: dict[str, str] | None, left_out: list[str]
) -> Iterator[Sample]:
    """Read the labels from the images' names, with splits by image, or by hash if None.

    Names that do not fit, and copies outside of train, are appended to `left_out`.
    """
    for key in images:
        found = re.fullmatch(SETS[name].pattern, key)
        fields = SETS[name].read(*found.groups()) if found else None
        if fields and splits is not None and key not in splits:
            raise UserError(f"{SPLITS_FILE} does not name the image {key}")
        split = splits[key] if fields and splits is not None else split_by_hash(key)
        if fields is None or (split != "train" and "/augmented_" in key):
            left_out.append(key)
        else:
            yield Sample(key=key, split=split, source=name, **fields)


def main() -> None:
    """Prepare a dataset as the command line says."""
    parser = dataset_parser(__doc__, source="folder or archive of the images")
    parser.add_argument("name", choices=SETS, metavar="SET", help=", ".join(SETS))
    arguments = parser.parse_args()
    named, download = SETS[arguments.name], Download(arguments.source)
    images = download.images(*named.roots, depth=named.depth)
    splits = read_splits(download)
    left_out: list[str] = []
    if not any(read_samples(arguments.name, images, splits, [])):
        raise UserError(f"no image in {images.where} is named like {named.form}")
    prepare(
        arguments,
        read_samples(arguments.name, images, splits, left_out),
        ReadImage(images, arguments.align),
        get_vocabulary(named.vocabulary),
        read_description(arguments.name),
        total=len(images),
    )
    if left_out:
        print(
            f"{len(left_out):,} images are not named like {named.form}, or are copies outside of "
            f"train, and were left out: {printable(', '.join(left_out[:20]))}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_program(main)
