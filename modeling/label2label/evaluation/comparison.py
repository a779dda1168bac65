"""Two models on the same images: differences overall, per attribute and by group, paired."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.bootstrap import bootstrap_draws, clusters_of, interval_of, p_values
from label2label.evaluation.groups import accuracy_by_group, extremes
from label2label.evaluation.metrics import (
    FloatArray,
    IntArray,
    accuracy_per_attribute,
    overall_scores,
)
from label2label.evaluation.scores import Predictions, jsonable, with_intersection
from label2label.evaluation.stratification import (
    MINIMUM_IMAGES,
    accuracy_by_cell,
    in_order,
    members,
)

Scores = Callable[[FloatArray], dict[str, FloatArray]]


def compare_predictions(
    model: Predictions, other: Predictions, resamples: int = 1000
) -> dict[str, Any]:
    """Differences (model minus other) with 95 % intervals, by the paired bootstrap.

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
    first, second = _select(model, names), _select(other, names)
    if first[1].shape != second[1].shape or (first[1] != second[1]).any():
        raise UserError(
            f"predictions of {len(first[1])} and {len(second[1])} images cannot be paired: they "
            "must be of the same images, in the same order, with the same labels"
        )
    labels = first[1]
    if (labels == IGNORE_INDEX).all():
        raise UserError(
            f"no attribute that the two models share has a known label ({', '.join(names)}): there "
            "is nothing to compare"
        )
    clusters = clusters_of(model.identities or [None] * len(labels))
    return jsonable(
        {
            **_compare_overall(first[0], second[0], labels, names, clusters, resamples),
            "groups": {
                column: _compare_groups(
                    first[0], second[0], labels, groups, names, clusters, resamples
                )
                for column, groups in with_intersection(model.groups).items()
            },
            "attributes_left_out": left_out,
        }
    )


def _select(predictions: Predictions, names: Sequence[str]) -> tuple[FloatArray, IntArray]:
    columns = [list(predictions.names).index(name) for name in names]
    return predictions.probabilities[:, columns], predictions.labels[:, columns]


def _compare_overall(
    first: FloatArray,
    second: FloatArray,
    labels: IntArray,
    names: Sequence[str],
    clusters: IntArray,
    resamples: int,
) -> dict[str, Any]:
    def scored(probabilities: FloatArray) -> Scores:
        return lambda weights: (
            overall_scores(probabilities, labels, weights)
            | {"per_attribute": accuracy_per_attribute(probabilities, labels, weights)}
        )

    compared = _paired(scored(first), scored(second), clusters, resamples)
    per_attribute = compared.pop("per_attribute")
    return {
        "overall": {name: _entry(values) for name, values in compared.items()},
        "per_attribute": {
            name: _entry(per_attribute, a)
            for a, name in enumerate(names)
            if (labels[:, a] != IGNORE_INDEX).any()
        },
    }


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
    labelled = (labels != IGNORE_INDEX).any(axis=1)
    sizes = cells[labelled].sum(0)
    images = cells.T.astype(int) @ (labels != IGNORE_INDEX)

    def scored(probabilities: FloatArray) -> Scores:
        # Each model's own worst and best group, as in its own gap.
        pair = extremes(accuracy_by_cell(probabilities, labels, cells), sizes)

        def scores(weights: FloatArray) -> dict[str, FloatArray]:
            overall = accuracy_by_cell(probabilities, labels, cells, weights)
            each = accuracy_by_group(probabilities, labels, cells, weights)
            gap = {} if pair is None else {"gap": overall[..., pair[1]] - overall[..., pair[0]]}
            return {"overall": overall, "each": each, **gap}

        return scores

    compared = _paired(scored(first), scored(second), clusters, resamples)

    def counted(count: int) -> dict[str, Any]:
        return {"num_images": int(count), "small": bool(count < MINIMUM_IMAGES)}

    return {
        "per_group": {
            value: _entry(compared["overall"], g) | counted(sizes[g])
            for g, value in enumerate(values)
        },
        "per_attribute": {
            name: {
                value: _entry(compared["each"], g, a) | counted(images[g, a])
                for g, value in enumerate(values)
                if images[g, a]
            }
            for a, name in enumerate(names)
            if images[:, a].any()
        },
        "gap": _entry(compared["gap"]) if "gap" in compared else None,
    }


def _paired(
    first: Scores, second: Scores, clusters: IntArray, resamples: int
) -> dict[str, dict[str, FloatArray]]:
    def differences(weights: FloatArray) -> dict[str, FloatArray]:
        mine, others = first(weights), second(weights)
        return {name: mine[name] - others[name] for name in mine}

    once = np.ones((1, len(clusters)))
    mine, others = first(once), second(once)
    estimates = {name: mine[name][0] - others[name][0] for name in mine}
    return {
        name: {
            "model": mine[name][0],
            "other": others[name][0],
            "difference": estimates[name],
            "interval": interval_of(draws, estimates[name]),
            "p_value": p_values(draws, estimates[name]),
        }
        for name, draws in bootstrap_draws(differences, clusters, resamples).items()
    }


def _entry(compared: Mapping[str, Any], *index: int) -> dict[str, Any]:
    ends = (slice(None), *index)
    return {
        name: values[ends if name == "interval" else index] for name, values in compared.items()
    }
