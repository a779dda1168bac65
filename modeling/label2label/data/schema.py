"""The dataset schema: columns of every Parquet file that the project writes or reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from label2label.data.vocabulary import Vocabulary, derive_row

if TYPE_CHECKING:
    from datasets import Features

SPLITS = ("train", "validation", "test")
"""Split names, in the order in which they are written and reported."""

GROUP_COLUMNS = ("race", "gender", "age")
"""Columns of groups for fairness; null if a source does not have them."""

GENDERS = {True: "Male", False: "Female"}
"""Value of the `gender` column for the attribute `Male`."""

YOUNG_BELOW = 40
"""Age in years below which a person is `Young`, in datasets with ages but no such label."""


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
    from datasets import Features, Image, Value

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
        vocabulary: Names the attribute columns; values that follow from others are derived.

    Returns:
        Values by column name, in the order of `dataset_features(vocabulary)`.
    """
    return {
        "image": {"bytes": image, "path": sample.key},
        **derive_row(sample.attributes, vocabulary),
        "identity": sample.identity,
        "source": sample.source,
        "race": sample.race,
        "gender": sample.gender,
        "age": sample.age,
    }
