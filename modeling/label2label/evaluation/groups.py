"""Accuracy by group: worst group and gap, parity of rates and odds, intersections."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from fairlearn.metrics import MetricFrame, count, selection_rate
from sklearn.metrics import accuracy_score

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.evaluation.bootstrap import (
    bootstrap_draws,
    equality_p_value,
    gap_by_chance,
    interval_of,
)
from label2label.evaluation.metrics import (
    THRESHOLD,
    FloatArray,
    IntArray,
    correct_predictions,
    ratio,
)
from label2label.evaluation.stratification import (
    MINIMUM_IMAGES,
    GroupArray,
    accuracy_by_cell,
    in_order,
    members,
)


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
    every gap; so are, per attribute, rates that rest on fewer than 30 images. Images without any
    known label do not count.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        groups: one group an image; None where unknown: such images are left out and counted.
        names: of the attributes.
        clusters: (images,), who is on each image, as `clusters_of` returns them.
        resamples: of the bootstrap.

    Returns:
        `per_group` (`accuracy`, its 95 % `interval`, `num_images` with a known label, `small`),
        `worst_group`, `best_group`, `gap` and `gap_interval` between these two, `gap_by_chance`,
        `p_value` of all groups being equal, `num_unknown`, and `per_attribute`, each by group:
        `accuracy`, its `interval`, `num_images` with a known label, `num_present`,
        `selection_rate` (share predicted present), `true_positive_rate` and `false_positive_rate`;
        and `worst_group`, `best_group`, `gap`, `gap_interval`, `gap_by_chance`, `p_value`,
        `demographic_parity_difference` and `equalized_odds_difference`. What fewer than two groups
        can tell is None or NaN.
    """
    known = np.array([g is not None for g in groups], dtype=bool)
    column = np.array(groups, dtype=object)[known]
    probabilities, labels = probabilities[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]
    values = in_order(column)
    cells = members(column, values)
    labelled = (labels != IGNORE_INDEX).any(axis=1)
    sizes = cells[labelled].sum(0)
    accuracy = accuracy_by_cell(probabilities, labels, cells)
    by_attribute = accuracy_by_group(probabilities, labels, cells)  # (groups, attributes)
    images = cells.T.astype(int) @ (labels != IGNORE_INDEX)  # (groups, attributes)
    compared = sizes >= MINIMUM_IMAGES
    pair = extremes(accuracy, sizes)
    pairs = [extremes(by_attribute[:, a], images[:, a]) for a in range(len(names))]

    def resampled(weights: FloatArray) -> dict[str, FloatArray]:
        return {
            "accuracy": accuracy_by_cell(probabilities, labels, cells, weights),
            "by_attribute": accuracy_by_group(probabilities, labels, cells, weights),
        }

    draws = bootstrap_draws(resampled, clusters, resamples) if values else {}
    estimates = {"accuracy": accuracy, "by_attribute": by_attribute}
    intervals = {name: np.clip(interval_of(draws[name], estimates[name]), 0, 1) for name in draws}
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
        **_gap_entries(accuracy, pair, values, draws.get("accuracy"), compared),
        "num_unknown": int((~known).sum()),
        "per_attribute": {
            name: {
                **_attribute_scores(probabilities[:, a], labels[:, a], column),
                "interval": {
                    value: intervals["by_attribute"][:, g, a].tolist()
                    for g, value in enumerate(values)
                    if images[g, a]
                },
                **_gap_entries(
                    by_attribute[:, a],
                    pairs[a],
                    values,
                    draws["by_attribute"][..., a],
                    images[:, a] >= MINIMUM_IMAGES,
                ),
            }
            for a, name in enumerate(names)
            if images[:, a].any()
        },
    }


def accuracy_by_group(
    probabilities: FloatArray,
    labels: IntArray,
    cells: Any,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Accuracy of every attribute in every group.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        cells: (images, groups) booleans, who belongs to which.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., groups, attributes), NaN where a group has no known label.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    right = correct_predictions(probabilities, labels)
    known = labels != IGNORE_INDEX
    scores = [
        ratio(weights[..., cell] @ right[cell], weights[..., cell] @ known[cell])
        for cell in np.asarray(cells).T
    ]
    if not scores:
        return np.empty((*weights.shape[:-1], 0, labels.shape[1]))
    return np.stack(scores, axis=-2)


def extremes(accuracy: FloatArray, num_images: IntArray) -> tuple[int, int] | None:
    """The worst and the best group of those with 30 images.

    Args:
        accuracy: (groups,), NaN where undefined.
        num_images: (groups,).

    Returns:
        Their indices, or None where fewer than two groups can be compared.
    """
    counted = np.flatnonzero((num_images >= MINIMUM_IMAGES) & np.isfinite(accuracy))
    if len(counted) < 2:
        return None
    # Of equals the first is worst and the last best: two groups, even where the gap is zero.
    backwards = counted[::-1]
    return int(counted[accuracy[counted].argmin()]), int(backwards[accuracy[backwards].argmax()])


def _gap_entries(
    accuracy: FloatArray,
    pair: tuple[int, int] | None,
    values: Sequence[str],
    draws: FloatArray | None,
    compared: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    if pair is None or draws is None:
        keys = ("worst_group", "best_group", "gap", "gap_interval", "gap_by_chance", "p_value")
        return dict.fromkeys(keys)
    worst, best = pair
    gap = accuracy[best] - accuracy[worst]
    return {
        "worst_group": values[worst],
        "best_group": values[best],
        "gap": float(gap),
        "gap_interval": interval_of(draws[:, best] - draws[:, worst], gap).tolist(),
        "gap_by_chance": gap_by_chance(draws[:, compared]),
        "p_value": equality_p_value(draws[:, compared], accuracy[compared]),
    }


def _attribute_scores(
    probabilities: FloatArray, labels: IntArray, column: GroupArray
) -> dict[str, Any]:
    known = labels != IGNORE_INDEX
    by_group = MetricFrame(
        metrics={
            "accuracy": accuracy_score,
            "count": count,
            "present": _present,
            "selection_rate": selection_rate,
            "true_positive_rate": _true_positive_rate,
            "false_positive_rate": _false_positive_rate,
        },
        y_true=labels[known],
        y_pred=(probabilities[known] > THRESHOLD).astype(int),
        # As an array, one row would lose its axis in fairlearn.
        sensitive_features=pd.Series(column[known], dtype=object),
    ).by_group
    counted = by_group[by_group["count"] >= MINIMUM_IMAGES]

    def spread(name: str) -> float:
        rates = counted[name].dropna().astype(float)
        return float(rates.max() - rates.min()) if len(rates) > 1 else np.nan

    rates = ("selection_rate", "true_positive_rate", "false_positive_rate")
    return {
        "accuracy": by_group["accuracy"].astype(float).to_dict(),
        "num_images": by_group["count"].astype(int).to_dict(),
        "num_present": by_group["present"].astype(int).to_dict(),
        **{name: by_group[name].astype(float).to_dict() for name in rates},
        "demographic_parity_difference": spread("selection_rate"),
        "equalized_odds_difference": float(
            np.maximum(spread("true_positive_rate"), spread("false_positive_rate"))
        ),
    }


def _present(labels: Any, predictions: Any) -> int:
    return int((labels == 1).sum())


def _true_positive_rate(labels: Any, predictions: Any) -> float:
    return _rate_where(labels == 1, predictions)


def _false_positive_rate(labels: Any, predictions: Any) -> float:
    return _rate_where(labels == 0, predictions)


def _rate_where(chosen: Any, predictions: Any) -> float:
    # fairlearn answers 0 for a rate of no images, which would pass for the largest gap of all.
    return float(predictions[chosen].mean()) if chosen.sum() >= MINIMUM_IMAGES else np.nan
