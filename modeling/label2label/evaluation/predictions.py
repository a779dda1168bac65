"""Hold a model's predictions of labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from label2label.errors import UserError
from label2label.evaluation.intervals import clusters_of
from label2label.evaluation.metrics import FloatArray, IntArray

Column = Sequence[str | None]
"""One value per image; None where unknown."""


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
        UserError: If a probability is outside 0..1.
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
        for values in (self.probabilities, self.query_probabilities):
            # Not `(values < 0) | (values > 1)`, which is false for NaN.
            if values is not None and not ((values >= 0) & (values <= 1)).all():
                raise UserError(
                    "the predictions hold values that are not probabilities in 0..1: are the "
                    "model's weights damaged?"
                )
        self.clusters = clusters_of(self.identities or [None] * len(self.labels))

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
