"""Score and compare predictions; return dictionaries that are ready for JSON."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.groups import (
    age_bands,
    compare_groups,
    group_scores,
    standardised_scores,
    with_intersection,
)
from label2label.evaluation.intervals import (
    LEVEL,
    Statistics,
    bootstrap_intervals,
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
from label2label.evaluation.predictions import Predictions
from label2label.models.exclusive_answers import decide_answers


def score_predictions(predictions: Predictions, resamples: int = 1000) -> dict[str, Any]:
    """Score predictions overall, per attribute and by group, with 95 % bootstrap intervals.

    Returns:
        A dictionary for JSON, with None for undefined values:
        `accuracy` (over images and attributes), `balanced_accuracy`, `f1`, `average_precision`,
        `expected_calibration_error` (means over attributes), `query_accuracy` (of the Attribute
        Query Network alone), `over_queries` (accuracy minus `query_accuracy`, from
        `paired_comparison`; None for a model without a query network), `contradictions` (from
        `contradiction_scores`), `majority_accuracy`, `intervals`, `bootstrap`, `num_images`,
        `num_labels`, `per_attribute`, `groups` (by column, and by their intersection if there are
        two or more), `age_adjusted` (groups by direct standardisation over age bands) and
        `reliability`.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    query, clusters = predictions.query_probabilities, predictions.clusters

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        scores = _scores_and_each(probabilities, labels, weights)
        if query is not None:
            scores["query_accuracy"] = mean_accuracy(query, labels, weights)
        return scores

    intervals = bootstrap_intervals(statistics, clusters, resamples)
    intervals = {name: np.clip(ends, 0, 1) for name, ends in intervals.items()}
    attribute_intervals = intervals.pop("each")
    people = any(identity is not None for identity in predictions.identities or ())
    result = {
        **overall_scores(probabilities, labels),
        "query_accuracy": None if query is None else mean_accuracy(query, labels),
        "over_queries": None
        if query is None
        else paired_comparison(probabilities, query, labels, clusters, resamples),
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
            column: group_scores(predictions, groups, resamples)
            for column, groups in with_intersection(predictions.groups).items()
        },
        "age_adjusted": {
            column: standardised_scores(predictions, groups, age_bands(predictions.ages), resamples)
            for column, groups in predictions.groups.items()
            if predictions.ages is not None and column != "age"
        },
        "reliability": reliability_curve(probabilities, labels),
    }
    return jsonable(result)


def _scores_and_each(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Compute the overall scores, and as `each` the accuracy per attribute."""
    scores = overall_scores(probabilities, labels, weights)
    return scores | {"each": accuracy_per_attribute(probabilities, labels, weights)}


def contradiction_scores(predictions: Predictions, resamples: int = 1000) -> dict[str, Any] | None:
    """Measure the share of contradictory images, and what their resolution costs in accuracy.

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
    """Compare two models (model minus other) on the same images, by the paired bootstrap.

    Every resample draws the same people for both models. Only attributes of both models are
    compared.

    Returns:
        A dictionary for JSON: `overall` (comparison by score), `per_attribute` (comparison of
        accuracy by attribute), `groups` (by column, from `compare_groups`), and
        `attributes_left_out`. A comparison is that of `compare_paired`, None where undefined.

    Raises:
        UserError: If the images or labels differ, or no shared attribute has a known label.
    """
    names = [name for name in model.names if name in other.names]
    if not names:
        raise UserError("the two models share no attribute: there is nothing to compare")
    left_out = [name for name in (*model.names, *other.names) if name not in names]
    first, second = (predictions.only(names) for predictions in (model, other))
    labels = first.labels
    if labels.shape != second.labels.shape or (labels != second.labels).any():
        raise UserError(
            f"predictions of {len(labels)} and {len(second.labels)} images cannot be paired: they "
            "must be of the same images, in the same order, with the same labels"
        )
    if (labels == IGNORE_INDEX).all():
        raise UserError(
            f"no attribute that the two models share has a known label ({', '.join(names)}): there "
            "is nothing to compare"
        )

    def scored(predictions: Predictions) -> Statistics:
        return lambda weights: _scores_and_each(predictions.probabilities, labels, weights)

    compared = compare_paired(scored(first), scored(second), model.clusters, resamples)
    each = compared.pop("each")
    return jsonable(
        {
            "overall": compared,
            "per_attribute": {
                name: {key: values[..., a] for key, values in each.items()}
                for a, name in enumerate(names)
                if (labels[:, a] != IGNORE_INDEX).any()
            },
            "groups": {
                column: compare_groups(first, second, groups, resamples)
                for column, groups in with_intersection(model.groups).items()
            },
            "attributes_left_out": left_out,
        }
    )
