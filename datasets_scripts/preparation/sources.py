"""Read images and text files from folders, zips, tars and nested archives."""

from __future__ import annotations

import csv
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from label2label.errors import UserError, join_lines

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_IMAGE_BYTES = 200 * 10**6

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, RuntimeError)

Member = tuple[zipfile.ZipFile | None, str]
"""A file: its path, or the archive that holds it and its name there."""


class BadImageError(Exception):
    """Image that cannot be used; it is skipped, counted, and listed with the message."""


class Images:
    """Images of a dataset by name, read one at a time from any thread.

    `where` is the path of the dataset, for messages.
    """

    def __init__(self, members: dict[str, Member], where: Path):
        self.members = members
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.members))

    def __len__(self) -> int:
        return len(self.members)

    def read(self, name: str) -> bytes:
        """Read one file; raise `BadImageError` if it is unreadable or over `MAX_IMAGE_BYTES`."""
        archive, path = self.members[name]
        try:
            size = archive.getinfo(path).file_size if archive else os.stat(path).st_size
            if size > MAX_IMAGE_BYTES:
                raise BadImageError(f"{size:,} bytes exceed the limit of {MAX_IMAGE_BYTES:,}")
            return archive.read(path) if archive else Path(path).read_bytes()
        except BadImageError:
            raise
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror or join_lines(error)}") from error
        except Exception as error:  # zipfile and zlib raise many types for damage and encryption
            raise BadImageError(f"damaged in the archive: {join_lines(error)}") from error


class Download:
    """A dataset as downloaded: a folder of folders and archives, or a single archive.

    Tars and nested archives have no random access: they are copied to unnamed temporary files,
    which are deleted when the process ends. Symbolic links to folders are not followed.
    """

    def __init__(self, source: Path):
        if not source.exists():
            raise UserError(f"{source} does not exist: give the dataset's folder as --source")
        self.source = source
        self._opened: dict[tuple[int, str], zipfile.ZipFile] = {}

    def images(self, *roots: str | tuple[str, ...], depth: int = 1) -> Images:
        """Find the images in the first of some roots that exists, otherwise in the source itself.

        A root is a folder's or an archive's name (without suffix), or a tuple of several that are
        read together. An image's name consists of the last `depth` parts of its path.
        """
        groups = [(root,) if isinstance(root, str) else root for root in roots]
        for open_all in (False, True):
            for group in groups:
                members: dict[str, Member] = {}
                for parts, member in self._walk(group, open_all):
                    if parts[-1].lower().endswith(IMAGE_SUFFIXES) and set(parts[:-1]) & set(group):
                        members.setdefault("/".join(parts[-depth:]), member)
                if members:
                    return Images(members, self.source)
        members = {
            "/".join(parts[1:]): member
            for parts, member in self._walk((), False)
            if len(parts) == depth + 1 and parts[-1].lower().endswith(IMAGE_SUFFIXES)
        }
        if not members:
            wanted = " or ".join(f"{name}/ or {name}.zip" for group in groups for name in group)
            raise UserError(f"{self.source} does not hold {wanted}: is --source right?")
        return Images(members, self.source)

    def find_text(self, *names: str) -> tuple[Member, str] | None:
        """Find a text file; look into archives only if it is nowhere else."""
        for open_all in (False, True):
            found = {
                parts[-1]: (member, str(Path(self.source, *parts[1:])))
                for parts, member in self._walk((), open_all)
                if parts[-1] in names
            }
            for name in names:
                if name in found:
                    return found[name]
        return None

    def lines(self, *names: str) -> Iterator[tuple[str, str]]:
        """Read the first of these text files that exists, one line at a time.

        It yields `FILE, line N` for messages, and the line. Blank lines are left out.
        """
        found = self.find_text(*names)
        if found is None:
            raise UserError(f"{self.source} does not hold {' or '.join(names)}")
        (archive, path), where = found
        number = 0
        try:
            with archive.open(path) if archive else open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    if text:
                        yield f"{where}, line {number}", text
        except UnicodeDecodeError as error:
            raise UserError(f"{where}, line {number}: save it as UTF-8 text") from error

    def rows(self, *names: str, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Read a CSV file like `lines`; yield each row as values by column."""
        header: list[str] = []
        for where, line in self.lines(*names):
            values = next(csv.reader([line]))
            if not header:
                header = [name.strip() for name in values]
                missing = sorted(set(columns) - set(header))
                if missing:
                    raise UserError(f"{where}: no column {', '.join(missing)}")
            elif len(values) != len(header):
                raise UserError(f"{where}: {len(values)} values for {len(header)} columns")
            else:
                yield where, dict(zip(header, values, strict=True))

    def _walk(
        self, names: tuple[str, ...], open_all: bool
    ) -> Iterator[tuple[tuple[str, ...], Member]]:
        """Yield path and location of each file; open archives with these names, or all."""
        top = self.source.resolve()
        if top.is_file():
            if _archive_stem(top.name) is None:
                yield (top.name,), (None, str(top))
            else:
                yield from self._open(top.name, (None, str(top)), ())
            return
        for folder, folders, files in os.walk(top):
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            parts = (top.name, *Path(folder).relative_to(top).parts)
            for file in sorted(files):
                path = os.path.join(folder, file)
                if _is_hidden(file) or not os.path.isfile(path):
                    continue  # reading a named pipe would block
                stem = _archive_stem(file)
                if stem is None:
                    yield (*parts, file), (None, path)
                elif open_all or stem in names:
                    yield from self._open(file, (None, path), parts)

    def _open(
        self, name: str, member: Member, parts: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], Member]]:
        archive = self._archive(name, member)
        parts = (*parts, _archive_stem(name) or name)
        for inner in archive.namelist():
            inner_parts = inner.replace("\\", "/").split("/")
            if inner.endswith("/") or any(map(_is_hidden, inner_parts)):
                continue
            if _archive_stem(inner):
                inner_folder = (*parts, *inner_parts[:-1])
                yield from self._open(inner_parts[-1], (archive, inner), inner_folder)
            else:
                yield (*parts, *inner_parts), (archive, inner)

    def _archive(self, name: str, member: Member) -> zipfile.ZipFile:
        outer, path = member
        key = (id(outer), path)
        if key not in self._opened:
            try:
                if name.lower().endswith(".zip") and outer is None:
                    self._opened[key] = zipfile.ZipFile(path)
                else:
                    with outer.open(path) if outer else open(path, "rb") as file:
                        self._opened[key] = _copy_archive(name, file)
            except _DAMAGE as error:
                where = self.source if outer is None else f"{path} in {self.source}"
                raise UserError(
                    f"{where}: {name} is not a complete archive: download it again"
                ) from error
        return self._opened[key]


def _copy_archive(name: str, file: IO[bytes]) -> zipfile.ZipFile:
    copy = tempfile.TemporaryFile(prefix="label2label-")  # noqa: SIM115, the archive keeps it
    if name.lower().endswith(".zip"):
        shutil.copyfileobj(file, copy)
        return zipfile.ZipFile(copy)
    with tarfile.open(fileobj=file, mode="r|*") as tar, zipfile.ZipFile(copy, "w") as archive:
        for entry in tar:
            if entry.isfile():
                content = tar.extractfile(entry)
                assert content is not None
                with archive.open(zipfile.ZipInfo(entry.name), "w", force_zip64=True) as target:
                    shutil.copyfileobj(content, target)
    return zipfile.ZipFile(copy)


def _archive_stem(name: str) -> str | None:
    """Return the name of an archive without its suffix, or None for other files."""
    found = re.fullmatch(r"(.*/)?(?P<stem>.*?)\.(zip|tar|tar\.gz|tgz)", name, re.I | re.S)
    return found and found["stem"]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
