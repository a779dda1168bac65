"""FairFace, for measuring over seven groups: its two label files and its image folder.

    python datasets_scripts/fairface.py --source FAIRFACE --output data/fairface

`fairface_label_train.csv` becomes the splits train and validation (a tenth, by a hash of the file
name), `fairface_label_val.csv`, the published benchmark, the split test. The images are stored as
they are, byte for byte, or with `--align` framed as CelebA's.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from label2label.data.preparation.aligning import (
    STORED_AS_THEY_ARE,
    add_align_option,
    describe_alignment,
    image_reader,
    report_alignment,
)
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.program import dataset_parser, prepare, run_program
from label2label.data.preparation.sources import ImageFolder, RawImages, open_images
from label2label.data.preparation.splits import split_by_hash
from label2label.data.preparation.text import open_text
from label2label.data.schema import GENDERS, YOUNG_BELOW, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError

LABELS = {"train": "fairface_label_train.csv", "test": "fairface_label_val.csv"}
COLUMNS = {"file", "age", "gender", "race", "service_test"}
IMAGE_FOLDERS = ("fairface-img-margin025-trainval", "fairface-img-margin125-trainval")
RACES = {
    "Black": "Black",
    "East Asian": "East Asian",
    "Indian": "Indian",
    "Latino_Hispanic": "Latino Hispanic",
    "Middle Eastern": "Middle Eastern",
    "Southeast Asian": "Southeast Asian",
    "White": "White",
}
YOUNGEST_OF_AGE = {
    "0-2": 0,
    "3-9": 3,
    "10-19": 10,
    "20-29": 20,
    "30-39": 30,
    "40-49": 40,
    "50-59": 50,
    "60-69": 60,
    "more than 70": 70,
}
TRAIN_SHARES = (0.9, 0.1, 0.0)

DESCRIPTION = DatasetDescription(
    title="FairFace",
    summary="Faces balanced over seven race groups, in the dataset schema of label2label.",
    origin=(
        "FairFace (Kärkkäinen and Joo, FairFace: Face Attribute Dataset for Balanced Race, Gender, "
        "and Age, WACV 2021), <https://github.com/joojs/fairface>; images from YFCC-100M."
    ),
    terms="CC BY 4.0: any use, with attribution.",
    process=(
        f"{STORED_AS_THEY_ARE} FairFace gives ages as ranges: `age` is the "
        f"youngest age of the range, and `Young` is true for ranges below {YOUNG_BELOW}. The "
        "published training list became train (90 %) and validation (10 %, by a hash of the file "
        "name), the published validation list became test. The other attributes are null."
    ),
    biases=(
        "Race, gender and age are what annotators saw, not what people say of themselves; the "
        "people are not named, so one person may be in train and in validation."
    ),
    program="datasets_scripts/fairface.py",
    license="cc-by-4.0",
    redistributable=True,
    tags=("fairface",),
)


def read_samples(source: Path, images: RawImages, service_test: bool) -> Iterator[Sample]:
    """Read and check the label files.

    Args:
        source: Folder of the label files.
        images: The images that they must name.
        service_test: Whether to keep only the subset balanced for testing services.

    Yields:
        A sample per line, the training list's first.

    Raises:
        UserError: If both files are missing, one lacks a column, a value is out of range, or an
            image is missing; the message names the file and the line.
    """
    paths = {split: source / name for split, name in LABELS.items() if (source / name).is_file()}
    if not paths:
        raise UserError(f"{source} holds neither {' nor '.join(LABELS.values())}")
    for split, path in paths.items():
        with open_text(path) as file:
            lines = csv.DictReader(file)
            missing = COLUMNS - set(lines.fieldnames or ())
            if missing:
                raise UserError(f"{path}, line 1: no column {', '.join(sorted(missing))}")
            for line in lines:
                sample = read_line(line, split, f"{path}, line {lines.line_num}")
                if sample.key not in images:
                    raise UserError(
                        f"{path}, line {lines.line_num}: {sample.key} is missing from {images.path}"
                    )
                if line["service_test"] == "True" or not service_test:
                    yield sample


def read_line(line: dict[str, str], split: str, where: str) -> Sample:
    """Read one line of a label file.

    Args:
        line: Values by column.
        split: `train` or `test`, by the file.
        where: File and line, for error messages.

    Returns:
        The sample.

    Raises:
        UserError: If a value is not one of FairFace's.
    """
    accepted = {
        "age": YOUNGEST_OF_AGE,
        "gender": GENDERS.values(),
        "race": RACES,
        "service_test": ("True", "False"),
    }
    for column, values in accepted.items():
        if line[column] not in values:
            raise UserError(
                f"{where}: {column} is {line[column]!r}, not one of {', '.join(values)}"
            )
    age = YOUNGEST_OF_AGE[line["age"]]
    return Sample(
        key=line["file"],
        split=split_by_hash(line["file"], TRAIN_SHARES) if split == "train" else split,
        attributes={"Male": line["gender"] == GENDERS[True], "Young": age < YOUNG_BELOW},
        source="fairface",
        race=RACES[line["race"]],
        gender=line["gender"],
        age=age,
    )


def main() -> None:
    """Prepare FairFace as the command line says."""
    parser = dataset_parser(__doc__, source="folder of the label files and the images")
    parser.add_argument(
        "--service-test", action="store_true", help="keep only the subset for testing services"
    )
    add_align_option(parser)
    arguments = parser.parse_args()
    unpacked = (arguments.source / "train").is_dir() or (arguments.source / "val").is_dir()
    images = (
        ImageFolder(arguments.source) if unpacked else open_images(arguments.source, *IMAGE_FOLDERS)
    )
    samples = read_samples(arguments.source, images, arguments.service_test)
    counts = prepare(
        arguments,
        samples,
        image_reader(images, arguments.align),
        get_vocabulary("celeba-40"),
        describe_alignment(DESCRIPTION, arguments.align),
        settings={"align": arguments.align, "service_test": arguments.service_test},
    )
    if arguments.align:
        report_alignment(counts)


if __name__ == "__main__":
    run_program(main)
