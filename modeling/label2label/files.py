"""Files that are whole or not there, and what tells one from another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from label2label.errors import UserError


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
