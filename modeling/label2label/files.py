"""Files that are whole or not there, and what tells one from another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


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
