"""SCUT-FBP5500, whose labels are in the file names: A or C (Asian, Caucasian), F or M, a number.

    python datasets_scripts/scut_fbp5500.py --source SCUT_FBP5500 --output data/scut-fbp5500

SCUT_FBP5500 holds the photos in `Images` or `images` (folder or archive). Images are split by
`splits.csv` (columns image and split) if it exists, otherwise by a hash of the file name. The
dataset's beauty scores are not used.
"""

from __future__ import annotations

import re

from label2label.data.schema import GENDERS, Sample
from label2label.errors import UserError
from preparation.card import DatasetDescription
from preparation.program import prepare_by_name, run_program

RACES = {"A": "Asian", "C": "Caucasian"}

DESCRIPTION = DatasetDescription(
    title="SCUT-FBP5500",
    summary="Frontal, evenly lit faces, Asian and Caucasian, in the dataset schema of label2label.",
    origin=(
        "SCUT-FBP5500 (Liang et al., SCUT-FBP5500: A Diverse Benchmark Dataset for Multi-Paradigm "
        "Facial Beauty Prediction, ICPR 2018), "
        "<https://github.com/HCIILAB/SCUT-FBP5500-Database-Release>."
    ),
    terms="Non-commercial research only; the images may not be redistributed.",
    process=(
        "{framing} `race`, `gender` and `Male` come from the file name; the other attributes are "
        "null. The people are not named."
    ),
    biases=(
        "Adults of 15 to 60, frontal, neutral and evenly lit, many of them photographed in a "
        "studio or retouched; two race groups, as the authors saw them."
    ),
    program="datasets_scripts/scut_fbp5500.py",
    license_name="scut-fbp5500-non-commercial",
    license_link="https://github.com/HCIILAB/SCUT-FBP5500-Database-Release",
    tags=("scut-fbp5500",),
)


def label(name: str, split: str) -> Sample:
    """Read the labels from a file name; raise an error for names of any other form."""
    found = re.fullmatch(r"([AC])([FM])\d+\.\w+", name)
    if not found:
        raise UserError(f"{name} is not named like AF12.jpg: A or C, F or M, and a number")
    male = found[2] == "M"
    return Sample(
        key=name,
        split=split,
        attributes={"Male": male},
        source="scut-fbp5500",
        race=RACES[found[1]],
        gender=GENDERS[male],
    )


def main() -> None:
    """Prepare SCUT-FBP5500 as the command line says."""
    prepare_by_name(__doc__, ("Images", "images"), label, "celeba-40", DESCRIPTION)


if __name__ == "__main__":
    run_program(main)
