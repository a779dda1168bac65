"""UTKFace, whose labels are in the file names: AGE_GENDER_RACE_TIME.jpg.chip.jpg.

    python datasets_scripts/utkface.py --source UTKFACE --output data/utkface

The images are stored as they are, byte for byte, or with `--align` framed as CelebA's. Names that
lack a field or hold a value out of range are counted, listed and left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from label2label.data.preparation.aligning import (
    STORED_AS_THEY_ARE,
    add_align_option,
    describe_alignment,
    image_reader,
    report_alignment,
)
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.program import (
    dataset_parser,
    positive_integer,
    prepare,
    run_program,
)
from label2label.data.preparation.sources import RawImages, open_images
from label2label.data.preparation.splits import split_by_hash
from label2label.data.schema import GENDERS, YOUNG_BELOW, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError

IMAGE_FOLDERS = ("crop_part1", "UTKFace", "utkcropped")
RACES = ("White", "Black", "Asian", "Indian", "Others")
OLDEST = 116

DESCRIPTION = DatasetDescription(
    title="UTKFace",
    summary="Faces with age, gender and race, in the dataset schema of label2label.",
    origin=(
        "UTKFace (Zhang et al., Age Progression/Regression by Conditional Adversarial Autoencoder, "
        "CVPR 2017), <https://susanqq.github.io/UTKFace/>: the aligned and cropped images."
    ),
    terms="Non-commercial research only; the images belong to their owners.",
    process=(
        f"{STORED_AS_THEY_ARE} "
        "`age`, `gender`, `race` and `Male` come from the "
        "file name; `Young` is true below the age of {young_below}. Splits are 70 % train, 10 % "
        "validation and 20 % test by a hash of the file name, because the people are not named: "
        "one person's images may lie in different splits. The other attributes are null."
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


@dataclass
class NameReader:
    """Reads the labels out of UTKFace's file names.

    Args:
        young_below: Age in years below which a person is `Young`.
        malformed: File names that could not be read; filled while reading.
    """

    young_below: int
    malformed: list[str] = field(default_factory=list)

    def read(self, images: RawImages) -> Iterator[Sample]:
        """Read the names of all images.

        Args:
            images: The images.

        Yields:
            A sample per well-formed name, sorted by name.
        """
        self.malformed.clear()
        for name in images:
            if not name.endswith(".jpg"):
                continue
            sample = self.parse(name)
            if sample is None:
                self.malformed.append(name)
            else:
                yield sample

    def parse(self, name: str) -> Sample | None:
        """Read one file name.

        Args:
            name: The file name.

        Returns:
            The sample, or None where a field is missing or out of range.
        """
        fields = name.split("_")
        if len(fields) != 4 or not all(text.isdecimal() for text in fields[:3]):
            return None
        age, gender, race = map(int, fields[:3])
        if age > OLDEST or gender > 1 or race >= len(RACES):
            return None
        male = gender == 0
        return Sample(
            key=name,
            split=split_by_hash(name),
            attributes={"Male": male, "Young": age < self.young_below},
            source="utkface",
            race=RACES[race],
            gender=GENDERS[male],
            age=age,
        )


def main() -> None:
    """Prepare UTKFace as the command line says."""
    parser = dataset_parser(__doc__, source=f"folder that holds {' or '.join(IMAGE_FOLDERS)}")
    parser.add_argument(
        "--young-below",
        type=positive_integer,
        default=YOUNG_BELOW,
        metavar="AGE",
        help="age below which a person is Young (default: %(default)s)",
    )
    add_align_option(parser)
    arguments = parser.parse_args()
    images = open_images(arguments.source, *IMAGE_FOLDERS)
    names = NameReader(arguments.young_below)
    total = sum(1 for _ in names.read(images))
    if total == 0:
        raise UserError(f"no file in {images.path} is named like AGE_GENDER_RACE_TIME.jpg.chip.jpg")
    description = replace(
        DESCRIPTION, process=DESCRIPTION.process.format(young_below=arguments.young_below)
    )
    counts = prepare(
        arguments,
        names.read(images),
        image_reader(images, arguments.align),
        get_vocabulary("celeba-40"),
        describe_alignment(description, arguments.align),
        settings={"align": arguments.align},
        total=total,
    )
    if arguments.align:
        report_alignment(counts)
    if names.malformed:
        print(
            f"{len(names.malformed):,} file names are malformed and were left out: "
            + ", ".join(names.malformed[:20]),
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_program(main)
