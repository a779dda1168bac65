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
    """One row of a dataset before its image is read."""

    key: str  # name of the image within its source, the path of the `image` column
    split: str  # one of `SPLITS`
    attributes: Mapping[str, bool | None] = field(default_factory=dict)  # unknown if missing
    identity: str | None = None  # the person; no person is in two splits
    source: str = ""  # short name of the dataset that the image comes from
    race: str | None = None
    gender: str | None = None  # a value of `GENDERS`
    age: int | None = None  # in years


def dataset_features(vocabulary: Vocabulary) -> Features:
    """Return the columns of a dataset with a vocabulary's attributes, all nullable."""
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
    """Put a sample and its encoded image (JPEG or PNG) into the columns of `dataset_features`.

    Attributes that follow from others are derived.
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
