"""Write files atomically, hash them, and manage lock files and temporary folders."""

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
DRAFT_SUFFIX = ".part"  # of a file or folder that is not complete; its name begins with a dot


def write_whole(path: Path, text: str) -> None:
    """Write a text file as `replace_file` does, and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write, then put it in place of `path`.

    An earlier file stays if the block raises.
    """
    draft = path.with_name(f".{path.name}{DRAFT_SUFFIX}")
    try:
        yield draft
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())  # else a crash of the machine could leave it incomplete
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary folder to create, then put it in place of `path`.

    An earlier folder stays if the block raises.
    """
    draft = path.with_name(f".{path.name}{DRAFT_SUFFIX}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        yield draft
        shutil.rmtree(path, ignore_errors=True)
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def prepare_output(path: Path) -> None:
    """Create the folders of an output file, so that a bad path fails before long work."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{path} cannot be written: {error.filename} is not a folder") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def hold_lock(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file, which the system releases when the process ends or is killed.

    Raises:
        UserError: Another process holds the lock; `message` is its text.
    """
    with open(path, "a") as file:
        if not _lock(file):
            raise UserError(message)
        yield


@contextmanager
def temporary_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Create a temporary folder, in `parent` or the system's, and remove it at the end.

    The folder of a killed process is removed by the next `remove_leftovers`.
    """
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}{purpose}-", dir=parent) as folder:
        path = Path(folder)
        with open(path / f"{TEMPORARY_LOCK}.new", "w") as file:
            _lock(file)
            os.replace(file.name, path / TEMPORARY_LOCK)  # never visible to others unlocked
            yield path


def remove_leftovers(parent: Path | None = None) -> None:
    """Remove the temporary folders of killed processes; `parent` as in `temporary_folder`."""
    for path in Path(parent or tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*/{TEMPORARY_LOCK}"):
        try:
            with open(path, "r+") as file:  # no permission if it is another user's
                if _lock(file):
                    shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:
            continue


def _lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed; return False if another process holds it."""
    if fcntl is None:  # on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
