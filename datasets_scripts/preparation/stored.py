"""Read prepared datasets: the record, and the rows with or without their images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from label2label.data.schema import SPLITS, Sample
from label2label.errors import UserError

from preparation.writing import PREPARATION_FILE

ROWS = 256
"""Rows that are read at once."""


@dataclass(frozen=True, kw_only=True)
class StoredSample(Sample):
    """Sample of a prepared dataset, with its encoded image if it was asked for."""

    image: bytes = b""


def read_record(dataset: Path) -> dict[str, Any]:
    """Read the `preparation.json` of a dataset (see `preparation.writing`)."""
    path = dataset / PREPARATION_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{dataset} is not a prepared dataset: make one with a program of datasets_scripts/"
        ) from error


def read_stored_samples(dataset: Path, images: bool = False) -> Iterator[StoredSample]:
    """Read the rows of a prepared dataset in the order of `SPLITS`; their images on request."""
    folder = dataset / "data"
    shards = [
        (split, path) for split in SPLITS for path in sorted(folder.glob(f"{split}-*.parquet"))
    ]
    if not shards:
        raise UserError(f"{dataset} is not a prepared dataset: its data/ has no Parquet files")
    own = {field.name for field in fields(Sample)}
    for split, path in shards:
        try:
            with pq.ParquetFile(path) as file:
                columns = [name for name in file.schema_arrow.names if name != "image"]
                attributes = [name for name in columns if name not in own]
                columns += ["image.path", "image.bytes"] if images else ["image.path"]
                for batch in file.iter_batches(ROWS, columns=columns):
                    for row in batch.to_pylist():
                        image = row.pop("image")
                        yield StoredSample(
                            key=image["path"],
                            split=split,
                            attributes={name: row.pop(name) for name in attributes},
                            image=image.get("bytes", b""),
                            **row,
                        )
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{path} is not a complete Parquet file: prepare the dataset again"
            ) from error
