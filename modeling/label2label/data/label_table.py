"""Read images, labels and groups from a user's table, a CSV or Parquet file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from label2label.data.vocabulary import VOCABULARIES
from label2label.errors import UserError, join_lines

SUFFIXES = (".csv", ".tsv", ".parquet")
_UNKNOWN = ("", "-100", "-100.0", "nan", "na", "n/a", "null", "none")
_LABELS: dict[str, bool | None] = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
    **dict.fromkeys(("0", "0.0", "-1", "-1.0", "false", "no"), False),
    **dict.fromkeys(_UNKNOWN, None),
}


def read_label_table(
    path: Path, attributes: Sequence[str], group_columns: Sequence[str]
) -> datasets.Dataset:
    """Read a table of images, labels and groups.

    Args:
        path: CSV (commas, semicolons or tabs; UTF-8 or UTF-16) or Parquet. The column `image` has
            paths relative to the table's folder, or in Parquet images as `datasets` encodes them.
            A column with an attribute's name has its labels: 1, true or yes; 0, -1, false or no;
            empty if unknown. The optional `identity` and `age` are a person and years. Any other
            column counts as an attribute that the model does not predict if it has a known
            attribute's name or only label values.
        attributes: The model's attributes; columns named after their opposites are read too.
        group_columns: Columns to read as groups.

    Returns:
        The table in the dataset schema, with images not yet decoded.

    Raises:
        UserError: The file cannot be read, has no rows or lacks a column, or a value is not a
            label, an age or an existing image (the message names column and row).
    """
    columns = _read_columns(path)
    for name in ("image", *group_columns):
        if name not in columns:
            raise UserError(f"{path} has no column {name!r}: it has {', '.join(columns)}")
    if "image" in group_columns:
        raise UserError("'image' cannot be a group column: every image would be its own group")
    if not columns["image"]:
        raise UserError(f"{path} has no rows")
    opposites = VOCABULARIES["union"].opposites
    known = {*attributes, *(opposites[name] for name in attributes if name in opposites)}
    if not known & columns.keys():
        raise UserError(
            f"{path} has no labels: its columns are {', '.join(columns)}, and the model's "
            f"attributes {', '.join(attributes)}"
        )
    table: dict[str, list[Any]] = {}
    kinds: dict[str, Any] = {}
    for name, values in columns.items():
        if name == "image":
            table[name], kinds[name] = _images(values, path.parent), datasets.Image(decode=False)
        elif name == "age":
            table[name], kinds[name] = _ages(values), datasets.Value("int32")
        elif name in known:
            table[name], kinds[name] = _labels(name, values), datasets.Value("bool")
        elif name == "identity" or name in group_columns:
            table[name], kinds[name] = _texts(values), datasets.Value("string")
        elif name and _holds_labels(name, values):
            table[name] = [_LABELS.get(_text(value)) for value in values]
            kinds[name] = datasets.Value("bool")
    return datasets.Dataset.from_dict(table, features=datasets.Features(kinds))


def _read_columns(path: Path) -> dict[str, list[Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path).to_pydict()
        if path.suffix.lower() in (".csv", ".tsv"):
            return _read_csv(path, _decode(path))
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {join_lines(error)}") from error
    raise UserError(f"{path}: a table must be one of {', '.join(SUFFIXES)}")


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: in Excel, save it as 'CSV UTF-8'; convert a file in cp949 with "
            "`iconv -f cp949 -t utf-8`"
        ) from error
    if "\0" in text:
        raise UserError(
            f"{path} is not text in UTF-8, or in UTF-16 with a byte order mark: save it as UTF-8"
        )
    return text


def _read_csv(path: Path, text: str) -> dict[str, list[Any]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # a single column counts as commas
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    if len(set(header)) < len(header):
        raise UserError(f"{path}: two columns have the same name")
    rows = []
    for row in reader:
        if not any(value.strip() for value in row):
            continue  # spreadsheets write empty rows
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {reader.line_num}: {len(row)} values for {len(header)} columns"
            )
        rows.append(row)
    return {name: [row[c] for row in rows] for c, name in enumerate(header)}


def _images(values: Iterable[Any], folder: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = []
    missing = []
    for row, value in enumerate(values, start=1):
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value:
            raise UserError(f"column 'image', row {row}: it is empty")
        if not isinstance(value, bytes | str):
            raise UserError(
                f"column 'image', row {row}: {str(value)[:40]} is neither a path nor an image"
            )
        if isinstance(value, bytes):
            images.append({"bytes": value, "path": None})
            continue
        image = folder / value
        if "\\" in value and not os.path.isfile(image):
            image = folder / value.replace("\\", "/")
        if not os.path.isfile(image):  # false for invalid paths too, never raises
            missing.append(f"{image} (row {row})")
        images.append({"bytes": None, "path": str(image)})
    if missing:
        raise UserError(
            f"{len(missing):,} of {len(images):,} images do not exist, the first is {missing[0]}; "
            "paths are relative to the table's folder"
        )
    return images


def _holds_labels(name: str, values: Sequence[Any]) -> bool:
    """Return whether a column that the model does not predict has labels."""
    texts = set(map(_text, values))
    is_attribute = name in VOCABULARIES["union"].attributes
    readable = is_attribute or texts <= _LABELS.keys()
    return readable and any(_LABELS.get(text) is not None for text in texts)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip().lower()


def _labels(name: str, values: Sequence[Any]) -> list[bool | None]:
    texts = list(map(_text, values))
    if {"0", "-1"} <= {text.removesuffix(".0") for text in texts}:
        raise UserError(
            f"column {name!r} holds both 0 and -1: leave a cell empty where the label is unknown"
        )
    for row, text in enumerate(texts, start=1):
        if text not in _LABELS:
            raise UserError(
                f"column {name!r}, row {row}: {text[:40]!r} is not a label; it must be 1 or 0, or "
                "empty where unknown"
            )
    return [_LABELS[text] for text in texts]


def _ages(values: Iterable[Any]) -> list[int | None]:
    ages: list[int | None] = []
    for row, text in enumerate(map(_text, values), start=1):
        try:
            ages.append(None if text in _UNKNOWN else int(np.int32(float(text))))
        except (ValueError, OverflowError) as error:
            raise UserError(f"column 'age', row {row}: {text[:40]!r} is not an age") from error
    return ages


def _texts(values: Iterable[Any]) -> list[str | None]:
    texts = ("" if value is None else str(value).strip() for value in values)
    return [None if text.lower() in ("", "nan", "null", "none") else text for text in texts]
