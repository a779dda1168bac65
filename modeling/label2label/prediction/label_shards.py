"""Labels of an image collection as Parquet: a row a face, in files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from label2label.prediction.collection import ImageLocation

ROW_GROUP = 1000  # rows in memory at once
TEMPORARY = ".label2label-tmp"


def label_schema(attributes: Sequence[str]) -> pa.Schema:
    """Columns of the labels.

    Args:
        attributes: names of the model's attributes.

    Returns:
        `index` of the image in the collection, from 0; `image`, its path, or its name in a dataset;
        `split` of the dataset; `face`, from 0, from left to right; `box` [x0, y0, x1, y1] in pixels
        of the upright image; `score` of the detector, 0 to 1; `error`, why the image could not be
        read; and a probability for each attribute. What does not apply is null.
    """
    return pa.schema(
        [
            ("index", pa.int64()),
            ("image", pa.string()),
            ("split", pa.string()),
            ("face", pa.int32()),
            ("box", pa.list_(pa.float32(), 4)),
            ("score", pa.float32()),
            ("error", pa.string()),
            *((name, pa.float32()) for name in attributes),
        ]
    )


def label_rows(
    index: int, location: ImageLocation, entry: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows of one image: one a face; one without `face` where none is found, or it is no image.

    Args:
        index: of the image in the collection.
        location: of the image.
        entry: as `AttributePredictor.predict_photos` yields it.

    Yields:
        Values by column; null where missing.
    """
    # A file name may hold bytes that are no text.
    name = location.name.encode("utf-8", "backslashreplace").decode()
    row = {"index": index, "image": name, "split": location.split}
    faces = entry.get("faces", [])
    for number, face in enumerate(faces):
        place = {"face": number, "box": face["box"], "score": face["score"]}
        yield {**row, **place, **face["attributes"]}
    if not faces:
        yield {**row, "error": entry.get("error")}


def shard_path(folder: Path, index: int, number: int) -> Path:
    """Where a shard lies: `labels-00000-of-00050.parquet`."""
    return folder / f"labels-{index:05d}-of-{number:05d}.parquet"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name, which becomes its own when all of it is on the disk.

    Args:
        path: the file.

    Yields:
        The temporary name, which no other process uses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_shard(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
    """Write a shard.

    Args:
        path: the file, which appears when it is whole.
        schema: its columns.
        rows: values by column; a row group of them is in memory at once.
    """
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(row)
            if len(group) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
