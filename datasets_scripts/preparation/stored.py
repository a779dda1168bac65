"""Read prepared datasets: the record, the rows without images, and single images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from label2label.data.schema import SPLITS, Sample
from label2label.errors import UserError

from preparation.writing import PREPARATION_FILE


@dataclass(frozen=True, kw_only=True)
class StoredSample(Sample):
    """Sample whose image lies in a prepared dataset.

    Args:
        place: Path of its shard, index of its row group, and index of its row in that group.
    """

    place: tuple[str, int, int]


def read_record(dataset: Path) -> dict[str, Any]:
    """Read the `preparation.json` of a dataset (see `preparation.writing`)."""
    path = dataset / PREPARATION_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{dataset} is not a prepared dataset: make one with a program of datasets_scripts/"
        ) from error


def read_stored_samples(dataset: Path) -> Iterator[StoredSample]:
    """Read the rows of a prepared dataset without their images, in the order of `SPLITS`."""
    shards = [
        (split, str(path))
        for split in SPLITS
        for path in sorted((dataset / "data").glob(f"{split}-*.parquet"))
    ]
    if not shards:
        raise UserError(f"{dataset} is not a prepared dataset: its data/ has no Parquet files")
    own = {field.name for field in fields(Sample)}
    for split, path in shards:
        metadata = _read(path, lambda file: (file.schema_arrow.names, file.num_row_groups))
        columns = [name for name in metadata[0] if name != "image"]
        for group in range(metadata[1]):
            table = _read_group(path, group, ("image.path", *columns))
            for number, row in enumerate(table.to_pylist()):
                key = row.pop("image")["path"]
                attributes = {name: row.pop(name) for name in columns if name not in own}
                place = (path, group, number)
                yield StoredSample(key=key, split=split, attributes=attributes, place=place, **row)


def read_stored_image(sample: Sample) -> bytes:
    """Read the image of a row; reading in row order is fastest, since row groups are cached."""
    assert isinstance(sample, StoredSample)
    path, group, number = sample.place
    return _read_images(path, group)[number].as_py()


@lru_cache(maxsize=4)
def _read_images(path: str, group: int) -> pa.ChunkedArray:
    table = _read_group(path, group, ("image.bytes",))
    return pa.chunked_array([chunk.field("bytes") for chunk in table["image"].chunks])


def _read_group(path: str, group: int, columns: Iterable[str]) -> pa.Table:
    return _read(path, lambda file: file.read_row_group(group, columns=list(columns)))


def _read(path: str, get: Callable[[pq.ParquetFile], Any]) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            return get(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a complete Parquet file: prepare the dataset again"
        ) from error
