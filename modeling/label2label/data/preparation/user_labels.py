"""Labels that a user adds to a dataset in a CSV file, by person or by image."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from label2label.data.preparation.text import open_text
from label2label.data.schema import GENDERS
from label2label.data.vocabulary import Vocabulary
from label2label.errors import UserError


def read_labels(path: Path | None, vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """Read the user's labels.

    Args:
        path: A CSV file, or None. Its first column, `id` or `image`, names the person or image; the
            others are attributes (1, 0, or nothing for unknown), `gender` and `age`.
        vocabulary: The attributes that there may be, or their opposites.

    Returns:
        Known labels, `gender` and `age`, by person or image.

    Raises:
        UserError: If a column or a value is not one of those, or a person or image is there twice.
    """
    if path is None:
        return {}
    opposites = {vocabulary.opposites.get(name, name) for name in vocabulary.attributes}
    known = {*vocabulary.attributes, *opposites, "gender", "age"}
    labels: dict[str, dict[str, Any]] = {}
    with open_text(path) as file:
        lines = csv.DictReader(file)
        key, *columns = lines.fieldnames or [""]
        if key not in ("id", "image") or not set(columns) <= known:
            raise UserError(
                f"{path}, line 1: the first column must be id or image, the others gender, age or "
                f"attributes among {', '.join(vocabulary.attributes)}"
            )
        for line in lines:
            where = f"{path}, line {lines.line_num}"
            if line[key] in labels:
                raise UserError(f"{where}: {line[key]} is there twice")
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
