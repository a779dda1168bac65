"""Hold a model's predictions of labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.intervals import clusters_of
from label2label.evaluation.metrics import FloatArray, IntArray

Column = Sequence[str | None]
"""One value an image; None where unknown."""


@dataclass
class Predictions:
    """Predictions of a model on labelled images.

    Args:
        names: Names of the attributes, in the order of the arrays' columns.
        probabilities: The model's prediction (IC-MLM's `logits`), (images, attributes), 0 to 1.
        labels: (images, attributes).
        query_probabilities: The Attribute Query Network's prediction (`query_logits`),
            (images, attributes), 0 to 1; None for a model without one.
        identities: One person per image, None where unknown; None if all are unknown.
        groups: One group per image, None where unknown, by column name.
        ages: In years, one per image, None where unknown; None if all are unknown.
        thresholds: Least probability at which an attribute counts as present, (attributes,); 0.5 by
            default.
        exclusive_answers: Groups of names of which at most one may be present.

    Attributes:
        clusters: Person on each image, numbered from 0, (images,), from `clusters_of`.

    Raises:
        UserError: If the arrays differ in images or attributes, a probability is outside 0..1, or a
            label is not 1, 0 or -100.
    """

    names: Sequence[str]
    probabilities: FloatArray
    labels: IntArray
    query_probabilities: FloatArray | None = None
    identities: Column | None = None
    groups: dict[str, Column] = field(default_factory=dict)
    ages: Sequence[int | None] | None = None
    thresholds: Sequence[float] | None = None
    exclusive_answers: Sequence[Sequence[str]] = ()
    clusters: IntArray = field(init=False)

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(self.names))
        for title, array in (
            ("labels", self.labels),
            ("predictions", self.probabilities),
            ("query predictions", self.query_probabilities),
        ):
            if array is not None and array.shape != shape:
                raise UserError(
                    f"{title} of shape {array.shape} do not match {shape[0]} images and "
                    f"{shape[1]} attributes"
                )
            # Not `(array < 0) | (array > 1)`, which is false for NaN.
            if array is not None and title != "labels" and not ((array >= 0) & (array <= 1)).all():
                raise UserError(
                    f"the {title} hold values that are not probabilities in 0..1: are the model's "
                    "weights damaged?"
                )
        if not np.isin(self.labels, (0, 1, IGNORE_INDEX)).all():
            raise UserError(f"labels must be 1, 0, or {IGNORE_INDEX} where unknown")
        columns = {"identities": self.identities, "ages": self.ages, **self.groups}
        for title, column in columns.items():
            if column is not None and len(column) != shape[0]:
                raise UserError(f"{title}: {len(column)} values for {shape[0]} images")
        self.clusters = clusters_of(self.identities or [None] * shape[0])

    def select(self, chosen: np.ndarray) -> "Predictions":
        """Select images by a mask, bool, (images,)."""

        def pick(column: Any) -> Any:
            if column is None or isinstance(column, np.ndarray):
                return None if column is None else column[chosen]
            return [value for value, keep in zip(column, chosen, strict=True) if keep]

        columns = ("probabilities", "labels", "query_probabilities", "identities", "ages")
        selected = replace(
            self,
            **{name: pick(getattr(self, name)) for name in columns},
            groups={name: pick(column) for name, column in self.groups.items()},
        )
        # Numbered in the same order, so that a group's resamples do not depend on the selection.
        selected.clusters = np.unique(self.clusters[chosen], return_inverse=True)[1]
        return selected

    def only(self, names: Sequence[str]) -> "Predictions":
        """Select attributes by name."""
        columns = [list(self.names).index(name) for name in names]
        query = self.query_probabilities
        return replace(
            self,
            names=names,
            probabilities=self.probabilities[:, columns],
            labels=self.labels[:, columns],
            query_probabilities=None if query is None else query[:, columns],
            thresholds=self.thresholds and [self.thresholds[c] for c in columns],
        )
