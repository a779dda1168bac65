"""Read a prepared dataset's Parquet shards, a row group at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from label2label.data.preparation.writing import PREPARATION_FILE
from label2label.data.schema import SPLITS, Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError


@dataclass(frozen=True)
class RowLocation:
    """Where a row of a prepared dataset lies.

    Args:
        shard: The Parquet file.
        row_group: Index of its row group.
        row: Index of the row in the row group.
    """

    shard: str
    row_group: int
    row: int


@dataclass(frozen=True, kw_only=True)
class StoredSample(Sample):
    """A sample whose image lies in a prepared dataset.

    Args:
        location: Where it lies.
    """

    location: RowLocation


def read_record(dataset: Path) -> dict[str, Any]:
    """Read how a prepared dataset was made.

    Args:
        dataset: Its folder.

    Returns:
        The content of its `preparation.json`.

    Raises:
        UserError: If the folder holds no dataset that this package prepared.
    """
    path = dataset / PREPARATION_FILE
    if not path.is_file():
        raise UserError(
            f"{dataset} holds no prepared dataset: make one with a program of datasets_scripts/"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def list_row_groups(dataset: Path) -> list[tuple[str, str, int]]:
    """List the row groups of a prepared dataset.

    Args:
        dataset: Its folder.

    Returns:
        Split, shard and index of each row group; the splits in the order of `SPLITS`.

    Raises:
        UserError: If the folder has no shards.
    """
    row_groups = []
    for split in SPLITS:
        for shard in sorted((dataset / "data").glob(f"{split}-*.parquet")):
            number = pq.read_metadata(shard).num_row_groups
            row_groups += [(split, str(shard), index) for index in range(number)]
    if not row_groups:
        raise UserError(f"{dataset} holds no prepared dataset: its data/ has no Parquet files")
    return row_groups


def read_row_group(shard: str, index: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read the rows of a row group.

    Args:
        shard: The Parquet file.
        index: Index of the row group.
        columns: Columns to read; `image.path` reads an image's name without the image.

    Returns:
        The rows: values by column name.
    """
    with pq.ParquetFile(shard) as file:
        return file.read_row_group(index, columns=list(columns)).to_pylist()


def read_stored_samples(dataset: Path) -> Iterator[StoredSample]:
    """Read the rows of a prepared dataset, without their images.

    Args:
        dataset: Its folder.

    Yields:
        The rows; the splits in the order of `SPLITS`.

    Raises:
        UserError: If the folder holds no dataset that this package prepared.
    """
    attributes = get_vocabulary(read_record(dataset)["vocabulary"]).attributes
    columns = ["image.path", "identity", "source", "race", "gender", "age", *attributes]
    for split, shard, index in list_row_groups(dataset):
        for number, row in enumerate(read_row_group(shard, index, columns)):
            yield StoredSample(
                key=row["image"]["path"],
                split=split,
                attributes={name: row[name] for name in attributes},
                identity=row["identity"],
                source=row["source"],
                race=row["race"],
                gender=row["gender"],
                age=row["age"],
                location=RowLocation(shard, index, number),
            )


def read_images(dataset: Path, split: str, limit: int) -> Iterator[bytes]:
    """Read the first images of a split.

    Args:
        dataset: Folder of a prepared dataset.
        split: Name of the split.
        limit: Number of images to read at most.

    Yields:
        The encoded images.
    """
    images = (
        row["image"]["bytes"]
        for row_split, shard, index in list_row_groups(dataset)
        if row_split == split
        for row in read_row_group(shard, index, ["image.bytes"])
    )
    yield from islice(images, limit)


def read_image_at(location: RowLocation) -> bytes:
    """Read the image of one row; rows of one row group are best asked for one after another.

    Args:
        location: Where the row lies.

    Returns:
        The encoded image.
    """
    images = _read_row_group_images(location.shard, location.row_group)
    return images[location.row].as_py()


@lru_cache(maxsize=1)
def _read_row_group_images(shard: str, row_group: int) -> pa.ChunkedArray:
    with pq.ParquetFile(shard) as file:
        table = file.read_row_group(row_group, columns=["image.bytes"])
    return pa.chunked_array([chunk.field("bytes") for chunk in table["image"].chunks])
