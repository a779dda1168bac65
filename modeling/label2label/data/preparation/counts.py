"""Count the rows of a dataset by source, split, column and value."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from label2label.data.schema import GROUP_COLUMNS

Counts = Counter[tuple[str, str, str, str]]
"""Rows by (source, split, column, value). The column `image` counts all rows, by variant: the part
of the image's path after `#`, empty for an image as its source has it. An attribute's values are
`true`, `false` and `null`; ages are counted by decade."""


def count_row(counts: Counts, split: str, row: Mapping[str, Any]) -> None:
    """Add one row to the counts.

    Args:
        counts: Changed in place.
        split: The row's split.
        row: Values by column name, as `schema.sample_to_row` gives them.
    """
    source = row["source"]
    for column, value in row.items():
        if column == "image":
            value = value["path"].partition("#")[2]
        elif column == "age" and value is not None:
            value = f"{value // 10 * 10:02d}-{value // 10 * 10 + 9:02d}"
        elif column in ("identity", "source"):
            continue
        counts[source, split, column, _text(value)] += 1


def _text(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def counts_to_json(counts: Counts) -> list[list[Any]]:
    """Turn counts into what JSON can hold.

    Args:
        counts: Rows by source, split, column and value.

    Returns:
        `[source, split, column, value, rows]` lists, in the order in which they were first counted.
    """
    return [[*key, number] for key, number in counts.items()]


def counts_from_json(entries: Iterable[list[Any]]) -> Counts:
    """Undo `counts_to_json`.

    Args:
        entries: What it returned.

    Returns:
        The counts.
    """
    return Counter({(entry[0], entry[1], entry[2], entry[3]): entry[4] for entry in entries})


def write_counts(path: Path, counts: Counts) -> None:
    """Write counts as a CSV file: the report of a dataset by source, split, column and value.

    Args:
        path: The file.
        counts: Rows by source, split, column and value.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "split", "column", "value", "rows"])
        writer.writerows(counts_to_json(counts))


def rows_per_split(counts: Counts) -> dict[str, int]:
    """Rows of each split that has any.

    Args:
        counts: Rows by source, split, column and value.

    Returns:
        Number of rows by split name.
    """
    rows: Counter[str] = Counter()
    for (_, split, column, _), number in counts.items():
        if column == "image":
            rows[split] += number
    return dict(rows)


def rows_per_source(counts: Counts) -> dict[tuple[str, str], int]:
    """Rows of each source and split.

    Args:
        counts: Rows by source, split, column and value.

    Returns:
        Number of rows by (source, split).
    """
    rows: Counter[tuple[str, str]] = Counter()
    for (source, split, column, _), number in counts.items():
        if column == "image":
            rows[source, split] += number
    return dict(rows)


def rows_per_variant(counts: Counts) -> dict[str, int]:
    """Rows of each variant of images.

    Args:
        counts: Rows by source, split, column and value.

    Returns:
        Number of rows by variant, `""` for images as their source has them.
    """
    rows: Counter[str] = Counter()
    for (_, _, column, variant), number in counts.items():
        if column == "image":
            rows[variant] += number
    return dict(rows)


def rows_per_value(counts: Counts) -> dict[str, dict[str, int]]:
    """Rows of each value of each column, over all sources and splits.

    Args:
        counts: Rows by source, split, column and value.

    Returns:
        Number of rows by column and value, attributes first, then the group columns.
    """
    values: dict[str, dict[str, int]] = {}
    for (_, _, column, value), number in counts.items():
        if column != "image":
            column_values = values.setdefault(column, {})
            column_values[value] = column_values.get(value, 0) + number
    for column in GROUP_COLUMNS:
        if column in values:
            # Shorter first puts the ages of a hundred and more after the others.
            by_value = (lambda item: (len(item[0]), item)) if column == "age" else None
            values[column] = dict(sorted(values[column].items(), key=by_value))
    return values
