"""Score and compare predictions; return dictionaries that are ready for JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.groups import (
    MINIMUM_IMAGES,
    accuracy_by_cell,
    extremes,
    group_scores,
    images_by_cell,
    in_order,
    members,
    shared_age_bands,
    standardised_scores,
    with_intersection,
)
from label2label.evaluation.intervals import (
    LEVEL,
    Statistics,
    bootstrap_intervals,
    clusters_of,
    compare_paired,
    paired_comparison,
)
from label2label.evaluation.metrics import (
    PER_ATTRIBUTE,
    THRESHOLD,
    FloatArray,
    IntArray,
    accuracy_per_attribute,
    contradictory,
    majority_accuracy,
    mean_accuracy,
    overall_scores,
    reliability_curve,
)
from label2label.models.exclusive_answers import decide_answers

MINIMUM_AGE = 15
_OF_MINIMUM_AGE = (
    *("accuracy", "balanced_accuracy", "intervals", "num_images", "num_labels"),
    *("per_attribute", "groups", "age_adjusted"),
)


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

    Raises:
        UserError: If the arrays differ in images or attributes, a probability is outside 0..1, or a
            label is not 1, 0 or -100.
    """

    names: Sequence[str]
    probabilities: FloatArray
    labels: IntArray
    query_probabilities: FloatArray | None = None
    identities: Sequence[str | None] | None = None
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    ages: Sequence[int | None] | None = None
    thresholds: Sequence[float] | None = None
    exclusive_answers: Sequence[Sequence[str]] = ()

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
            # Not `(array < 0) | (array > 1)`, which is false for NaN.
            if array is not None and title != "labels" and not ((array >= 0) & (array <= 1)).all():
                raise UserError(
                    f"the {title} hold numbers that are no probabilities in 0..1: are the model's "
                    "weights damaged?"
                )
        if not np.isin(self.labels, (0, 1, IGNORE_INDEX)).all():
            raise UserError(f"labels must be 1, 0, or {IGNORE_INDEX} where unknown")
        columns = {"identities": self.identities, "ages": self.ages, **self.groups}
        for title, column in columns.items():
            if column is not None and len(column) != shape[0]:
                raise UserError(f"{title}: {len(column)} values for {shape[0]} images")

    @property
    def clusters(self) -> IntArray:
        """Return the person on each image, numbered by `clusters_of`: (images,)."""
        return clusters_of(self.identities or [None] * len(self.labels))

    def select(self, images: Sequence[int]) -> "Predictions":
        """Select images by index."""

        def pick(column: Sequence[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in images]

        query = self.query_probabilities
        return replace(
            self,
            probabilities=self.probabilities[images],
            labels=self.labels[images],
            query_probabilities=None if query is None else query[images],
            identities=pick(self.identities),
            groups={name: pick(column) or [] for name, column in self.groups.items()},
            ages=pick(self.ages),
        )


def score_predictions(
    predictions: Predictions, resamples: int = 1000, minimum_age: int = MINIMUM_AGE
) -> dict[str, Any]:
    """Score predictions overall, per attribute and by group, with 95 % bootstrap intervals.

    Args:
        predictions: Predictions of one model on one split.
        resamples: Number of bootstrap resamples; people are resampled if known, else images.
        minimum_age: In years; people of at least this age are also scored separately.

    Returns:
        A dictionary for JSON, with None for undefined values:
        `accuracy` (over images and attributes), `balanced_accuracy`, `f1`, `average_precision`,
        `expected_calibration_error` (means over attributes), `query_accuracy` (of the Attribute
        Query Network alone), `over_queries` (accuracy minus `query_accuracy`, from
        `paired_comparison`; None for a model without a query network), `contradictions` (from
        `contradiction_scores`), `majority_accuracy`, `intervals`, `bootstrap`, `num_images`,
        `num_labels`, `per_attribute`, `groups` (by column, and by their intersection if there are
        two or more), `age_adjusted` (groups by direct standardisation over age bands),
        `reliability`, and `minimum_age` (`years`, and the scores and groups of people of at least
        this age; None if there are none).
    """
    result = _scores(predictions, resamples)
    result["minimum_age"] = None
    ages = predictions.ages or ()
    old_enough = [i for i, age in enumerate(ages) if age is not None and age >= minimum_age]
    if old_enough:
        # Group comparisons need neither the reliability curve nor the query network.
        older = _scores(predictions.select(old_enough), resamples)
        kept = {name: older[name] for name in _OF_MINIMUM_AGE}
        result["minimum_age"] = {"years": minimum_age, **kept}
    return jsonable(result)


def _scores(predictions: Predictions, resamples: int) -> dict[str, Any]:
    probabilities, labels = predictions.probabilities, predictions.labels
    query, clusters = predictions.query_probabilities, predictions.clusters

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        scores = overall_scores(probabilities, labels, weights)
        if query is not None:
            scores["query_accuracy"] = mean_accuracy(query, labels, weights)
        return scores | {"each": accuracy_per_attribute(probabilities, labels, weights)}

    intervals = bootstrap_intervals(statistics, clusters, resamples)
    intervals = {name: np.clip(ends, 0, 1) for name, ends in intervals.items()}
    attribute_intervals = intervals.pop("each")
    people = any(identity is not None for identity in predictions.identities or ())
    compared = (query is not None) and paired_comparison(
        probabilities, query, labels, clusters, resamples
    )
    return {
        **overall_scores(probabilities, labels),
        "query_accuracy": None if query is None else mean_accuracy(query, labels),
        "over_queries": compared or None,
        "contradictions": contradiction_scores(predictions, resamples),
        "majority_accuracy": majority_accuracy(labels),
        "intervals": intervals,
        "bootstrap": {
            "level": LEVEL,
            "resamples": resamples,
            "unit": "identity" if people else "image",
            "num_units": int(clusters.max()) + 1,
        },
        "num_images": len(labels),
        "num_labels": int((labels != IGNORE_INDEX).sum()),
        "per_attribute": _per_attribute(predictions, attribute_intervals),
        "groups": {
            column: group_scores(
                probabilities, labels, groups, predictions.names, clusters, resamples
            )
            for column, groups in with_intersection(predictions.groups).items()
        },
        "age_adjusted": {
            column: standardised_scores(
                *(probabilities, labels, groups),
                *(shared_age_bands(predictions.ages, groups), predictions.names),
                *(clusters, resamples),
            )
            for column, groups in predictions.groups.items()
            if predictions.ages is not None and column != "age"
        },
        "reliability": reliability_curve(probabilities, labels),
    }


def contradiction_scores(predictions: Predictions, resamples: int = 1000) -> dict[str, Any] | None:
    """Measure the share of contradictory images, and what their resolution costs in accuracy.

    Args:
        predictions: Predictions with `exclusive_answers`.
        resamples: Number of bootstrap resamples.

    Returns:
        `labels`, `query_answers` (None without a query network), `answers` (by thresholds alone)
        and `decided` (by `decide_answers`), each with the `share` of contradictory images and its
        95 % `interval`; and `accuracy`, the `paired_comparison` of decided answers with answers by
        thresholds alone. None if no rule concerns two of the model's attributes.
    """
    p, names, clusters = predictions.probabilities, predictions.names, predictions.clusters
    rules = [g for g in predictions.exclusive_answers if len(set(g) & set(names)) > 1]
    if not rules:
        return None
    thresholds = predictions.thresholds or [THRESHOLD] * len(names)
    query = predictions.query_probabilities
    present = {
        "labels": predictions.labels == 1,
        "query_answers": None if query is None else query >= thresholds,
        "answers": p >= thresholds,
        "decided": decide_answers(p, thresholds, names, rules),
    }
    broken = {
        name: contradictory(yes, names, rules) for name, yes in present.items() if yes is not None
    }
    intervals = bootstrap_intervals(
        lambda weights: {
            name: weights @ of_images / weights.sum(axis=-1) for name, of_images in broken.items()
        },
        clusters,
        resamples,
    )
    decided, answers = (present[name].astype(float) for name in ("decided", "answers"))
    return {
        **dict.fromkeys(present),
        **{
            name: {"share": of_images.mean(), "interval": intervals[name].clip(0, 1)}
            for name, of_images in broken.items()
        },
        "accuracy": paired_comparison(decided, answers, predictions.labels, clusters, resamples),
    }


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


def jsonable(value: Any) -> Any:
    """Convert nested numpy values for JSON, rounded to 6 decimals; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def compare_predictions(
    model: Predictions, other: Predictions, resamples: int = 1000
) -> dict[str, Any]:
    """Compare two models (model minus other) with 95 % intervals, by the paired bootstrap.

    Every resample draws the same people for both models. Only attributes of both models are
    compared.

    Args:
        model: Predictions of the first model.
        other: Predictions of the second model, on the same images in the same order.
        resamples: Number of bootstrap resamples.

    Returns:
        A dictionary for JSON: `overall` (comparison by score), `per_attribute` (comparison of
        accuracy by attribute), `groups` (by column: `per_group`, `per_attribute` by attribute and
        group, and `gap`), and `attributes_left_out`. A comparison has `model`, `other`,
        `difference`, its `interval` (`interval_of`) and `p_value` (`p_values`), None where
        undefined; for groups also `num_images` with a known label and `small` (under 30).

    Raises:
        UserError: If the images or labels differ, or no shared attribute has a known label.
    """
    names = [name for name in model.names if name in other.names]
    if not names:
        raise UserError("the two models share no attribute: there is nothing to compare")
    left_out = [name for name in (*model.names, *other.names) if name not in names]
    columns, others = ([list(p.names).index(name) for name in names] for p in (model, other))
    labels, other_labels = model.labels[:, columns], other.labels[:, others]
    if labels.shape != other_labels.shape or (labels != other_labels).any():
        raise UserError(
            f"predictions of {len(labels)} and {len(other_labels)} images cannot be paired: they "
            "must be of the same images, in the same order, with the same labels"
        )
    if (labels == IGNORE_INDEX).all():
        raise UserError(
            f"no attribute that the two models share has a known label ({', '.join(names)}): there "
            "is nothing to compare"
        )
    first, second = model.probabilities[:, columns], other.probabilities[:, others]
    clusters = model.clusters

    def scored(probabilities: FloatArray) -> Statistics:
        return lambda weights: (
            overall_scores(probabilities, labels, weights)
            | {"each": accuracy_per_attribute(probabilities, labels, weights)}
        )

    compared = compare_paired(scored(first), scored(second), clusters, resamples)
    each = compared.pop("each")
    return jsonable(
        {
            "overall": {name: _entry(values) for name, values in compared.items()},
            "per_attribute": {
                name: _entry(each, a)
                for a, name in enumerate(names)
                if (labels[:, a] != IGNORE_INDEX).any()
            },
            "groups": {
                column: _compare_groups(first, second, labels, groups, names, clusters, resamples)
                for column, groups in with_intersection(model.groups).items()
            },
            "attributes_left_out": left_out,
        }
    )


def _compare_groups(
    first: FloatArray,
    second: FloatArray,
    labels: IntArray,
    groups: Sequence[str | None],
    names: Sequence[str],
    clusters: IntArray,
    resamples: int,
) -> dict[str, Any]:
    known = np.array([g is not None for g in groups], dtype=bool)
    if not known.any():
        return {"per_group": {}, "per_attribute": {}, "gap": None}
    column = np.array(groups, dtype=object)[known]
    first, second, labels = first[known], second[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]
    values = in_order(column)
    cells = members(column, values)
    images = images_by_cell(labels, cells)

    def scored(probabilities: FloatArray) -> Statistics:
        # Per model, because each gap is between that model's own worst and best group.
        pair = extremes(accuracy_by_cell(probabilities, labels, cells)[:, 0], images[:, 0])

        def scores(weights: FloatArray) -> dict[str, FloatArray]:
            accuracy = accuracy_by_cell(probabilities, labels, cells, weights)
            overall = accuracy[..., 0]
            gap = {} if pair is None else {"gap": overall[..., pair[1]] - overall[..., pair[0]]}
            return {"accuracy": accuracy, **gap}

        return scores

    compared = compare_paired(scored(first), scored(second), clusters, resamples)

    def entry(g: int, a: int) -> dict[str, Any]:
        size = int(images[g, a])
        small = size < MINIMUM_IMAGES
        return _entry(compared["accuracy"], g, a) | {"num_images": size, "small": small}

    return {
        "per_group": {value: entry(g, 0) for g, value in enumerate(values)},
        "per_attribute": {
            name: {value: entry(g, a) for g, value in enumerate(values) if images[g, a]}
            for a, name in enumerate(names, start=1)
            if images[:, a].any()
        },
        "gap": _entry(compared["gap"]) if "gap" in compared else None,
    }


def _entry(compared: Mapping[str, Any], *index: int) -> dict[str, Any]:
    ends = (slice(None), *index)
    return {
        name: values[ends if name == "interval" else index] for name, values in compared.items()
    }
