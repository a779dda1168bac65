"""Labels that a user adds to a dataset in a CSV file, by person or by image."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from label2label.data.preparation.text import open_text
from label2label.data.schema import GENDERS
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError


def read_labels(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read the user's labels.

    Args:
        path: The CSV file, or None.

    Returns:
        Known labels, `gender` and `age`, by person or image.

    Raises:
        UserError: If a column or a value is not one of those described above.
    """
    if path is None:
        return {}
    known = {*get_vocabulary("union").attributes, "gender", "age"}
    labels: dict[str, dict[str, Any]] = {}
    with open_text(path) as file:
        lines = csv.DictReader(file)
        key, *columns = lines.fieldnames or [""]
        if key not in ("id", "image") or not set(columns) <= known:
            raise UserError(
                f"{path}, line 1: the first column must be id or image, the others attributes, "
                "gender or age"
            )
        for line in lines:
            where = f"{path}, line {lines.line_num}"
            labels[line[key]] = {
                column: read_value(column, line[column].strip(), where)
                for column in columns
                if line[column] and line[column].strip()
            }
    return labels


def read_value(column: str, text: str, where: str) -> bool | str | int:
    """Read one value of the user's labels.

    Args:
        column: Its column.
        text: The value.
        where: File and line, for the error message.

    Returns:
        A bool for an attribute, an int for `age`, a value of `GENDERS` for `gender`.

    Raises:
        UserError: If the value is out of range.
    """
    if column == "age" and text.isdecimal():
        return int(text)
    if column == "gender" and text in GENDERS.values():
        return text
    if column not in ("age", "gender") and text in ("0", "1"):
        return text == "1"
    raise UserError(f"{where}: {text!r} is no value of {column}")
