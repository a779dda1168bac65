"""All-Age-Faces, mostly East Asian, whose labels are in the file names: NNNNNAXX.jpg.

    python datasets_scripts/all_age_faces.py --source ALL_AGE_FACES --output data/all-age-faces

XX is the age in years. Numbers up to 07380 are women, higher numbers are men. ALL_AGE_FACES holds
the photos in `original images` or `images` (folder or archive). Images are split by `splits.csv`
(columns image and split) if it exists, otherwise by a hash of the file name. `--labels FILE.csv`
adds attributes.
"""

from __future__ import annotations

import re

from label2label.data.schema import GENDERS, YOUNG_BELOW, Sample
from label2label.errors import UserError
from preparation.card import DatasetDescription
from preparation.program import prepare_by_name, run_program

LAST_WOMAN = 7380

DESCRIPTION = DatasetDescription(
    title="All-Age-Faces",
    summary="Faces of ages 2 to 80, mostly East Asian, in the dataset schema of label2label.",
    origin=(
        "All-Age-Faces (Cheng et al., Exploiting Effective Facial Patches for Robust Gender "
        "Recognition, Tsinghua Science and Technology 2019), "
        "<https://github.com/JingchunCheng/All-Age-Faces-Dataset>: the original photos."
    ),
    terms="For research, citing the authors; the images belong to their owners.",
    process=(
        "{framing} `age`, `gender` and `Male` come from the file name; `Young` is true below the "
        f"age of {YOUNG_BELOW}. The people are not named: one person's images may lie in different "
        "splits. Attributes that nothing tells are null."
    ),
    biases=(
        "The authors call the people mostly Asian and label no one's race, which is null here. "
        "Ages are estimates. Photos from the web, most of them frontal and lit well."
    ),
    program="datasets_scripts/all_age_faces.py",
    license_name="all-age-faces-research",
    license_link="https://github.com/JingchunCheng/All-Age-Faces-Dataset",
    tags=("all-age-faces",),
)


def label(name: str, split: str) -> Sample:
    """Read the labels from a file name; raise an error for names of any other form."""
    found = re.fullmatch(r"(\d{5})A(\d{1,3})\.\w+", name)
    if not found:
        raise UserError(f"{name} is not named like NNNNNAXX.jpg")
    male, age = int(found[1]) > LAST_WOMAN, int(found[2])
    return Sample(
        key=name,
        split=split,
        attributes={"Male": male, "Young": age < YOUNG_BELOW},
        source="all-age-faces",
        gender=GENDERS[male],
        age=age,
    )


def main() -> None:
    """Prepare All-Age-Faces as the command line says."""
    prepare_by_name(__doc__, ("original images", "images"), label, "union", DESCRIPTION)


if __name__ == "__main__":
    run_program(main)
