"""The dataset schema: columns of every Parquet file that these programs write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Features, Image, Value
from label2label.data.vocabulary import Vocabulary

SPLITS = ("train", "validation", "test")
"""Split names, in the order in which they are written and reported."""

GROUP_COLUMNS = ("race", "gender", "age")
"""Columns of groups for fairness; null if a source does not have them."""

GENDERS = {True: "Male", False: "Female"}
"""Value of the `gender` column for the attribute `Male`."""


@dataclass(frozen=True)
class Sample:
    """One row of a dataset before its image is read.

    Args:
        key: Name of the image within its source; it becomes the path of the `image` column.
        split: One of `SPLITS`.
        attributes: Values by attribute name; a name that is missing is unknown (null).
        identity: The person, if known; no person is in two splits.
        source: Short name of the dataset that the image comes from.
        race: Group name, if known.
        gender: A value of `GENDERS`, if known.
        age: Age in years, if known.
    """

    key: str
    split: str
    attributes: Mapping[str, bool | None] = field(default_factory=dict)
    identity: str | None = None
    source: str = ""
    race: str | None = None
    gender: str | None = None
    age: int | None = None


def dataset_features(vocabulary: Vocabulary) -> Features:
    """Return the columns of a dataset with a vocabulary's attributes.

    Args:
        vocabulary: Names the attribute columns.

    Returns:
        `image`, one nullable bool column per attribute, `identity`, `source`, `race`, `gender`
        (strings) and `age` (int32), all nullable.
    """
    return Features(
        {
            "image": Image(),
            **{attribute: Value("bool") for attribute in vocabulary.attributes},
            "identity": Value("string"),
            "source": Value("string"),
            "race": Value("string"),
            "gender": Value("string"),
            "age": Value("int32"),
        }
    )


def sample_to_row(sample: Sample, image: bytes, vocabulary: Vocabulary) -> dict[str, Any]:
    """Put a sample and its encoded image into the columns of the schema.

    Args:
        sample: The row.
        image: Its encoded image (JPEG or PNG bytes).
        vocabulary: Names the attribute columns; an unknown attribute is derived from its opposite.

    Returns:
        Values by column name, in the order of `dataset_features(vocabulary)`.
    """
    row: dict[str, Any] = {"image": {"bytes": image, "path": sample.key}}
    for name in vocabulary.attributes:
        row[name] = sample.attributes.get(name)
        opposite = sample.attributes.get(vocabulary.opposites.get(name, ""))
        if row[name] is None and opposite is not None:
            row[name] = not opposite
    columns = ("identity", "source", "race", "gender", "age")
    return row | {column: getattr(sample, column) for column in columns}
