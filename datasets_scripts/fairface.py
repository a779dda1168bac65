"""FairFace, for measuring over seven groups: its two label files and its image folder.

    python datasets_scripts/fairface.py --source FAIRFACE --output data/fairface

`fairface_label_train.csv` becomes the splits train (90 %) and validation (10 %, chosen by a hash of
the file name). `fairface_label_val.csv`, the published benchmark, becomes the split test.
"""

from __future__ import annotations

from collections.abc import Iterator

from label2label.data.schema import GENDERS, YOUNG_BELOW, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from preparation.card import read_description
from preparation.framing import ReadImage
from preparation.program import dataset_parser, prepare, run_program, split_by_hash
from preparation.sources import Download, Images

LABELS = {"train": "fairface_label_train.csv", "test": "fairface_label_val.csv"}
COLUMNS = {"file", "age", "gender", "race"}
ROOTS = ("fairface-img-margin025-trainval", "fairface-img-margin125-trainval", ("train", "val"))
RACES = (
    *("Black", "East Asian", "Indian", "Latino_Hispanic"),
    *("Middle Eastern", "Southeast Asian", "White"),
)
AGES = (
    *("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69"),
    "more than 70",
)
TRAIN_SHARES = (0.9, 0.1, 0.0)


def read_samples(download: Download, images: Images) -> Iterator[Sample]:
    """Read and check the label files."""
    names = {split: name for split, name in LABELS.items() if download.find_text(name)}
    if not names:
        raise UserError(f"{download.source} holds neither {' nor '.join(LABELS.values())}")
    for split, name in names.items():
        for where, line in download.rows(name, columns=COLUMNS):
            sample = read_line(line, split, where)
            if sample.key not in images:
                raise UserError(f"{where}: {sample.key} is missing from {images.where}")
            yield sample


def read_line(line: dict[str, str], split: str, where: str) -> Sample:
    """Read one line of a label file; raise an error for a value that FairFace does not use."""
    accepted = {"age": AGES, "gender": GENDERS.values(), "race": RACES}
    for column, values in accepted.items():
        if line[column] not in values:
            raise UserError(
                f"{where}: {column} is {line[column]!r}, not one of {', '.join(values)}"
            )
    age = int(line["age"].removeprefix("more than ").partition("-")[0])
    return Sample(
        key=line["file"],
        split=split_by_hash(line["file"], TRAIN_SHARES) if split == "train" else split,
        attributes={"Male": line["gender"] == GENDERS[True], "Young": age < YOUNG_BELOW},
        source="fairface",
        race=line["race"].replace("_", " "),
        gender=line["gender"],
        age=age,
    )


def main() -> None:
    """Prepare FairFace as the command line says."""
    source = "folder or archive of the label files and the images"
    arguments = dataset_parser(__doc__, source=source).parse_args()
    download = Download(arguments.source)
    images = download.images(*ROOTS, depth=2)
    samples = read_samples(download, images)
    read, vocabulary = ReadImage(images, arguments.align), get_vocabulary("celeba-40")
    prepare(arguments, samples, read, vocabulary, read_description("fairface"))


if __name__ == "__main__":
    run_program(main)
