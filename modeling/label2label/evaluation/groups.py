"""Score groups: accuracy, gaps, parity and odds differences, and direct standardisation by age."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
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

_OVERALL = 0  # index of all attributes pooled; the attributes follow


def check_groups(column: str, values: Iterable[Any]) -> None:
    """Raise UserError if a group column has fewer than two values, None not counted."""
    known = {value for value in values if value is not None}
    if not known:
        raise UserError(f"the group column {column!r} is empty throughout: nothing to compare")
    if len(known) == 1:
        raise UserError(
            f"the group column {column!r} has one value, {known.pop()!r}: there is nothing to "
            "compare"
        )


def age_bands(ages: Iterable[float | None]) -> Column:
    """Assign each age in years to a band: 0-4, 5-14, 15-29, 30-44, 45-59, 60+; else None."""
    names = [*(f"{a}-{b - 1}" for a, b in pairwise(AGE_BANDS)), f"{AGE_BANDS[-1]}+"]

    def band(age: float | None) -> str | None:
        if age is None or not age >= 0:  # not `age < 0`, which is false for NaN
            return None
        return names[int(np.searchsorted(AGE_BANDS, age, side="right")) - 1]

    return [band(age) for age in ages]


def with_intersection(groups: Mapping[str, Column]) -> dict[str, Column]:
    """Add the intersection of all group columns, named "a x b", if there are two or more.

    Its values are such as "White, Male"; None where any column is unknown. It is left out if all
    are.
    """
    crossed = [
        None if None in row else ", ".join(map(str, row))
        for row in zip(*groups.values(), strict=True)
    ]
    if len(groups) < 2 or not any(crossed):
        return dict(groups)
    return {**groups, " x ".join(groups): crossed}


def cells_of(column: Column) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Return a column's values in natural sort order (5-14 before 15-29), and who has them.

    The second is (images, values).
    """

    def numbers_by_size(value: str) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"([0-9]+)", value)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], value

    values = sorted({value for value in column if value is not None}, key=numbers_by_size)
    return values, np.array(column, object)[:, None] == np.array(values, object)


def group_scores(predictions: Predictions, groups: Column, resamples: int = 1000) -> dict[str, Any]:
    """Score every group, overall and per attribute, and the gaps between groups.

    Groups with fewer than 30 images are reported as `small` and excluded from the worst and best
    group and from all gaps; likewise per attribute, by images with a known label. True and false
    positive rates from fewer than 30 images are NaN. Images without any known label do not count.

    Returns:
        Overall: `per_group` (`accuracy`, its 95 % `interval`, `num_images` with a known label,
        `small`), the entries of `gap_entries`, and `num_unknown`, the images without a group.
        `per_attribute`: by group, `accuracy`, its `interval`, `num_images` with a known label,
        `num_present`, `selection_rate` (share predicted present), `true_positive_rate` and
        `false_positive_rate`; and across groups, the entries of `gap_entries`,
        `demographic_parity_difference` and `equalized_odds_difference`. Differences are None or NaN
        if fewer than two groups can be compared.
    """
    values, cells = cells_of(groups)
    images = images_by_cell(predictions.labels, cells)
    accuracy_of = _accuracy_by_cell(predictions, cells)
    accuracy, intervals, draws = _with_intervals(accuracy_of, predictions.clusters, resamples)
    rates, differences = _rates_by_group(predictions, cells)

    def by_group(of_groups: FloatArray, a: int) -> dict[str, Any]:
        return {v: of_groups[g].tolist() for g, v in enumerate(values) if images[g, a]}

    def gap(a: int) -> dict[str, Any]:
        return gap_entries(accuracy[:, a], images[:, a], values, draws[..., a])

    return {
        "per_group": {
            value: {
                "accuracy": accuracy[g, _OVERALL],
                "interval": intervals[g, _OVERALL],
                "num_images": images[g, _OVERALL],
                "small": bool(images[g, _OVERALL] < MINIMUM_IMAGES),
            }
            for g, value in enumerate(values)
        },
        **gap(_OVERALL),
        "num_unknown": sum(group is None for group in groups),
        "per_attribute": {
            name: {
                "accuracy": by_group(accuracy[:, a], a),
                "interval": by_group(intervals[:, a], a),
                **{rate: by_group(of_groups[:, a - 1], a) for rate, of_groups in rates.items()},
                **{title: values[a - 1] for title, values in differences.items()},
                **gap(a),
            }
            for a, name in enumerate(predictions.names, start=1)
            if images[:, a].any()
        },
    }


def _accuracy_by_cell(
    predictions: Predictions, cells: npt.NDArray[np.bool_]
) -> Callable[[FloatArray], FloatArray]:
    """Return the accuracy of every cell (such as a group) as a function of image weights.

    The function takes (..., images) and returns (..., cells, 1 + attributes), all attributes first;
    NaN where a cell has no known label.
    """
    correct = _with_total(correct_predictions(predictions.probabilities, predictions.labels))
    known = _with_total(predictions.labels != IGNORE_INDEX)

    def accuracy(weights: FloatArray) -> FloatArray:
        scores = np.empty((*weights.shape[:-1], cells.shape[1], known.shape[1]))
        for c, cell in enumerate(cells.T):
            of_cell = weights[..., cell]
            scores[..., c, :] = ratio(of_cell @ correct[cell], of_cell @ known[cell])
        return scores

    return accuracy


def images_by_cell(labels: IntArray, cells: npt.NDArray[np.bool_]) -> IntArray:
    """Count images with a known label, of any and of each attribute: (cells, 1 + attributes)."""
    return cells.T.astype(int) @ (_with_total(labels != IGNORE_INDEX) > 0)


def _with_total(per_attribute: npt.NDArray[np.bool_]) -> FloatArray:
    total = per_attribute.sum(axis=1, keepdims=True)
    return np.concatenate([total, per_attribute], axis=1, dtype=np.float64)


def _with_intervals(
    accuracy_of: Callable[[FloatArray], FloatArray], clusters: IntArray, resamples: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return accuracies (...), their 95 % intervals (..., 2) and draws (resamples, ...)."""
    accuracy = accuracy_of(np.ones(len(clusters)))
    draws = bootstrap_draws(lambda weights: {"": accuracy_of(weights)}, clusters, resamples)[""]
    return accuracy, np.moveaxis(interval_of(draws, accuracy).clip(0, 1), 0, -1), draws


def extremes(accuracy: FloatArray, num_images: IntArray) -> tuple[int, int] | None:
    """Find the worst and best group with at least 30 images; None if there are fewer than two."""
    counted = np.flatnonzero((num_images >= MINIMUM_IMAGES) & np.isfinite(accuracy))
    if len(counted) < 2:
        return None
    # A stable sort: of equals the first is worst and the last best, so that the two differ.
    ranked = counted[np.argsort(accuracy[counted], kind="stable")]
    return int(ranked[0]), int(ranked[-1])


def gap_entries(
    accuracy: FloatArray, num_images: IntArray, values: Sequence[str], draws: FloatArray
) -> dict[str, Any]:
    """Measure the gap between the worst and the best group, and the expected gap under the null.

    Args:
        accuracy, num_images: (groups,); groups with fewer than 30 images are not compared.
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


def standardised_scores(
    predictions: Predictions, groups: Column, strata: Column, resamples: int = 1000
) -> dict[str, Any]:
    """Score every group by direct standardisation over strata, such as age bands.

    A group's adjusted accuracy is the mean of its accuracies per stratum, weighted by each
    stratum's share of all compared images. Groups with fewer than 30 images are not compared, and
    strata in which a compared group has fewer than 10 images are left out.

    Returns:
        `overall` and `per_attribute`, each with `per_group` (adjusted `accuracy`, its 95 %
        `interval`, and `num_images` by stratum), `strata` (share by stratum), `strata_left_out`,
        and the entries of `gap_entries`. If fewer than two groups share a stratum, `overall` is
        None and the attribute is left out.
    """
    values, by_group = cells_of(groups)
    bands, by_band = cells_of(strata)
    cells = (by_group[:, :, None] & by_band[:, None, :]).reshape(len(groups), -1)
    shape = (len(values), len(bands), 1 + len(predictions.names))
    counts = images_by_cell(predictions.labels, cells).reshape(shape)
    compared = counts.sum(axis=1) >= MINIMUM_IMAGES  # (groups, 1 + attributes)
    enough = (counts >= MINIMUM_CELL) | ~compared[:, None]
    pooled = np.where(compared[:, None], counts, 0).sum(axis=0) * enough.all(axis=0)
    shares = np.nan_to_num(ratio(pooled, pooled.sum(axis=0)))  # (strata, 1 + attributes)
    accuracy_of = _accuracy_by_cell(predictions, cells)

    def adjusted(weights: FloatArray) -> FloatArray:
        by_cell = accuracy_of(weights).reshape(*weights.shape[:-1], *shape)
        return np.where(shares > 0, by_cell * shares, 0).sum(axis=-2)

    # (..., groups, 1 + attributes)
    accuracy, intervals, draws = _with_intervals(adjusted, predictions.clusters, resamples)

    def entry(a: int) -> dict[str, Any] | None:
        members = np.flatnonzero(compared[:, a])
        kept = np.flatnonzero(shares[:, a])
        if len(members) < 2 or not len(kept):
            return None
        sizes = counts[members, :, a].sum(axis=1)
        names = [values[g] for g in members]
        return {
            "per_group": {
                values[g]: {
                    "accuracy": accuracy[g, a],
                    "interval": intervals[g, a],
                    "num_images": {bands[b]: counts[g, b, a] for b in kept},
                }
                for g in members
            },
            "strata": {bands[b]: shares[b, a] for b in kept},
            "strata_left_out": [band for b, band in enumerate(bands) if b not in kept],
            **gap_entries(accuracy[members, a], sizes, names, draws[:, members, a]),
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

    Returns:
        `per_group`, comparisons of accuracy that also have `num_images` with a known label and
        `small`; and `gap`, in which each model has its own worst and best group.
    """
    values, cells = cells_of(groups)
    images = images_by_cell(model.labels, cells)[:, _OVERALL]

    def scored(predictions: Predictions) -> Callable[[FloatArray], dict[str, FloatArray]]:
        accuracy_of = _accuracy_by_cell(predictions, cells)
        pair = extremes(accuracy_of(np.ones(len(groups)))[:, _OVERALL], images)

        def scores(weights: FloatArray) -> dict[str, FloatArray]:
            accuracy = accuracy_of(weights)[..., _OVERALL]
            gap = {} if pair is None else {"gap": accuracy[..., pair[1]] - accuracy[..., pair[0]]}
            return {"accuracy": accuracy, **gap}

        return scores

    compared = compare_paired(scored(model), scored(other), model.clusters, resamples)
    return {
        "per_group": {
            value: {name: of_groups[..., g] for name, of_groups in compared["accuracy"].items()}
            | {"num_images": images[g], "small": bool(images[g] < MINIMUM_IMAGES)}
            for g, value in enumerate(values)
        },
        "gap": compared.get("gap"),
    }
