"""UTKFace, whose labels are in the file names: AGE_GENDER_RACE_TIME.jpg.chip.jpg.

    python datasets_scripts/utkface.py --source UTKFACE --output data/utkface

UTKFACE is a folder that holds `UTKFace`, `crop_part1` or `utkcropped` (the crops), or otherwise
`part1` to `part3` (the photos in the wild), as folders, zips or tar.gz; it can also be one of these
itself. Images whose name lacks a field or holds a value out of range are counted, listed and left
out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from label2label.data.schema import GENDERS, YOUNG_BELOW, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError, printable
from preparation.card import DatasetDescription
from preparation.framing import ReadImage
from preparation.program import dataset_parser, prepare, run_program, split_by_hash, whole_number
from preparation.sources import Download

ROOTS = ("UTKFace", "crop_part1", "utkcropped", ("part1", "part2", "part3"))
RACES = ("White", "Black", "Asian", "Indian", "Others")
OLDEST = 116

DESCRIPTION = DatasetDescription(
    title="UTKFace",
    summary="Faces with age, gender and race, in the dataset schema of label2label.",
    origin=(
        "UTKFace (Zhang et al., Age Progression/Regression by Conditional Adversarial Autoencoder, "
        "CVPR 2017), <https://susanqq.github.io/UTKFace/>."
    ),
    terms="Non-commercial research only; the images belong to their owners.",
    process=(
        "{framing} `age`, `gender`, `race` and `Male` come from the file name; `Young` is true "
        "below the age of {young_below}. Splits are 70 % train, 10 % validation and 20 % test by a "
        "hash of the file name, because the people are not named: one person's images may lie in "
        "different splits. The other attributes are null."
    ),
    biases=(
        "Many images are of children under five, for whom most attributes of CelebA mean little. "
        "Age, gender and race were estimated by a model and checked by people; `Others` is a "
        "remainder, not a group."
    ),
    program="datasets_scripts/utkface.py",
    license_name="utkface-non-commercial",
    license_link="https://susanqq.github.io/UTKFace/",
    tags=("utkface",),
)


def read_samples(names: Iterable[str], young_below: int, malformed: list[str]) -> Iterator[Sample]:
    """Read the labels from file names; append names that cannot be parsed to `malformed`."""
    for name in names:
        fields = name.split("_")
        well_formed = len(fields) == 4 and all(text.isdecimal() for text in fields[:3])
        age, gender, race = map(int, fields[:3]) if well_formed else (-1, 0, 0)
        if not 0 <= age <= OLDEST or gender > 1 or race >= len(RACES):
            malformed.append(name)
            continue
        male = gender == 0
        yield Sample(
            key=name,
            split=split_by_hash(name),
            attributes={"Male": male, "Young": age < young_below},
            source="utkface",
            race=RACES[race],
            gender=GENDERS[male],
            age=age,
        )


def main() -> None:
    """Prepare UTKFace as the command line says."""
    parser = dataset_parser(__doc__, source="folder or archive of UTKFace's images")
    parser.add_argument(
        "--young-below",
        type=whole_number(1),
        default=YOUNG_BELOW,
        metavar="AGE",
        help="age below which a person is Young (default: %(default)s)",
    )
    arguments = parser.parse_args()
    images = Download(arguments.source).images(*ROOTS)
    malformed: list[str] = []
    if not any(read_samples(images, arguments.young_below, [])):
        raise UserError(f"no file in {images.where} is named like AGE_GENDER_RACE_TIME.jpg")
    process = DESCRIPTION.process.replace("{young_below}", str(arguments.young_below))
    prepare(
        arguments,
        read_samples(images, arguments.young_below, malformed),
        ReadImage(images, arguments.align),
        get_vocabulary("celeba-40"),
        replace(DESCRIPTION, process=process),
        total=len(images),
    )
    if malformed:
        print(
            f"{len(malformed):,} file names are malformed and were left out: "
            + printable(", ".join(malformed[:20])),
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_program(main)
