"""Read single images of a large zip archive without keeping its directory in memory.

`zipfile` holds an object of about 0.6 KB per file in every process that opens the archive: 120 MB
a worker for CelebA's 202,599 images. Here the directory is read once, one entry at a time, into an
SQLite file, in which every process looks names up.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from label2label.data.preparation.images import BadImageError
from label2label.errors import UserError

_END = struct.Struct("<4s4xHHII")  # entries on this disk, entries, size, offset
_END_64_LOCATOR = struct.Struct("<4s4xQ")  # offset of the next
_END_64 = struct.Struct("<4s20xQQQQ")  # entries on this disk, entries, size, offset
# flags, method, CRC-32, stored size, size, lengths of name, extra and comment, header offset
_ENTRY = struct.Struct("<4s4xHH4xLLLHHH8xL")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # lengths of name and extra
_STORED, _DEFLATED = 0, 8


class ImageZip:
    """Image files of a zip archive by name; picklable, and then for use while the first one lives.

    Args:
        path: The archive.
        root: Names are relative to the last folder of this name in them, where there is one.

    Raises:
        UserError: If the archive is damaged.
    """

    def __init__(self, path: Path, root: str):
        self.path = path
        self._folder = tempfile.TemporaryDirectory(prefix="label2label-")
        self._database = os.path.join(self._folder.name, "index.sqlite")
        with path.open("rb") as archive:
            try:
                self._build(archive, root)
            except (struct.error, ValueError, UnicodeDecodeError) as error:
                raise UserError(f"{path} is no whole zip archive: get it again") from error

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_database": self._database}

    def _build(self, archive: BinaryIO, root: str) -> None:
        connection = sqlite3.connect(self._database)
        connection.execute(
            "CREATE TABLE files (name TEXT PRIMARY KEY, start, stored, size, method, checksum)"
            " WITHOUT ROWID"
        )
        rows = (
            (name.split(f"{root}/")[-1], *entry)
            for name, *entry in _read_directory(archive)
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        )
        connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
        connection.close()

    @cached_property
    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)

    @cached_property
    def _archive(self) -> BinaryIO:
        return self.path.open("rb")

    def __contains__(self, name: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM files WHERE name = ?", (name,))
        return found.fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        """Names of the files, sorted."""
        for (name,) in self._connection.execute("SELECT name FROM files ORDER BY name"):
            yield name

    def __len__(self) -> int:
        return self._connection.execute("SELECT COUNT(*) FROM files").fetchone()[0]

    def read(self, name: str) -> bytes:
        """Read one file.

        Args:
            name: One of the names.

        Returns:
            Its bytes.

        Raises:
            KeyError: If there is no such file.
            BadImageError: If its bytes are damaged or compressed in an unusual way.
        """
        columns = "start, stored, size, method, checksum"
        found = self._connection.execute(f"SELECT {columns} FROM files WHERE name = ?", (name,))
        entry = found.fetchone()
        if entry is None:
            raise KeyError(name)
        start, stored, size, method, checksum = entry
        self._archive.seek(start)
        try:
            _, name_length, extra_length = _LOCAL_HEADER.unpack(
                self._archive.read(_LOCAL_HEADER.size)
            )
            self._archive.seek(name_length + extra_length, os.SEEK_CUR)
            data = self._archive.read(stored)
            if method == _DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            elif method != _STORED:
                raise BadImageError(f"compression method {method} is not supported")
        except (struct.error, zlib.error) as error:
            raise BadImageError(f"damaged in the archive: {error}") from error
        if len(data) != size or zlib.crc32(data) != checksum:
            raise BadImageError("damaged in the archive: its checksum differs")
        return data


def _read_directory(archive: BinaryIO) -> Iterator[tuple[str, int, int, int, int, int]]:
    """Entries of the central directory: name, header's start, stored size, size, method, CRC-32."""
    entries, offset = _find_directory(archive)
    archive.seek(offset)
    for _ in range(entries):
        signature, flags, method, checksum, stored, size, *lengths, start = _ENTRY.unpack(
            archive.read(_ENTRY.size)
        )
        if signature != b"PK\1\2":
            raise ValueError("not a directory entry")
        name, extra, _ = (archive.read(length) for length in lengths)
        size, stored, start = _widen((size, stored, start), extra)
        yield (
            name.decode("utf-8" if flags & 0x800 else "cp437"),
            start,
            stored,
            size,
            method,
            checksum,
        )


def _find_directory(archive: BinaryIO) -> tuple[int, int]:
    """Number of entries and offset of the central directory."""
    length = archive.seek(0, os.SEEK_END)
    tail_start = max(0, length - _END.size - 2 - 0xFFFF)
    archive.seek(tail_start)
    tail = archive.read()
    position = tail.rfind(b"PK\5\6")
    if position < 0:
        raise ValueError("no end of directory")
    _, _, entries, _, offset = _END.unpack_from(tail, position)
    if entries == 0xFFFF or offset == 0xFFFFFFFF:
        archive.seek(tail_start + position - 20)
        signature, end_64 = _END_64_LOCATOR.unpack(archive.read(_END_64_LOCATOR.size))
        if signature == b"PK\6\7":
            archive.seek(end_64)
            _, _, entries, _, offset = _END_64.unpack(archive.read(_END_64.size))
    return entries, offset


def _widen(values: tuple[int, ...], extra: bytes) -> list[int]:
    """Replace the values that do not fit 32 bits by those of the Zip64 extra field."""
    wide = list(values)
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            field = iter(struct.unpack_from(f"<{length // 8}Q", extra, position + 4))
            wide = [next(field) if value == 0xFFFFFFFF else value for value in values]
        position += 4 + length
    return wide
