"""Photos of people with and without a real face mask: folders `with_mask` and `without_mask`.

    python datasets_scripts/masks.py --source MASKS --output data/masks

The folder of an image determines `Wearing_Mask`. Images are split by `splits.csv` (columns image,
like `with_mask/NAME`, and split) if it exists, otherwise by a hash of the name. Images whose name
begins with `augmented_` are rotated or brightened copies of others; validation and test omit them.
"""

from __future__ import annotations

from label2label.data.schema import Sample
from preparation.card import DatasetDescription
from preparation.program import prepare_by_name, run_program

AUGMENTED = "augmented_"

DESCRIPTION = DatasetDescription(
    title="Real face masks",
    summary="People with and without face masks, in the dataset schema of label2label.",
    origin=(
        "Photos collected for face mask detection, "
        "<https://github.com/chandrikadeb7/Face-Mask-Detection>."
    ),
    terms="Collected from the web for research; the images belong to their owners.",
    process=(
        "{framing} `Wearing_Mask` is the folder of the image; the other attributes are null. "
        "Copies that the authors made by augmentation are only in train. The people are not named: "
        "one person's images may lie in different splits."
    ),
    biases=(
        "Photos from the web, most of East Asian people; those without a mask come from other "
        "photographs than those with one, so that a model can take the photograph for the mask."
    ),
    program="datasets_scripts/masks.py",
    license_name="scraped-research",
    license_link="https://github.com/chandrikadeb7/Face-Mask-Detection",
    tags=("face-masks",),
)


def label(name: str, split: str) -> Sample | None:
    """Read the label from `FOLDER/NAME`; return None for augmented copies outside of train."""
    folder, _, file = name.partition("/")
    if split != "train" and file.startswith(AUGMENTED):
        return None
    attributes = {"Wearing_Mask": folder == "with_mask"}
    return Sample(key=name, split=split, attributes=attributes, source="masks")


def main() -> None:
    """Prepare the masks as the command line says."""
    folders = ("with_mask", "without_mask")
    prepare_by_name(__doc__, [folders], label, "korean-11", DESCRIPTION, depth=2)


if __name__ == "__main__":
    run_program(main)
