"""Accuracy by group: worst group, gap, parity of rates, intersections and age-adjusted gaps."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from fairlearn.metrics import MetricFrame, count, selection_rate
from sklearn.metrics import accuracy_score

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.evaluation.bootstrap import bootstrap_intervals
from label2label.evaluation.metrics import (
    THRESHOLD,
    FloatArray,
    IntArray,
    correct_predictions,
    ratio,
)

MINIMUM_IMAGES = 30
AGE_BANDS = (0, 5, 15, 30, 45, 60)

GroupArray = npt.NDArray[np.object_]


def age_bands(ages: Sequence[int | None]) -> list[str | None]:
    """Name the band of each age: 0-4, 5-14, 15-29, 30-44, 45-59, 60+.

    Args:
        ages: in years; None where unknown.

    Returns:
        One band an age; None where the age is unknown or negative.
    """
    names = [f"{a}-{b - 1}" for a, b in pairwise(AGE_BANDS)]
    names.append(f"{AGE_BANDS[-1]}+")

    def band(age: int | None) -> str | None:
        if age is None or age < AGE_BANDS[0]:
            return None
        return names[int(np.searchsorted(AGE_BANDS, age, side="right")) - 1]

    return [band(age) for age in ages]


def intersection(columns: Sequence[Sequence[str | None]]) -> list[str | None]:
    """Join group columns into one whose values are their combinations.

    Args:
        columns: two or more columns of equal length.

    Returns:
        One "a, b" an image; None where any of the columns is unknown.
    """
    return [
        None if any(v is None for v in row) else ", ".join(map(str, row))
        for row in zip(*columns, strict=True)
    ]


def group_scores(
    probabilities: FloatArray,
    labels: IntArray,
    groups: Sequence[str | None],
    names: Sequence[str],
    clusters: IntArray,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Scores of every group, overall and per attribute, and the gaps between groups.

    Groups under 30 images are shown and flagged (`small`), and kept out of the worst group and of
    every gap; so are, per attribute, rates that rest on fewer than 30 images.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        groups: one group an image; None where unknown: such images are left out and counted.
        names: of the attributes.
        clusters: (images,), who is on each image, as `clusters_of` returns them.
        resamples: of the bootstrap.

    Returns:
        `per_group` (accuracy, its 95 % interval, number of images, `small`), `worst_group`,
        `best_group`, `gap` and `gap_interval` between these two, `num_unknown`, and
        `per_attribute`: accuracy by group, `gap`, `demographic_parity_difference` and
        `equalized_odds_difference`. What fewer than two groups can tell is None or NaN.
    """
    known = np.array([g is not None for g in groups], dtype=bool)
    column = np.array(groups, dtype=object)[known]
    probabilities, labels = probabilities[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]
    values = _in_order(column)
    members = _members(column, values)
    accuracy = _accuracy_by_cell(probabilities, labels, members)
    sizes = members.sum(0)
    counted = np.flatnonzero((sizes >= MINIMUM_IMAGES) & np.isfinite(accuracy))
    comparable = len(counted) > 1
    worst, best = _extremes(accuracy, counted) if comparable else (0, 0)

    def resampled(weights: FloatArray) -> dict[str, FloatArray]:
        by_group = _accuracy_by_cell(probabilities, labels, members, weights)
        return {"accuracy": by_group, "gap": by_group[:, best] - by_group[:, worst]}

    intervals = bootstrap_intervals(resampled, clusters, resamples) if values else {}
    return {
        "per_group": {
            value: {
                "accuracy": float(accuracy[g]),
                "interval": intervals["accuracy"][:, g].tolist(),
                "num_images": int(sizes[g]),
                "small": bool(sizes[g] < MINIMUM_IMAGES),
            }
            for g, value in enumerate(values)
        },
        "worst_group": values[worst] if comparable else None,
        "best_group": values[best] if comparable else None,
        "gap": float(accuracy[best] - accuracy[worst]) if comparable else None,
        "gap_interval": intervals["gap"].tolist() if comparable else None,
        "num_unknown": int((~known).sum()),
        "per_attribute": {
            name: _attribute_scores(probabilities[:, a], labels[:, a], column)
            for a, name in enumerate(names)
            if (labels[:, a] != IGNORE_INDEX).any()
        },
    }


def post_stratified_scores(
    probabilities: FloatArray,
    labels: IntArray,
    groups: Sequence[str | None],
    strata: Sequence[str | None],
    clusters: IntArray,
    resamples: int = 1000,
) -> dict[str, Any] | None:
    """Accuracy of every group as if all groups had the same make-up, for example by age band.

    A group's adjusted accuracy is the mean of its accuracies within strata, weighted by the
    strata's shares among all compared images (direct standardisation). Groups under 30 images are
    not compared, and only strata in which every compared group has 30 images count.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        groups: one group an image; None where unknown.
        strata: one stratum an image; None where unknown.
        clusters: (images,), who is on each image, as `clusters_of` returns them.
        resamples: of the bootstrap.

    Returns:
        `per_group` (adjusted `accuracy`, its 95 % `interval`, and `num_images` by stratum),
        `strata` (share by stratum), `strata_left_out`, `worst_group`, `best_group`, `gap` and
        `gap_interval`; None where fewer than two groups share a stratum.
    """
    labelled = (labels != IGNORE_INDEX).any(axis=1)
    known = labelled & [
        g is not None and s is not None for g, s in zip(groups, strata, strict=True)
    ]
    group_column = np.array(groups, dtype=object)[known]
    stratum_column = np.array(strata, dtype=object)[known]
    probabilities, labels = probabilities[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]

    values = [g for g in _in_order(group_column) if (group_column == g).sum() >= MINIMUM_IMAGES]
    all_bands = _in_order(stratum_column)
    by_group, by_band = _members(group_column, values), _members(stratum_column, all_bands)
    counts = by_group.T.astype(int) @ by_band.astype(int)  # (groups, strata)
    shared = (counts >= MINIMUM_IMAGES).all(axis=0)
    if len(values) < 2 or not shared.any():
        return None
    by_band, counts = by_band[:, shared], counts[:, shared]
    bands = [band for band, kept in zip(all_bands, shared, strict=True) if kept]
    shares = counts.sum(0) / counts.sum()
    cells = (by_group[:, :, None] & by_band[:, None, :]).reshape(len(labels), -1)

    def adjusted(weights: FloatArray | None = None) -> FloatArray:
        accuracy = _accuracy_by_cell(probabilities, labels, cells, weights)
        return accuracy.reshape(*accuracy.shape[:-1], *counts.shape) @ shares  # (..., groups)

    accuracy = adjusted()
    worst, best = _extremes(accuracy, np.arange(len(values)))

    def resampled(weights: FloatArray) -> dict[str, FloatArray]:
        draws = adjusted(weights)
        return {"accuracy": draws, "gap": draws[:, best] - draws[:, worst]}

    intervals = bootstrap_intervals(resampled, clusters, resamples)
    return {
        "per_group": {
            value: {
                "accuracy": float(accuracy[g]),
                "interval": intervals["accuracy"][:, g].tolist(),
                "num_images": dict(zip(bands, counts[g].tolist(), strict=True)),
            }
            for g, value in enumerate(values)
        },
        "strata": dict(zip(bands, shares.tolist(), strict=True)),
        "strata_left_out": [band for band in all_bands if band not in bands],
        "worst_group": values[worst],
        "best_group": values[best],
        "gap": float(accuracy[best] - accuracy[worst]),
        "gap_interval": intervals["gap"].tolist(),
    }


def _attribute_scores(
    probabilities: FloatArray, labels: IntArray, column: GroupArray
) -> dict[str, Any]:
    known = labels != IGNORE_INDEX
    by_group = MetricFrame(
        metrics={
            "accuracy": accuracy_score,
            "count": count,
            "selection_rate": selection_rate,
            "true_positive_rate": _true_positive_rate,
            "false_positive_rate": _false_positive_rate,
        },
        y_true=labels[known],
        y_pred=(probabilities[known] > THRESHOLD).astype(int),
        sensitive_features=column[known],
    ).by_group
    counted = by_group[by_group["count"] >= MINIMUM_IMAGES]

    def spread(name: str) -> float:
        rates = counted[name].dropna().astype(float)
        return float(rates.max() - rates.min()) if len(rates) > 1 else np.nan

    return {
        "accuracy": by_group["accuracy"].astype(float).to_dict(),
        "num_images": by_group["count"].astype(int).to_dict(),
        "gap": spread("accuracy"),
        "demographic_parity_difference": spread("selection_rate"),
        "equalized_odds_difference": float(
            np.maximum(spread("true_positive_rate"), spread("false_positive_rate"))
        ),
    }


def _true_positive_rate(labels: Any, predictions: Any) -> float:
    return _rate_where(labels == 1, predictions)


def _false_positive_rate(labels: Any, predictions: Any) -> float:
    return _rate_where(labels == 0, predictions)


def _rate_where(chosen: Any, predictions: Any) -> float:
    # fairlearn answers 0 for a rate of no images, which would pass for the largest gap of all.
    return float(predictions[chosen].mean()) if chosen.sum() >= MINIMUM_IMAGES else np.nan


def _in_order(column: GroupArray) -> list[str]:
    def numbers_by_size(value: str) -> list[str | int]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", value)]

    return sorted(set(column), key=numbers_by_size)


def _members(column: GroupArray, values: Sequence[str]) -> npt.NDArray[np.bool_]:
    return column[:, None] == np.array(values, dtype=object)[None, :]  # (images, groups)


def _accuracy_by_cell(
    probabilities: FloatArray,
    labels: IntArray,
    members: npt.NDArray[np.bool_],
    weights: FloatArray | None = None,
) -> FloatArray:
    weights = np.ones(len(labels)) if weights is None else weights
    right = members * correct_predictions(probabilities, labels).sum(1, keepdims=True)
    asked = members * (labels != IGNORE_INDEX).sum(1, keepdims=True)
    return ratio(weights @ right, weights @ asked)


def _extremes(accuracy: FloatArray, counted: IntArray) -> tuple[int, int]:
    return int(counted[accuracy[counted].argmin()]), int(counted[accuracy[counted].argmax()])
