"""Bootstrap intervals and tests, resampling people if they are known, else images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2

from label2label.evaluation.metrics import FloatArray, IntArray, mean_accuracy, ratio

Statistics = Callable[[FloatArray], Mapping[str, FloatArray]]
"""Takes image weights (resamples, images), returns name to values (resamples, ...)."""

LEVEL = 0.95
# Weights are drawn for so many (resample, image) pairs at a time: memory stays under 100 MB.
_PAIRS_AT_A_TIME = 2_000_000


def clusters_of(identities: Sequence[str | None]) -> IntArray:
    """Number the people on images from 0; an unknown one (None) counts as a person of its own."""
    names = [
        f"image {i}" if name is None else f"person {name}" for i, name in enumerate(identities)
    ]
    return np.unique(names, return_inverse=True)[1]


def bootstrap_draws(
    statistics: Statistics, clusters: IntArray, resamples: int = 1000, seed: int = 0
) -> dict[str, FloatArray]:
    """Compute statistics of weighted images in resamples of the clusters.

    Args:
        statistics: of image weights (resamples, images).
        clusters: (images,), integers from 0 as `clusters_of` returns them.
        resamples: how many times to draw the clusters with replacement.
        seed: of the draws; the same seed draws the same images for any model.

    Returns:
        Name to (resamples, ...) values, NaN where the statistic is undefined.
    """
    draws: dict[str, list[FloatArray]] = {}
    for weights in _resampled_weights(clusters, resamples, seed):
        for name, values in statistics(weights).items():
            draws.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in draws.items()}


def bootstrap_intervals(
    statistics: Statistics, clusters: IntArray, resamples: int = 1000, seed: int = 0
) -> dict[str, FloatArray]:
    """Take 95 % intervals, as `interval_of`, of statistics drawn as by `bootstrap_draws`."""
    draws = bootstrap_draws(statistics, clusters, resamples, seed)
    estimates = statistics(np.ones((1, len(clusters))))
    return {name: interval_of(values, estimates[name][0]) for name, values in draws.items()}


def interval_of(draws: FloatArray, estimate: FloatArray) -> FloatArray:
    """Take the 95 % percentile interval of resampled values, centred on the estimate.

    It may leave the statistic's range: clip those of accuracies.

    Args:
        draws: (resamples, ...), NaN where the statistic is undefined.
        estimate: (...), the statistic of the images themselves.

    Returns:
        (2, ...), lower and upper end, NaN where the statistic is undefined throughout.
    """
    undefined = np.isnan(draws).all(axis=0)
    centred = np.where(undefined, 0.0, _centred(draws, estimate))
    tail = (1 - LEVEL) / 2 * 100
    quantile = np.nanpercentile if np.isnan(centred).any() else np.percentile
    return np.where(undefined, np.nan, quantile(centred, [tail, 100 - tail], axis=0))


def p_values(draws: FloatArray, estimate: FloatArray) -> FloatArray:
    """Test by the bootstrap whether a difference is zero, two-sided.

    The draws are centred on the estimate, as for `interval_of`: the two do not contradict each
    other.

    Args:
        draws: (resamples, ...) of the difference, NaN where it is undefined.
        estimate: (...), the difference on the images themselves.

    Returns:
        (...): twice the share of resamples on the lesser side of zero, at least 1 / resamples and
        at most 1. Undefined resamples do not count; NaN where all are.
    """
    draws = _centred(draws, estimate)
    lesser_side = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    defined = (~np.isnan(draws)).sum(axis=0)
    return np.minimum(ratio(np.maximum(2 * lesser_side, 1), defined), 1.0)


def expected_gap_under_null(draws: FloatArray) -> float:
    """Estimate the gap expected under the null that all groups are equally accurate.

    The gap between the best and the worst group is biased upwards by sampling noise, most for small
    groups.

    Args:
        draws: (resamples, groups), resampled accuracy of the groups that are compared.

    Returns:
        Mean over resamples of the range of the groups' deviations from their means, 0 to 1; NaN
        where there are fewer than two groups, or no resample has all of them.
    """
    whole = draws[np.isfinite(draws).all(axis=1)]
    if whole.shape[1] < 2 or not len(whole):
        return float("nan")
    return float(np.ptp(whole - whole.mean(axis=0), axis=1).mean())


def wald_p_value(draws: FloatArray, estimate: FloatArray) -> float:
    """Test whether all groups are equally accurate, by a Wald test with bootstrap covariance.

    Unlike the gap between the two extreme groups, the test weights each group by its precision, so
    that a small group does not hide a difference between large ones.

    Args:
        draws: (resamples, groups), resampled accuracy of the groups that are compared.
        estimate: (groups,), their accuracy.

    Returns:
        The p-value, 0 to 1; NaN where there are fewer than two groups, or no more resamples that
        have all of them than groups.
    """
    whole = draws[np.isfinite(draws).all(axis=1)]
    groups = len(estimate)
    if groups < 2 or len(whole) <= groups:
        return float("nan")
    covariance = np.cov(whole[:, 1:] - whole[:, :1], rowvar=False).reshape(groups - 1, -1)
    # Groups without errors have no variance.
    covariance += 1e-12 * np.eye(groups - 1)
    difference = estimate[1:] - estimate[0]
    return float(chi2.sf(difference @ np.linalg.solve(covariance, difference), groups - 1))


def compare_paired(
    first: Statistics, second: Statistics, clusters: IntArray, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compare the statistics of two models on the same images by the paired bootstrap.

    Args:
        first, second: statistics of the two.
        clusters, resamples, seed: as for `bootstrap_draws`.

    Returns:
        By name: `model` and `other` (the two values), `difference` (first minus second), its 95 %
        `interval`, and its `p_value`.
    """

    def differences(weights: FloatArray) -> dict[str, FloatArray]:
        mine, others = first(weights), second(weights)
        return {name: mine[name] - others[name] for name in mine}

    once = np.ones((1, len(clusters)))
    mine, others, estimates = first(once), second(once), differences(once)
    return {
        name: {
            "model": mine[name][0],
            "other": others[name][0],
            "difference": estimates[name][0],
            "interval": interval_of(values, estimates[name][0]),
            "p_value": p_values(values, estimates[name][0]),
        }
        for name, values in bootstrap_draws(differences, clusters, resamples, seed).items()
    }


def paired_comparison(
    probabilities: FloatArray,
    other_probabilities: FloatArray,
    labels: IntArray,
    clusters: IntArray,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the mean accuracy of two models on the same labelled images.

    Returns:
        `difference` (first minus second), its 95 % `interval`, and its `p_value`, as
        `compare_paired`; NaN where no label is known.

    Raises:
        ValueError: if the two models were not scored on the same images and attributes.
    """
    if not probabilities.shape == other_probabilities.shape == labels.shape:
        raise ValueError(
            f"predictions of shape {probabilities.shape} and {other_probabilities.shape} cannot be "
            f"paired over labels of shape {labels.shape}"
        )
    compared = compare_paired(
        lambda weights: {"accuracy": mean_accuracy(probabilities, labels, weights)},
        lambda weights: {"accuracy": mean_accuracy(other_probabilities, labels, weights)},
        *(clusters, resamples, seed),
    )["accuracy"]
    return {
        "difference": float(compared["difference"]),
        "interval": compared["interval"].tolist(),
        "p_value": float(compared["p_value"]),
    }


def _centred(draws: FloatArray, estimate: FloatArray) -> FloatArray:
    """Move draws so that their mean is the estimate: binned calibration error grows by resampling.

    Of accuracies, whose draws are centred already, this changes nothing that is printed.
    """
    drawn = np.isfinite(draws)
    mean = ratio(np.where(drawn, draws, 0.0).sum(axis=0), drawn.sum(axis=0))
    return draws - mean + estimate


def _resampled_weights(clusters: IntArray, resamples: int, seed: int) -> Iterator[FloatArray]:
    generator = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    at_a_time = max(1, _PAIRS_AT_A_TIME // len(clusters))
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        # Counting draws takes a tenth of the time of numpy's multinomial.
        drawn = generator.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield weights[:, clusters].astype(np.float64)
