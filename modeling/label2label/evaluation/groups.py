"""Score groups: accuracy, gaps, parity and odds differences, and direct standardisation by age."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.evaluation.intervals import (
    bootstrap_draws,
    expected_gap_under_null,
    interval_of,
    wald_p_value,
)
from label2label.evaluation.metrics import (
    THRESHOLD,
    FloatArray,
    IntArray,
    correct_predictions,
    ratio,
)

MINIMUM_IMAGES = 30  # per group that is compared
MINIMUM_CELL = 10  # per compared group and stratum
AGE_BANDS = (0, 5, 15, 30, 45, 60)
CHILDREN_BELOW = 15

Column = Sequence[str | None]
"""One value an image; None where unknown."""

_OVERALL = 0  # index of all attributes pooled; the attributes follow


def with_intersection(groups: Mapping[str, Column]) -> dict[str, Column]:
    """Add the intersection of all group columns, named "a x b", if there are two or more."""
    columns = dict(groups)
    if len(columns) > 1:
        columns[" x ".join(columns)] = intersection(list(columns.values()))
    return columns


def intersection(columns: Sequence[Column]) -> Column:
    """Combine group columns into one with values such as "a, b"; None where any is unknown."""
    return [
        None if any(v is None for v in row) else ", ".join(map(str, row))
        for row in zip(*columns, strict=True)
    ]


def group_scores(
    probabilities: FloatArray,
    labels: IntArray,
    groups: Column,
    names: Sequence[str],
    clusters: IntArray,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Score every group, overall and per attribute, and the gaps between groups.

    Groups with fewer than 30 images are reported as `small` and excluded from the worst and best
    group and from all gaps; likewise per attribute, by images with a known label. True and false
    positive rates from fewer than 30 images are NaN. Images without any known label do not count.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes).
        groups: One group per image; images without a group are left out and counted.
        names: Names of the attributes.
        clusters: Person on each image, (images,), from `clusters_of`.
        resamples: Number of bootstrap resamples.

    Returns:
        Overall: `per_group` (`accuracy`, its 95 % `interval`, `num_images` with a known label,
        `small`), the entries of `gap_entries`, and `num_unknown`, the images without a group.
        `per_attribute`: by group, `accuracy`, its `interval`, `num_images` with a known label,
        `num_present`, `selection_rate` (share predicted present), `true_positive_rate` and
        `false_positive_rate`; and across groups, the entries of `gap_entries`,
        `demographic_parity_difference` and `equalized_odds_difference`. Differences are None or NaN
        if fewer than two groups can be compared.
    """
    known = np.array([g is not None for g in groups], dtype=bool)
    column = np.array(groups, dtype=object)[known]
    probabilities, labels = probabilities[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]
    values = in_order(column)
    cells = members(column, values)
    accuracy = accuracy_by_cell(probabilities, labels, cells)  # (groups, 1 + attributes)
    images = images_by_cell(labels, cells)

    def resampled(weights: FloatArray) -> dict[str, FloatArray]:
        return {"accuracy": accuracy_by_cell(probabilities, labels, cells, weights)}

    empty = {"accuracy": accuracy[None]}
    draws = (bootstrap_draws(resampled, clusters, resamples) if values else empty)["accuracy"]
    intervals = np.clip(interval_of(draws, accuracy), 0, 1).swapaxes(0, 1)  # by group
    rates = _rates_by_group(probabilities, labels, cells, values)

    def by_group(array: FloatArray, a: int) -> dict[str, Any]:
        return {v: array[g, ..., a].tolist() for g, v in enumerate(values) if images[g, a]}

    return {
        "per_group": {
            value: {
                "accuracy": float(accuracy[g, _OVERALL]),
                "interval": intervals[g, :, _OVERALL].tolist(),
                "num_images": int(images[g, _OVERALL]),
                "small": bool(images[g, _OVERALL] < MINIMUM_IMAGES),
            }
            for g, value in enumerate(values)
        },
        **gap_entries(accuracy[:, _OVERALL], images[:, _OVERALL], values, draws[..., _OVERALL]),
        "num_unknown": int((~known).sum()),
        "per_attribute": {
            name: {
                "accuracy": by_group(accuracy, a),
                "interval": by_group(intervals, a),
                **rates[a - 1],
                **gap_entries(accuracy[:, a], images[:, a], values, draws[..., a]),
            }
            for a, name in enumerate(names, start=1)
            if images[:, a].any()
        },
    }


def in_order(column: npt.NDArray[np.object_]) -> list[str]:
    """List the distinct values of a column in natural sort order (5-14 before 15-29)."""

    def numbers_by_size(value: str) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"([0-9]+)", value)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], value

    return sorted(set(column), key=numbers_by_size)


def members(column: npt.NDArray[np.object_], values: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether each image has each value: (images, values)."""
    return column[:, None] == np.array(values, dtype=object)[None, :]


def accuracy_by_cell(
    probabilities: FloatArray,
    labels: IntArray,
    cells: npt.NDArray[np.bool_],
    weights: FloatArray | None = None,
) -> FloatArray:
    """Compute the accuracy of every cell (such as a group), over all attributes and per attribute.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes).
        cells: Whether each image belongs to each cell, (images, cells).
        weights: (..., images).

    Returns:
        (..., cells, 1 + attributes), all attributes first; NaN where a cell has no known label.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    correct = _with_total(correct_predictions(probabilities, labels))
    known = _with_total(labels != IGNORE_INDEX)
    scores = np.empty((*weights.shape[:-1], cells.shape[1], known.shape[1]))
    for c, cell in enumerate(cells.T):
        of_cell = weights[..., cell]
        scores[..., c, :] = ratio(of_cell @ correct[cell], of_cell @ known[cell])
    return scores


def images_by_cell(labels: IntArray, cells: npt.NDArray[np.bool_]) -> IntArray:
    """Count images with a known label, of any and of each attribute: (cells, 1 + attributes)."""
    return cells.T.astype(int) @ (_with_total(labels != IGNORE_INDEX) > 0)


def _with_total(per_attribute: npt.NDArray[np.bool_]) -> FloatArray:
    total = per_attribute.sum(axis=1, keepdims=True)
    return np.concatenate([total, per_attribute], axis=1, dtype=np.float64)


def extremes(accuracy: FloatArray, num_images: IntArray) -> tuple[int, int] | None:
    """Find the worst and best group with at least 30 images; None if there are fewer than two."""
    counted = np.flatnonzero((num_images >= MINIMUM_IMAGES) & np.isfinite(accuracy))
    if len(counted) < 2:
        return None
    # Ties go to the first for worst and the last for best, so that the two always differ.
    backwards = counted[::-1]
    return int(counted[accuracy[counted].argmin()]), int(backwards[accuracy[backwards].argmax()])


def gap_entries(
    accuracy: FloatArray, num_images: IntArray, values: Sequence[str], draws: FloatArray
) -> dict[str, Any]:
    """Measure the gap between the worst and the best group, and the expected gap under the null.

    Args:
        accuracy: (groups,), 0 to 1.
        num_images: Images with a known label, (groups,); groups with fewer than 30 are not
            compared.
        values: Names of the groups.
        draws: Bootstrapped accuracy, (resamples, groups).

    Returns:
        `worst_group`, `best_group`, `gap`, its 95 % `gap_interval`, `expected_gap_under_null` and
        `p_value` of the Wald test; all None if fewer than two groups can be compared.
    """
    pair = extremes(accuracy, num_images)
    if pair is None:
        keys = ("worst_group", "best_group", "gap", "gap_interval")
        return dict.fromkeys((*keys, "expected_gap_under_null", "p_value"))
    worst, best = pair
    compared = num_images >= MINIMUM_IMAGES
    gap = accuracy[best] - accuracy[worst]
    return {
        "worst_group": values[worst],
        "best_group": values[best],
        "gap": float(gap),
        "gap_interval": interval_of(draws[:, best] - draws[:, worst], gap).tolist(),
        "expected_gap_under_null": expected_gap_under_null(draws[:, compared]),
        "p_value": wald_p_value(draws[:, compared], accuracy[compared]),
    }


def _rates_by_group(
    probabilities: FloatArray, labels: IntArray, cells: npt.NDArray[np.bool_], values: Sequence[str]
) -> list[dict[str, Any]]:
    """Compute rates by group, and the parity and odds differences, per attribute."""
    predicted, groups = probabilities > THRESHOLD, cells.T.astype(int)
    present, absent = labels == 1, labels == 0
    images = groups @ (present | absent)  # (groups, attributes), as all below
    rates = {"selection_rate": ratio(groups @ (predicted & (present | absent)), images)}
    for name, side in (("true_positive_rate", present), ("false_positive_rate", absent)):
        number = groups @ side
        rate = ratio(groups @ (predicted & side), number)
        rates[name] = np.where(number >= MINIMUM_IMAGES, rate, np.nan)
    spread = {}
    for name, rate in rates.items():
        compared = np.where((images >= MINIMUM_IMAGES) & np.isfinite(rate), rate, np.nan)
        enough = np.isfinite(compared).sum(axis=0) > 1
        least, most = (f.reduce(compared, initial=np.nan) for f in (np.fmin, np.fmax))
        spread[name] = np.where(enough, most - least, np.nan)
    odds = np.maximum(spread["true_positive_rate"], spread["false_positive_rate"])
    table = {"num_images": images, "num_present": groups @ present, **rates}
    return [
        {
            **{
                name: {v: array[g, a].item() for g, v in enumerate(values) if images[g, a]}
                for name, array in table.items()
            },
            "demographic_parity_difference": float(spread["selection_rate"][a]),
            "equalized_odds_difference": float(odds[a]),
        }
        for a in range(labels.shape[1])
    ]


def age_bands(ages: Sequence[int | None]) -> Column:
    """Assign each age in years to a band: 0-4, 5-14, 15-29, 30-44, 45-59, 60+; else None."""
    return _name_bands(ages, AGE_BANDS)


def shared_age_bands(ages: Sequence[int | None], groups: Column) -> Column:
    """Merge neighbouring age bands until every compared group has at least 10 images in each.

    Of all such merges, the one with most bands is chosen, among those with an edge at age 15 if
    there are any, because the attributes of children differ most. Groups with fewer than 30 images
    are not compared and do not influence the bands.

    Args:
        ages: In years; None or NaN where unknown.
        groups: One group per image.

    Returns:
        One band per image; None where the age is unknown or negative.
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
    for number in range(1, len(inner) + 1):
        for picked in combinations(inner, number):
            edges = (youngest, *picked)
            spans = pairwise((*edges, np.inf))
            sizes = [compared[(years >= a) & (years < b)].sum(0) for a, b in spans]
            if np.min(sizes, initial=MINIMUM_CELL) >= MINIMUM_CELL:
                chosen = max(chosen, edges, key=lambda e: (CHILDREN_BELOW in e, len(e)))
    return _name_bands(ages, chosen)


def _name_bands(ages: Sequence[int | None], edges: Sequence[int]) -> Column:
    names = [*(f"{a}-{b - 1}" for a, b in pairwise(edges)), f"{edges[-1]}+"]

    def band(age: int | None) -> str | None:
        if age is None or not age >= edges[0]:  # not `age < edges[0]`, which is false for NaN
            return None
        return names[int(np.searchsorted(edges, age, side="right")) - 1]

    return [band(age) for age in ages]


def standardised_scores(
    probabilities: FloatArray,
    labels: IntArray,
    groups: Column,
    strata: Column,
    names: Sequence[str],
    clusters: IntArray,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Score every group by direct standardisation over strata, such as age bands.

    A group's adjusted accuracy is the mean of its accuracies per stratum, weighted by each
    stratum's share of all compared images. Groups with fewer than 30 images are not compared, and
    strata in which a compared group has fewer than 10 images are left out.

    Args:
        groups: One group per image, or None.
        strata: One stratum per image, or None. The other arguments are those of `group_scores`.

    Returns:
        `overall` and `per_attribute`, each with `per_group` (adjusted `accuracy`, its 95 %
        `interval`, and `num_images` by stratum), `strata` (share by stratum), `strata_left_out`,
        and the entries of `gap_entries`. If fewer than two groups share a stratum, `overall` is
        None and the attribute is left out.
    """
    known = np.array([g is not None and s is not None for g, s in zip(groups, strata, strict=True)])
    known = known & (labels != IGNORE_INDEX).any(axis=1)
    if not known.any():
        return {"overall": None, "per_attribute": {}}
    group_column = np.array(groups, dtype=object)[known]
    band_column = np.array(strata, dtype=object)[known]
    probabilities, labels = probabilities[known], labels[known]
    clusters = np.unique(clusters[known], return_inverse=True)[1]
    values, bands = in_order(group_column), in_order(band_column)
    by_group, by_band = members(group_column, values), members(band_column, bands)
    cells = (by_group[:, :, None] & by_band[:, None, :]).reshape(len(labels), -1)
    shape = (len(values), len(bands), -1)  # groups, strata, 1 + attributes
    counts = images_by_cell(labels, cells).reshape(shape)
    compared = counts.sum(axis=1) >= MINIMUM_IMAGES  # (groups, 1 + attributes)
    enough = (counts >= MINIMUM_CELL) | ~compared[:, None]
    pooled = np.where(compared[:, None], counts, 0).sum(axis=0) * enough.all(axis=0)
    shares = np.nan_to_num(ratio(pooled, pooled.sum(axis=0)))  # (strata, 1 + attributes)

    def adjusted(weights: FloatArray | None = None) -> FloatArray:
        cell = accuracy_by_cell(probabilities, labels, cells, weights)
        cell = cell.reshape(*cell.shape[:-2], *shape)
        return np.where(shares > 0, cell * shares, 0).sum(axis=-2)  # (..., groups, 1 + attributes)

    accuracy = adjusted()
    draws = bootstrap_draws(lambda weights: {"accuracy": adjusted(weights)}, clusters, resamples)
    intervals = np.clip(interval_of(draws["accuracy"], accuracy), 0, 1)

    def entry(a: int) -> dict[str, Any] | None:
        members_compared = np.flatnonzero(compared[:, a])
        kept = [b for b in range(len(bands)) if shares[b, a] > 0]
        if len(members_compared) < 2 or not kept:
            return None
        named = [values[g] for g in members_compared]
        sizes = counts[members_compared, :, a].sum(axis=1)
        draws_of = draws["accuracy"][:, members_compared, a]
        return {
            "per_group": {
                values[g]: {
                    "accuracy": float(accuracy[g, a]),
                    "interval": intervals[:, g, a].tolist(),
                    "num_images": {bands[b]: int(counts[g, b, a]) for b in kept},
                }
                for g in members_compared
            },
            "strata": {bands[b]: float(shares[b, a]) for b in kept},
            "strata_left_out": [bands[b] for b in range(len(bands)) if b not in kept],
            **gap_entries(accuracy[members_compared, a], sizes, named, draws_of),
        }

    entries = {name: entry(a) for a, name in enumerate(names, start=1)}
    return {
        "overall": entry(_OVERALL),
        "per_attribute": {name: scores for name, scores in entries.items() if scores},
    }
