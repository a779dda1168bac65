"""The prepared datasets that a recipe trains on: which of their rows, and how often."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from huggingface_hub.dataclasses import strict

from label2label.data.batching import load_split
from label2label.errors import UserError


@strict
@dataclasses.dataclass(frozen=True)
class Source:
    """
    One entry of a recipe's `data`.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        where: Value, or list of values, that a column must have, by column: `{race: Asian}`.
        limit: Number of training rows at most, the same ones for the same seed, and those of a
            smaller limit among those of a larger; 0 for all. Validation keeps all its rows.
        share: Share of an epoch's images, 0..1, that are this source's; `None` for its part of what
            other sources leave, by number of rows.
        distillation: The teachers' share of its soft labels, 0..1, in place of the recipe's; 0
            shows it to no teacher.
    """

    path: str
    where: dict[str, Any] = dataclasses.field(default_factory=dict)
    limit: int = 0
    share: float | int | None = None
    distillation: float | int | None = None

    def __post_init__(self):
        for name in ("share", "distillation"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in 0..1, got {value}")
        if self.limit < 0:
            raise ValueError(f"limit must not be negative, got {self.limit}")

    @property
    def condition(self) -> str:
        """`where` in words."""
        return " and ".join(f"{column} = {value}" for column, value in self.where.items())


def read_sources(data: str | list[Any]) -> list[Source]:
    """
    Reads a recipe's `data`.

    Args:
        data: A path, or a list of paths and of mappings of `Source`'s fields.

    Returns:
        The sources, in order.

    Raises:
        ValueError: If an entry is neither, has an unknown key, or the list is empty.
    """
    entries = [data] if isinstance(data, str) else data
    if not entries:
        raise ValueError("data names no dataset")
    known = [field.name for field in dataclasses.fields(Source)]
    sources = []
    for entry in entries:
        values = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(values, dict) or "path" not in values:
            raise ValueError(f"data: each entry is a path or a mapping with a path, got {entry!r}")
        if unknown := sorted(set(map(str, values)) - set(known)):
            raise ValueError(f"data: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
        sources.append(Source(**values))
    return sources


def open_sources(
    sources: Sequence[Source], split: str, seed: int
) -> tuple[datasets.Dataset, np.ndarray]:
    """
    Opens one split of all sources, one after another.

    Args:
        sources: Where the rows are and which of them are wanted.
        split: `"train"`, `"validation"` or `"test"`.
        seed: Decides which rows a `limit` keeps.

    Returns:
        The rows, with null where a source has no such column, and the index of each row's source,
        (rows,).

    Raises:
        UserError: If a source cannot be read, has no row that meets its condition, or its columns
            are of other types than those of the source before.
    """
    parts = [_open(source, split, seed) for source in sources]
    source_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if len(parts) == 1:
        return parts[0], source_of
    try:
        return datasets.concatenate_datasets(parts), source_of
    except (ValueError, TypeError) as error:
        paths = ", ".join(source.path for source in sources)
        raise UserError(f"{paths}: their columns do not go together: {error}") from error


def _open(source: Source, split: str, seed: int) -> datasets.Dataset:
    dataset = load_split(source.path, split)
    keep = np.ones(len(dataset), bool)
    for column, wanted in source.where.items():
        values = column_values(dataset, column, source.path)
        allowed = wanted if isinstance(wanted, list) else [wanted]
        matches = np.array([value in allowed for value in values])
        if not matches.any():
            found = sorted({str(value) for value in values})[:8]
            raise UserError(
                f"{source.path}: no row of the {split} split has {column} = {wanted}; "
                f"it has {', '.join(found)}"
            )
        keep &= matches
    if not keep.any():
        raise UserError(f"{source.path}: no row of the {split} split has {source.condition}")
    rows = np.flatnonzero(keep)
    if source.limit and split == "train":
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[: source.limit])
    return dataset if len(rows) == len(dataset) else dataset.select(rows)


def column_values(dataset: datasets.Dataset, column: str, path: str) -> list[Any]:
    """
    Reads one column.

    Args:
        dataset: Holds it.
        column: Its name.
        path: What to call the dataset.

    Returns:
        One value a row, `None` where it is null.

    Raises:
        UserError: If there is no such column.
    """
    if column not in dataset.column_names or column == "image":
        raise UserError(f"{path}: no column {column!r}; it has {', '.join(dataset.column_names)}")
    return list(dataset.select_columns([column])[:][column])


def group_rows(
    dataset: datasets.Dataset, columns: Sequence[str], path: str
) -> tuple[list[str], np.ndarray]:
    """
    Names the groups of a dataset's rows.

    Args:
        dataset: The rows.
        columns: A group is one combination of their values.
        path: What to call the dataset.

    Returns:
        Names of the groups, `"Asian, Male"`, and the index of each row's, (rows,): -1 where one of
        the columns is null.

    Raises:
        UserError: If a column is missing or the rows are of fewer than two groups.
    """
    rows = zip(*(column_values(dataset, column, path) for column in columns), strict=True)
    names = [None if None in row else ", ".join(map(str, row)) for row in rows]
    groups = sorted({name for name in names if name is not None})
    if len(groups) < 2:
        found = f"only {groups[0]}" if groups else "nothing"
        raise UserError(f"{path}: {' and '.join(columns)} name {found}: there are no groups")
    index = {name: i for i, name in enumerate(groups)}
    return groups, np.array([-1 if name is None else index[name] for name in names])
