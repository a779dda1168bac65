"""Groups as if all had the same make-up: accuracy post-stratified by age band."""

import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.evaluation.bootstrap import (
    bootstrap_draws,
    equality_p_value,
    gap_by_chance,
    interval_of,
)
from label2label.evaluation.metrics import FloatArray, IntArray, correct_predictions, ratio

MINIMUM_IMAGES = 30
MINIMUM_CELL = 10
AGE_BANDS = (0, 5, 15, 30, 45, 60)
CHILDREN_BELOW = 15

GroupArray = npt.NDArray[np.object_]


def age_bands(ages: Sequence[int | None]) -> list[str | None]:
    """Name the band of each age: 0-4, 5-14, 15-29, 30-44, 45-59, 60+.

    Args:
        ages: in years; None or NaN where unknown.

    Returns:
        One band an age; None where the age is unknown or negative.
    """
    return _name_bands(ages, AGE_BANDS)


def shared_age_bands(ages: Sequence[int | None], groups: Sequence[str | None]) -> list[str | None]:
    """Age bands as narrow as `age_bands`, but merged until every group has images in each.

    Groups under 30 images, which are not compared, do not widen a band.

    Args:
        ages: in years; None or NaN where unknown.
        groups: one group an image; None where unknown.

    Returns:
        One band an image, None where the age is unknown or negative. Of all ways to merge
        neighbouring bands that leave every compared group 10 images in each, the one with most
        bands, and with an edge at 15 where one has it: the attributes of children differ most.
    """
    known = np.array(
        [a is not None and a >= 0 and g is not None for a, g in zip(ages, groups, strict=True)],
        dtype=bool,
    )
    if not known.any():
        return [None] * len(ages)
    years = np.array([a for a, k in zip(ages, known, strict=True) if k])
    column = np.array(groups, dtype=object)[known]
    compared = members(column, [g for g in set(column) if (column == g).sum() >= MINIMUM_IMAGES])
    youngest = AGE_BANDS[np.searchsorted(AGE_BANDS, years.min(), side="right") - 1]
    inner = [edge for edge in AGE_BANDS if edge > youngest]
    chosen: tuple[int, ...] = (youngest,)
    for count in range(1, len(inner) + 1):
        for picked in combinations(inner, count):
            edges = (youngest, *picked)
            sizes = [compared[(years >= a) & (years < b)].sum(0) for a, b in _spans(edges)]
            narrower = (CHILDREN_BELOW in edges, len(edges)) > (
                CHILDREN_BELOW in chosen,
                len(chosen),
            )
            if narrower and np.min(sizes, initial=MINIMUM_CELL) >= MINIMUM_CELL:
                chosen = edges
    return _name_bands(ages, chosen)


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
    not compared, and only strata in which every compared group has 10 images count.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        groups: one group an image; None where unknown.
        strata: one stratum an image; None where unknown.
        clusters: (images,), who is on each image, as `clusters_of` returns them.
        resamples: of the bootstrap.

    Returns:
        `per_group` (adjusted `accuracy`, its 95 % `interval`, and `num_images` by stratum),
        `strata` (share by stratum), `strata_left_out`, `worst_group`, `best_group`, `gap`,
        `gap_interval`, `gap_by_chance` and the `p_value` of all groups being equal; None where
        fewer than two groups share a stratum.
    """
    labelled = (labels != IGNORE_INDEX).any(axis=1)
    known = labelled & [
        g is not None and s is not None for g, s in zip(groups, strata, strict=True)
    ]
    group_column = np.array(groups, dtype=object)[known]
    stratum_column = np.array(strata, dtype=object)[known]
    probabilities, labels = probabilities[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]

    values = [g for g in in_order(group_column) if (group_column == g).sum() >= MINIMUM_IMAGES]
    all_bands = in_order(stratum_column)
    by_group, by_band = members(group_column, values), members(stratum_column, all_bands)
    counts = by_group.T.astype(int) @ by_band.astype(int)  # (groups, strata)
    shared = (counts >= MINIMUM_CELL).all(axis=0)
    if len(values) < 2 or not shared.any():
        return None
    by_band, counts = by_band[:, shared], counts[:, shared]
    bands = [band for band, kept in zip(all_bands, shared, strict=True) if kept]
    shares = counts.sum(0) / counts.sum()
    cells = (by_group[:, :, None] & by_band[:, None, :]).reshape(len(labels), -1)

    def adjusted(weights: FloatArray | None = None) -> FloatArray:
        accuracy = accuracy_by_cell(probabilities, labels, cells, weights)
        return accuracy.reshape(*accuracy.shape[:-1], *counts.shape) @ shares  # (..., groups)

    accuracy = adjusted()
    # Of equals the first is worst and the last best: two groups, even where the gap is zero.
    worst, best = int(accuracy.argmin()), len(values) - 1 - int(accuracy[::-1].argmax())

    draws = bootstrap_draws(lambda weights: {"accuracy": adjusted(weights)}, clusters, resamples)
    by_draw = draws["accuracy"]  # (resamples, groups)
    intervals = np.clip(interval_of(by_draw, accuracy), 0, 1)
    gap = accuracy[best] - accuracy[worst]
    return {
        "per_group": {
            value: {
                "accuracy": float(accuracy[g]),
                "interval": intervals[:, g].tolist(),
                "num_images": dict(zip(bands, counts[g].tolist(), strict=True)),
            }
            for g, value in enumerate(values)
        },
        "strata": dict(zip(bands, shares.tolist(), strict=True)),
        "strata_left_out": [band for band in all_bands if band not in bands],
        "worst_group": values[worst],
        "best_group": values[best],
        "gap": float(gap),
        "gap_interval": interval_of(by_draw[:, best] - by_draw[:, worst], gap).tolist(),
        "gap_by_chance": gap_by_chance(by_draw),
        "p_value": equality_p_value(by_draw, accuracy),
    }


def in_order(column: GroupArray) -> list[str]:
    """The values of a column, once each, numbers within them by size (5-14 before 15-29)."""

    def numbers_by_size(value: str) -> list[str | int]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", value)]

    return sorted(set(column), key=numbers_by_size)


def members(column: GroupArray, values: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Who belongs to which value: (images, values) booleans."""
    return column[:, None] == np.array(values, dtype=object)[None, :]


def accuracy_by_cell(
    probabilities: FloatArray,
    labels: IntArray,
    cells: npt.NDArray[np.bool_],
    weights: FloatArray | None = None,
) -> FloatArray:
    """Mean accuracy over the images and attributes of each cell.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        cells: (images, cells), which images belong to each.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., cells), NaN where a cell has no known label.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    right = cells * correct_predictions(probabilities, labels).sum(1, keepdims=True)
    asked = cells * (labels != IGNORE_INDEX).sum(1, keepdims=True)
    return ratio(weights @ right, weights @ asked)


def _spans(edges: Sequence[int]) -> list[tuple[float, float]]:
    return list(pairwise((*edges, np.inf)))


def _name_bands(ages: Sequence[int | None], edges: Sequence[int]) -> list[str | None]:
    names = [f"{a}-{b - 1}" for a, b in pairwise(edges)]
    names.append(f"{edges[-1]}+")

    def band(age: int | None) -> str | None:
        # So written that NaN has no band.
        if age is None or not age >= edges[0]:
            return None
        return names[int(np.searchsorted(edges, age, side="right")) - 1]

    return [band(age) for age in ages]
