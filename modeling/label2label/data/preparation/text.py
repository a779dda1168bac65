"""Text files of annotations: one clear line where a file is missing or is something else."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from label2label.errors import UserError


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file, with or without a byte order mark.

    Args:
        path: The file.

    Yields:
        The open file, with its line ends as they are, as `csv` wants them.

    Raises:
        UserError: If the file is missing, or is found to be no text while it is read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a text file: {error}") from error
