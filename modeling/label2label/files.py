"""Files that are whole or not there, and what tells one from another."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from label2label.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX, TEMPORARY_LOCK = "label2label-", ".lock"


def write_whole(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it; its folders are made.

    Args:
        path: where to write; an existing file is replaced.
        text: its content, which becomes UTF-8.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def prepare_output(path: Path) -> None:
    """Make the folders of a file that long work is to end in.

    Args:
        path: where it will be written.

    Raises:
        UserError: it is a folder, or could not be written.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: --output takes the file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{path} cannot be written: {error.filename} is no folder") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission")


def sha256(path: Path) -> str:
    """SHA-256 of a file's content.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def hold_lock(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file, so that no other process does the same work; a killed one releases it.

    Args:
        path: of the lock file, which is made where it does not exist, and stays.
        message: what to say where another process holds it.

    Raises:
        UserError: another process holds it.
    """
    with open(path, "a") as file:
        if not _lock(file):
            raise UserError(message)
        yield


@contextmanager
def temporary_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for temporary files, which is removed at the end.

    What a killed process left is removed by the next `remove_leftovers`.

    Args:
        purpose: part of its name.
        parent: where it is made; by default the system's place for temporary files.

    Yields:
        The folder.
    """
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}{purpose}-", dir=parent) as folder:
        path = Path(folder)
        with open(path / f"{TEMPORARY_LOCK}.new", "w") as file:
            _lock(file)
            os.replace(file.name, path / TEMPORARY_LOCK)  # locked before anyone looks for it
            yield path


def remove_leftovers(parent: Path | None = None) -> None:
    """Remove the temporary folders of processes that were killed.

    Args:
        parent: where to look; by default the system's place for temporary files.
    """
    for path in Path(parent or tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*/{TEMPORARY_LOCK}"):
        try:
            with open(path, "r+") as file:  # of another user: no permission
                if _lock(file):
                    shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:
            continue


def _lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed; False where another process holds it."""
    if fcntl is None:  # on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
