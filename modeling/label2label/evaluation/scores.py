"""Everything that an evaluation says about predictions, as JSON-ready dictionaries."""

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
    """What a model says about labelled images.

    Args:
        names: of the attributes, in the order of the arrays' columns.
        probabilities: (images, attributes), the model's prediction (IC-MLM's `logits`).
        labels: (images, attributes).
        query_probabilities: (images, attributes), the Attribute Query Network's (`query_logits`),
            or None for a model without one.
        identities: one person an image, None where unknown; or None where no image tells.
        groups: column name to one group an image, None where unknown.
        ages: in years, one an image, None where unknown; or None where no image tells.
        thresholds: (attributes,), probability from which the model's answer is yes; 0.5 by default.
        exclusive_answers: groups of names of which at most one can be present.

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
            # So written that NaN is refused too.
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
        """(images,) who is on each image, as `clusters_of` numbers them."""
        return clusters_of(self.identities or [None] * len(self.labels))

    def select(self, images: Sequence[int]) -> "Predictions":
        """Take some of the images, by their indices."""

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
        predictions: of one model on one split.
        resamples: of the bootstrap; people are resampled where known, else images.
        minimum_age: in years; where ages are known, the scores are also given for these alone.

    Returns:
        A dictionary for JSON, with None for every figure that is undefined:
        `accuracy` (over images and attributes), `balanced_accuracy`, `f1`, `average_precision`,
        `expected_calibration_error` (means over attributes), `query_accuracy` (the Attribute Query
        Network's alone), `over_queries` (what the masked language model adds to its accuracy, on
        the same images: as `paired_comparison`; None for a model without one), `contradictions`
        (as `contradiction_scores`), `majority_accuracy`, `intervals`, `bootstrap`, `num_images`,
        `num_labels`, `per_attribute`, `groups` (by column, and by all columns together where there
        are two or more), `age_adjusted` (groups as if all had the same ages), `reliability` and
        `minimum_age` (None where no image is known to be that old): the `years`, and for the images
        of these and more years the same scores, groups and age-adjusted groups.
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
    """Measure how many images' answers contradict each other, and what it costs to decide.

    Args:
        predictions: with `exclusive_answers`.
        resamples: of the bootstrap.

    Returns:
        `labels`, `query_answers` (None without a query network), `answers` (by thresholds alone)
        and `decided` (as `decide_answers` decides them): each the `share` of contradictory images
        and its 95 % `interval`; and `accuracy` of the decided answers against those by thresholds
        alone, as `paired_comparison`. None where no rule is about the model's attributes.
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
    """Turn a nesting of numpy values into plain ones for JSON, and what is not finite into None."""
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

    Every resample draws the same people for both models. Only attributes that both have are
    compared.

    Args:
        model: predictions of the first model.
        other: predictions of the second, on the same images in the same order.
        resamples: of the bootstrap.

    Returns:
        A dictionary for JSON. `overall`: score to its comparison; `per_attribute`: attribute to
        that of its accuracy; `groups`: column to `per_group`, `per_attribute` (attribute to group)
        and `gap`; `attributes_left_out`. A comparison holds `model`, `other`, `difference`, its
        `interval` and `p_value` (as `interval_of` and `p_values` give them), None where undefined,
        and by group `num_images` with a known label and `small` (under 30).

    Raises:
        UserError: if the predictions are not of the same labelled images, or share no attribute of
            which a label is known.
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
        # Each model's own worst and best group, as in its own gap.
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
