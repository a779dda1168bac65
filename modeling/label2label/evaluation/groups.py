"""Score groups: accuracy, gaps, parity and odds differences, and direct standardisation by age."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.evaluation.intervals import (
    bootstrap_draws,
    compare_paired,
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
from label2label.evaluation.predictions import Column, Predictions

MINIMUM_IMAGES = 30  # per group that is compared
MINIMUM_CELL = 10  # per compared group and stratum
AGE_BANDS = (0, 5, 15, 30, 45, 60)
CHILDREN_BELOW = 15

_OVERALL = 0  # index of all attributes pooled; the attributes follow


def with_intersection(groups: Mapping[str, Column]) -> dict[str, Column]:
    """Add the intersection of all group columns, named "a x b", if there are two or more.

    Its values are such as "White, Male"; None where any column is unknown.
    """
    columns = dict(groups)
    if len(columns) > 1:
        columns[" x ".join(columns)] = [
            None if None in row else ", ".join(map(str, row))
            for row in zip(*groups.values(), strict=True)
        ]
    return columns


def group_scores(predictions: Predictions, groups: Column, resamples: int = 1000) -> dict[str, Any]:
    """Score every group, overall and per attribute, and the gaps between groups.

    Groups with fewer than 30 images are reported as `small` and excluded from the worst and best
    group and from all gaps; likewise per attribute, by images with a known label. True and false
    positive rates from fewer than 30 images are NaN. Images without any known label do not count.

    Args:
        predictions: Predictions of one model.
        groups: One group per image; images without a group are left out and counted.
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
    known, (values,), (cells,) = _by_value(predictions, groups)
    num_unknown = len(groups) - len(known.labels)
    if not values:
        no_gap = gap_entries(np.empty(0), np.empty(0, int), [], np.empty((0, 0)))
        return {"per_group": {}, **no_gap, "num_unknown": num_unknown, "per_attribute": {}}
    accuracy_of = _accuracy_by_cell(known, cells)
    accuracy, images = accuracy_of(None), images_by_cell(known.labels, cells)
    draws = bootstrap_draws(lambda w: {"accuracy": accuracy_of(w)}, known.clusters, resamples)
    draws_of = draws["accuracy"]  # (resamples, groups, 1 + attributes)
    intervals = np.clip(interval_of(draws_of, accuracy), 0, 1).swapaxes(0, 1)  # by group
    rates = _rates_by_group(known, cells)

    def by_group(of_groups: FloatArray, a: int) -> dict[str, Any]:
        return {v: of_groups[g].tolist() for g, v in enumerate(values) if images[g, a]}

    def gap(a: int) -> dict[str, Any]:
        return gap_entries(accuracy[:, a], images[:, a], values, draws_of[..., a])

    return {
        "per_group": {
            value: {
                "accuracy": accuracy[g, _OVERALL],
                "interval": intervals[g, :, _OVERALL],
                "num_images": images[g, _OVERALL],
                "small": bool(images[g, _OVERALL] < MINIMUM_IMAGES),
            }
            for g, value in enumerate(values)
        },
        **gap(_OVERALL),
        "num_unknown": num_unknown,
        "per_attribute": {
            name: {
                "accuracy": by_group(accuracy[..., a], a),
                "interval": by_group(intervals[..., a], a),
                **{rate: by_group(array[:, a - 1], a) for rate, array in rates[0].items()},
                **{name: array[a - 1] for name, array in rates[1].items()},
                **gap(a),
            }
            for a, name in enumerate(predictions.names, start=1)
            if images[:, a].any()
        },
    }


def _by_value(
    predictions: Predictions, *columns: Column
) -> tuple[Predictions, list[list[str]], list[npt.NDArray[np.bool_]]]:
    """Select the images with a value in all columns.

    Returns:
        Their predictions, and for each column its values in order, and whether each image has each
        value, (images, values).
    """
    arrays = [np.array(column, dtype=object) for column in columns]
    known = np.all([[value is not None for value in array] for array in arrays], axis=0)
    arrays = [array[known] for array in arrays]
    values = [in_order(array) for array in arrays]
    cells = [a[:, None] == np.array(v, dtype=object) for a, v in zip(arrays, values, strict=True)]
    return predictions.select(known), values, cells


def in_order(column: npt.NDArray[np.object_]) -> list[str]:
    """List the distinct values of a column in natural sort order (5-14 before 15-29)."""

    def numbers_by_size(value: str) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"([0-9]+)", value)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], value

    return sorted(set(column), key=numbers_by_size)


def _accuracy_by_cell(
    predictions: Predictions, cells: npt.NDArray[np.bool_]
) -> Callable[[FloatArray | None], FloatArray]:
    """Return the accuracy of every cell (such as a group) as a function of image weights.

    The function takes (..., images), or None for a weight of 1, and returns
    (..., cells, 1 + attributes), all attributes first; NaN where a cell has no known label.
    """
    correct = _with_total(correct_predictions(predictions.probabilities, predictions.labels))
    known = _with_total(predictions.labels != IGNORE_INDEX)

    def accuracy(weights: FloatArray | None) -> FloatArray:
        weights = np.ones(len(known)) if weights is None else weights
        scores = [
            ratio(weights[..., cell] @ correct[cell], weights[..., cell] @ known[cell])
            for cell in cells.T
        ]
        return np.stack(scores, axis=-2)

    return accuracy


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
    predictions: Predictions, cells: npt.NDArray[np.bool_]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute counts and rates (groups, attributes), and parity and odds differences (attributes,).

    Rates from fewer than 30 images are NaN.
    """
    predicted, groups = predictions.probabilities > THRESHOLD, cells.T.astype(int)
    present, absent = predictions.labels == 1, predictions.labels == 0
    images = groups @ (present | absent)
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
    return {"num_images": images, "num_present": groups @ present, **rates}, {
        "demographic_parity_difference": spread["selection_rate"],
        "equalized_odds_difference": odds,
    }


def age_bands(ages: Sequence[int | None], edges: Sequence[int] = AGE_BANDS) -> Column:
    """Assign each age in years to a band: 0-4, 5-14, 15-29, 30-44, 45-59, 60+; else None."""
    names = [*(f"{a}-{b - 1}" for a, b in pairwise(edges)), f"{edges[-1]}+"]

    def band(age: int | None) -> str | None:
        if age is None or not age >= edges[0]:  # not `age < edges[0]`, which is false for NaN
            return None
        return names[int(np.searchsorted(edges, age, side="right")) - 1]

    return [band(age) for age in ages]


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
    pairs = [
        (a, g)
        for a, g in zip(ages, groups, strict=True)
        if a is not None and a >= 0 and g is not None
    ]
    if not pairs:
        return [None] * len(ages)
    years = np.array([age for age, _ in pairs])
    column = np.array([group for _, group in pairs], dtype=object)
    compared = [of for g in set(column) if (of := column == g).sum() >= MINIMUM_IMAGES]
    youngest = AGE_BANDS[np.searchsorted(AGE_BANDS, years.min(), side="right") - 1]
    inner = [edge for edge in AGE_BANDS if edge > youngest]
    chosen: tuple[int, ...] = (youngest,)
    for number in range(1, len(inner) + 1):
        for picked in combinations(inner, number):
            edges = (youngest, *picked)
            spans = [(years >= a) & (years < b) for a, b in pairwise((*edges, np.inf))]
            if all((span & of).sum() >= MINIMUM_CELL for span in spans for of in compared):
                chosen = max(chosen, edges, key=lambda e: (CHILDREN_BELOW in e, len(e)))
    return age_bands(ages, chosen)


def standardised_scores(
    predictions: Predictions, groups: Column, strata: Column, resamples: int = 1000
) -> dict[str, Any]:
    """Score every group by direct standardisation over strata, such as age bands.

    A group's adjusted accuracy is the mean of its accuracies per stratum, weighted by each
    stratum's share of all compared images. Groups with fewer than 30 images are not compared, and
    strata in which a compared group has fewer than 10 images are left out.

    Args:
        predictions: Predictions of one model.
        groups, strata: One group and one stratum per image, or None.
        resamples: Number of bootstrap resamples.

    Returns:
        `overall` and `per_attribute`, each with `per_group` (adjusted `accuracy`, its 95 %
        `interval`, and `num_images` by stratum), `strata` (share by stratum), `strata_left_out`,
        and the entries of `gap_entries`. If fewer than two groups share a stratum, `overall` is
        None and the attribute is left out.
    """
    labelled = (predictions.labels != IGNORE_INDEX).any(axis=1)
    strata = [stratum if has else None for stratum, has in zip(strata, labelled, strict=True)]
    known, (values, bands), (by_group, by_band) = _by_value(predictions, groups, strata)
    if not values:
        return {"overall": None, "per_attribute": {}}
    cells = (by_group[:, :, None] & by_band[:, None, :]).reshape(len(known.labels), -1)
    shape = (len(values), len(bands), -1)  # groups, strata, 1 + attributes
    counts = images_by_cell(known.labels, cells).reshape(shape)
    compared = counts.sum(axis=1) >= MINIMUM_IMAGES  # (groups, 1 + attributes)
    enough = (counts >= MINIMUM_CELL) | ~compared[:, None]
    pooled = np.where(compared[:, None], counts, 0).sum(axis=0) * enough.all(axis=0)
    shares = np.nan_to_num(ratio(pooled, pooled.sum(axis=0)))  # (strata, 1 + attributes)
    accuracy_of = _accuracy_by_cell(known, cells)

    def adjusted(weights: FloatArray | None = None) -> FloatArray:
        cell = accuracy_of(weights)
        cell = cell.reshape(*cell.shape[:-2], *shape)
        return np.where(shares > 0, cell * shares, 0).sum(axis=-2)  # (..., groups, 1 + attributes)

    accuracy = adjusted()
    draws = bootstrap_draws(lambda w: {"accuracy": adjusted(w)}, known.clusters, resamples)
    intervals = np.clip(interval_of(draws["accuracy"], accuracy), 0, 1)

    def entry(a: int) -> dict[str, Any] | None:
        members = np.flatnonzero(compared[:, a])
        kept = [b for b in range(len(bands)) if shares[b, a] > 0]
        if len(members) < 2 or not kept:
            return None
        sizes, of_members = counts[members, :, a].sum(axis=1), draws["accuracy"][:, members, a]
        return {
            "per_group": {
                values[g]: {
                    "accuracy": accuracy[g, a],
                    "interval": intervals[:, g, a],
                    "num_images": {bands[b]: counts[g, b, a] for b in kept},
                }
                for g in members
            },
            "strata": {bands[b]: shares[b, a] for b in kept},
            "strata_left_out": [bands[b] for b in range(len(bands)) if b not in kept],
            **gap_entries(accuracy[members, a], sizes, [values[g] for g in members], of_members),
        }

    entries = {name: entry(a) for a, name in enumerate(predictions.names, start=1)}
    return {
        "overall": entry(_OVERALL),
        "per_attribute": {name: scores for name, scores in entries.items() if scores},
    }


def compare_groups(
    model: Predictions, other: Predictions, groups: Column, resamples: int = 1000
) -> dict[str, Any]:
    """Compare two models in every group by the paired bootstrap, as `compare_paired`.

    Args:
        model, other: Predictions of the same images and attributes.
        groups: One group per image, or None.
        resamples: Number of bootstrap resamples.

    Returns:
        `per_group`, comparisons of accuracy that also have `num_images` with a known label and
        `small`; and `gap`, in which each model has its own worst and best group.
    """
    known, (values,), (cells,) = _by_value(model, groups)
    if not values:
        return {"per_group": {}, "gap": None}
    images = images_by_cell(known.labels, cells)[:, _OVERALL]

    def scored(predictions: Predictions) -> Callable[[FloatArray], dict[str, FloatArray]]:
        accuracy_of = _accuracy_by_cell(predictions, cells)
        pair = extremes(accuracy_of(None)[:, _OVERALL], images)

        def scores(weights: FloatArray) -> dict[str, FloatArray]:
            accuracy = accuracy_of(weights)[..., _OVERALL]
            gap = {} if pair is None else {"gap": accuracy[..., pair[1]] - accuracy[..., pair[0]]}
            return {"accuracy": accuracy, **gap}

        return scores

    others, *_ = _by_value(other, groups)
    compared = compare_paired(scored(known), scored(others), known.clusters, resamples)
    return {
        "per_group": {
            value: {name: of_groups[..., g] for name, of_groups in compared["accuracy"].items()}
            | {"num_images": images[g], "small": bool(images[g] < MINIMUM_IMAGES)}
            for g, value in enumerate(values)
        },
        "gap": compared.get("gap"),
    }
