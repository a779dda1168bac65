"""Everything that an evaluation says about predictions, as one JSON-ready dictionary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.bootstrap import (
    LEVEL,
    bootstrap_intervals,
    clusters_of,
    paired_comparison,
)
from label2label.evaluation.groups import group_scores, intersection
from label2label.evaluation.metrics import (
    PER_ATTRIBUTE,
    FloatArray,
    IntArray,
    accuracy_per_attribute,
    majority_accuracy,
    mean_accuracy,
    overall_scores,
    reliability_curve,
)
from label2label.evaluation.stratification import post_stratified_scores, shared_age_bands

MINIMUM_AGE = 15
_OF_MINIMUM_AGE = (
    *("accuracy", "balanced_accuracy", "intervals", "num_images", "num_labels"),
    *("per_attribute", "groups", "age_adjusted"),
)


@dataclass
class Predictions:
    """What a model says about labelled images.

    Args:
        names: of the attributes, in the order of the arrays' columns.
        probabilities: (images, attributes), 0 to 1: the model's prediction (IC-MLM's `logits`).
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        query_probabilities: (images, attributes), the Attribute Query Network's (`query_logits`),
            or None for a model without one.
        identities: one person an image, None where unknown; or None where no image tells.
        groups: column name to one group an image, None where unknown.
        ages: in years, one an image, None where unknown; or None where no image tells.

    Raises:
        UserError: if these are not of the same images and attributes, or hold anything but
            probabilities and labels.
    """

    names: Sequence[str]
    probabilities: FloatArray
    labels: IntArray
    query_probabilities: FloatArray | None = None
    identities: Sequence[str | None] | None = None
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    ages: Sequence[int | None] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(self.names))
        for title, array in (
            ("labels", self.labels),
            ("predictions", self.probabilities),
            ("query predictions", self.query_probabilities),
        ):
            if array is not None and array.shape != shape:
                raise UserError(
                    f"{title} of shape {array.shape} do not belong to {shape[0]} images and "
                    f"{shape[1]} attributes"
                )
            # So written that NaN is refused too.
            if array is not None and title != "labels" and not ((array >= 0) & (array <= 1)).all():
                raise UserError(f"the {title} hold numbers that are no probabilities in 0..1")
        if not np.isin(self.labels, (0, 1, IGNORE_INDEX)).all():
            raise UserError(f"labels must be 1, 0, or {IGNORE_INDEX} where unknown")
        columns = {"identities": self.identities, "ages": self.ages, **self.groups}
        for title, column in columns.items():
            if column is not None and len(column) != shape[0]:
                raise UserError(f"{title}: {len(column)} values for {shape[0]} images")

    def select(self, images: Sequence[int]) -> "Predictions":
        """The same of some of the images.

        Args:
            images: their indices.

        Returns:
            Predictions of them alone.
        """

        def pick(column: Sequence[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in images]

        query = self.query_probabilities
        return Predictions(
            names=self.names,
            probabilities=self.probabilities[images],
            labels=self.labels[images],
            query_probabilities=None if query is None else query[images],
            identities=pick(self.identities),
            groups={name: [column[i] for i in images] for name, column in self.groups.items()},
            ages=pick(self.ages),
        )


def score_predictions(
    predictions: Predictions, resamples: int = 1000, minimum_age: int = MINIMUM_AGE
) -> dict[str, Any]:
    """Score predictions overall, per attribute and by group, with 95 % bootstrap intervals.

    Args:
        predictions: of one model on one split.
        resamples: of the bootstrap; people are resampled where known, else images.
        minimum_age: in years; where ages are known, the scores are also given for these alone.

    Returns:
        A dictionary for JSON, with None for every figure that is undefined:
        `accuracy` (over images and attributes), `balanced_accuracy`, `f1`, `average_precision`,
        `expected_calibration_error` (means over attributes), `query_accuracy` (the Attribute Query
        Network's alone), `over_queries` (what the masked language model adds to its accuracy, on
        the same images: as `paired_comparison`; None for a model without one),
        `majority_accuracy`, `intervals`, `bootstrap`, `num_images`, `num_labels`,
        `per_attribute`, `groups` (by column, and by all columns together where there are two or
        more), `age_adjusted` (groups as if all had the same ages), `reliability` and `minimum_age`
        (None where no image is known to be that old): the `years`, and for the images of these and
        more years the same scores, groups and age-adjusted groups.
    """
    result = _scores(predictions, resamples)
    result["minimum_age"] = None
    ages = predictions.ages or ()
    old_enough = [i for i, age in enumerate(ages) if age is not None and age >= minimum_age]
    if old_enough:
        # Without the curve and the Attribute Query Network: what groups are compared by is enough.
        older = _scores(predictions.select(old_enough), resamples)
        kept = {name: older[name] for name in _OF_MINIMUM_AGE}
        result["minimum_age"] = {"years": minimum_age, **kept}
    return jsonable(result)


def _scores(predictions: Predictions, resamples: int) -> dict[str, Any]:
    probabilities, labels = predictions.probabilities, predictions.labels
    identities = predictions.identities or [None] * len(labels)
    clusters = clusters_of(identities)
    intervals = _headline_intervals(predictions, clusters, resamples)
    attribute_intervals = intervals.pop("per_attribute")
    result: dict[str, Any] = {
        **overall_scores(probabilities, labels),
        "query_accuracy": None,
        "over_queries": None,
        "majority_accuracy": majority_accuracy(labels),
        "intervals": intervals,
        "bootstrap": {
            "level": LEVEL,
            "resamples": resamples,
            "unit": "image" if all(i is None for i in identities) else "identity",
            "num_units": int(clusters.max()) + 1,
        },
        "num_images": len(labels),
        "num_labels": int((labels != IGNORE_INDEX).sum()),
        "per_attribute": _per_attribute(predictions, attribute_intervals),
        "groups": _by_group(predictions, clusters, resamples),
        "age_adjusted": _age_adjusted(predictions, clusters, resamples),
        "reliability": reliability_curve(probabilities, labels),
    }
    if predictions.query_probabilities is not None:
        result["query_accuracy"] = mean_accuracy(predictions.query_probabilities, labels)
        result["over_queries"] = paired_comparison(
            probabilities, predictions.query_probabilities, labels, clusters, resamples
        )
    return result


def jsonable(value: Any) -> Any:
    """Turn numpy scalars and arrays into plain Python, and what is not finite into None.

    Args:
        value: a nesting of dictionaries, lists, numpy values and plain ones.

    Returns:
        The same nesting, ready for `json.dumps(..., allow_nan=False)`.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _headline_intervals(
    predictions: Predictions, clusters: IntArray, resamples: int
) -> dict[str, Any]:
    labels, query = predictions.labels, predictions.query_probabilities

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        scores = overall_scores(predictions.probabilities, labels, weights)
        if query is not None:
            scores["query_accuracy"] = mean_accuracy(query, labels, weights)
        per_attribute = accuracy_per_attribute(predictions.probabilities, labels, weights)
        return scores | {"per_attribute": per_attribute}

    intervals = bootstrap_intervals(statistics, clusters, resamples)
    return {name: np.clip(ends, 0, 1) for name, ends in intervals.items()}


def _per_attribute(predictions: Predictions, intervals: FloatArray) -> dict[str, Any]:
    probabilities, labels = predictions.probabilities, predictions.labels
    scores = {name: metric(probabilities, labels) for name, metric in PER_ATTRIBUTE.items()}
    if predictions.query_probabilities is not None:
        scores["query_accuracy"] = accuracy_per_attribute(predictions.query_probabilities, labels)
    return {
        name: {score: values[a] for score, values in scores.items()}
        | {
            "interval": intervals[:, a],
            "majority_accuracy": majority_accuracy(labels[:, [a]]),
            "num_labels": int((labels[:, a] != IGNORE_INDEX).sum()),
            "num_present": int((labels[:, a] == 1).sum()),
        }
        for a, name in enumerate(predictions.names)
    }


def with_intersection(groups: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """Group columns, and all of them crossed where there are two or more.

    Args:
        groups: column name to one group an image.

    Returns:
        The same, and "a x b" for columns a and b.
    """
    columns = dict(groups)
    if len(columns) > 1:
        columns[" x ".join(columns)] = intersection(list(columns.values()))
    return columns


def _by_group(predictions: Predictions, clusters: IntArray, resamples: int) -> dict[str, Any]:
    return {
        column: group_scores(
            predictions.probabilities,
            predictions.labels,
            groups,
            predictions.names,
            clusters,
            resamples,
        )
        for column, groups in with_intersection(predictions.groups).items()
    }


def _age_adjusted(predictions: Predictions, clusters: IntArray, resamples: int) -> dict[str, Any]:
    if predictions.ages is None:
        return {}
    adjusted = {}
    for column, groups in predictions.groups.items():
        if column == "age":
            continue
        bands = shared_age_bands(predictions.ages, groups)
        attributes = {
            name: post_stratified_scores(
                predictions.probabilities[:, [a]],
                predictions.labels[:, [a]],
                groups,
                bands,
                clusters,
                resamples,
            )
            for a, name in enumerate(predictions.names)
        }
        overall = post_stratified_scores(
            predictions.probabilities, predictions.labels, groups, bands, clusters, resamples
        )
        adjusted[column] = {
            "overall": overall,
            "per_attribute": {name: scores for name, scores in attributes.items() if scores},
        }
    return adjusted
