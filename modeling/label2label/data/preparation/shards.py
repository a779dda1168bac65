"""Parquet files of the dataset schema: small parts first, then shards of a bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_ROW_GROUP_BYTES = 16 * 2**20
MAX_SHARD_BYTES = 500 * 10**6


class PartWriter:
    """Writes rows to one Parquet file, a row group at a time; the file appears when it is closed.

    Args:
        path: The file. While it grows it is called `path.tmp`.
        schema: Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self.path = path
        self.schema = schema
        self._temporary = path.with_name(path.name + ".tmp")
        self._writer = pq.ParquetWriter(self._temporary, schema)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; it is on disk once its row group is full.

        Args:
            row: Values by column name.
        """
        self._rows.append(row)
        self._bytes += len(row["image"]["bytes"])
        if self._bytes >= MAX_ROW_GROUP_BYTES:
            self._write_row_group()

    def close(self) -> None:
        """Write what is left and give the file its name."""
        if self._rows:
            self._write_row_group()
        self._writer.close()
        os.replace(self._temporary, self.path)

    def _write_row_group(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        self._rows, self._bytes = [], 0


def join_parts(parts: Iterable[Path], folder: Path, split: str, schema: pa.Schema) -> list[Path]:
    """Join the parts of a split into shards, in order, one row group in memory at a time.

    Args:
        parts: Parquet files of the schema.
        folder: Where the shards go.
        split: Name of the split.
        schema: Columns of the parts.

    Returns:
        The shards, `{split}-{index}-of-{number}.parquet`, each of at most `MAX_SHARD_BYTES`; none
        where there are no parts.
    """
    unnumbered: list[Path] = []
    writer: pq.ParquetWriter | None = None
    size = 0
    for part in parts:
        with pq.ParquetFile(part) as file:
            for index in range(file.num_row_groups):
                row_group = file.read_row_group(index)
                if writer is None or size + row_group.nbytes > MAX_SHARD_BYTES:
                    if writer is not None:
                        writer.close()
                    unnumbered.append(folder / f"{split}-{len(unnumbered):05d}.tmp")
                    writer, size = pq.ParquetWriter(unnumbered[-1], schema), 0
                writer.write_table(row_group)
                size += row_group.nbytes
    if writer is not None:
        writer.close()
    return _number_shards(unnumbered, split)


def _number_shards(unnumbered: Sequence[Path], split: str) -> list[Path]:
    shards = []
    for index, path in enumerate(unnumbered):
        shard = path.with_name(f"{split}-{index:05d}-of-{len(unnumbered):05d}.parquet")
        os.replace(path, shard)
        shards.append(shard)
    return shards
