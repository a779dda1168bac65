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
    """Predictions of a model on labelled images; raise UserError for values outside 0..1."""

    names: Sequence[str]  # of the attributes, in the order of the arrays' columns
    probabilities: FloatArray  # of IC-MLM's `logits`
    labels: IntArray
    query_probabilities: FloatArray | None = None  # of `query_logits`, if the model has them
    identities: Column | None = None  # people; None if all are unknown
    groups: dict[str, Column] = field(default_factory=dict)  # by name of the column
    ages: Sequence[int | None] | None = None  # in years; None if all are unknown
    thresholds: Sequence[float] | None = None  # of probabilities, per attribute; 0.5 by default
    exclusive_answers: Sequence[Sequence[str]] = ()  # at most one name of each may be present
    clusters: IntArray = field(init=False)  # from `clusters_of`

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
