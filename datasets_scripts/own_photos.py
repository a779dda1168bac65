"""Photos and labels of your own: a folder of photos and a table of any attributes.

    python datasets_scripts/own_photos.py --source PHOTOS --labels labels.csv --output data/mine

The table's column `image` holds the file name of each photo. The columns `split` (train, validation
or test), `identity`, `race`, `gender` and `age` are optional. Every other column is an attribute:
1, 0, or empty for unknown. Without `split`, people (or photos, if there is no `identity`) are split
by hash. `label2label train --vocabulary columns` trains on the table's attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from label2label.data.schema import Sample
from label2label.data.vocabulary import Vocabulary
from label2label.errors import UserError
from preparation.card import read_description
from preparation.framing import ReadImage
from preparation.program import dataset_parser, prepare, read_value, run_program, split_by_hash
from preparation.sources import Download, Images

OTHERS = ("image", "split", "identity", "race", "gender", "age")


def read_samples(table: Path, images: Images) -> Iterator[Sample]:
    """Read the table; raise an error for a missing image or a value out of range."""
    for where, row in Download(table).rows(table.name, columns=["image"]):
        values = {
            name: read_value(name, text.strip(), where)
            for name, text in row.items()
            if text.strip() and name not in ("image", "identity", "race")
        }
        image, identity = row["image"].strip(), row.get("identity", "").strip() or None
        if image not in images:
            raise UserError(f"{where}: the image {image} is missing from {images.where}")
        yield Sample(
            key=image,
            split=values.pop("split", None) or split_by_hash(identity or image),
            identity=identity,
            source="own",
            race=row.get("race", "").strip() or None,
            gender=values.pop("gender", None),
            age=values.pop("age", None),
            attributes=values,
        )


def main() -> None:
    """Prepare your own photos as the command line says."""
    arguments = dataset_parser(__doc__, source="folder or archive of the photos").parse_args()
    if arguments.labels is None:
        raise UserError("give the table of labels as --labels FILE.csv")
    table, arguments.labels = arguments.labels, None
    _, first = next(Download(table).rows(table.name, columns=["image"]), ("", {}))
    attributes = tuple(name for name in first if name not in OTHERS)
    if not attributes:
        raise UserError(f"{table} has no rows, or no column of an attribute")
    images = Download(arguments.source).images(arguments.source.resolve().name)
    prepare(
        arguments,
        read_samples(table, images),
        ReadImage(images, arguments.align),
        Vocabulary("columns", attributes),
        read_description("own"),
    )


if __name__ == "__main__":
    run_program(main)
