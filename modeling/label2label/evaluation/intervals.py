"""Compute bootstrap confidence intervals and tests; resample people if known, else images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2

from label2label.evaluation.metrics import FloatArray, IntArray, mean_accuracy, ratio

Statistics = Callable[[FloatArray], Mapping[str, FloatArray]]
"""Takes image weights (resamples, images), returns name to values (resamples, ...)."""

LEVEL = 0.95
# Number of (resample, image) weights drawn at once, which keeps memory under 100 MB.
_PAIRS_AT_A_TIME = 2_000_000


def clusters_of(identities: Sequence[str | None]) -> IntArray:
    """Number the people from 0; every image of an unknown person (None) is its own cluster."""
    names = [
        f"image {i}" if name is None else f"person {name}" for i, name in enumerate(identities)
    ]
    return np.unique(names, return_inverse=True)[1]


def bootstrap_draws(
    statistics: Statistics, clusters: IntArray, resamples: int = 1000
) -> dict[str, FloatArray]:
    """Compute statistics in bootstrap resamples of the clusters: (resamples, ...) by name.

    The same images are drawn for every model. `clusters` come from `clusters_of`.
    """
    draws: dict[str, list[FloatArray]] = {}
    for weights in _resampled_weights(clusters, resamples):
        for name, values in statistics(weights).items():
            draws.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in draws.items()}


def bootstrap_intervals(
    statistics: Statistics, clusters: IntArray, resamples: int = 1000
) -> dict[str, FloatArray]:
    """Compute 95 % bootstrap intervals of statistics: (2, ...) by name, as `interval_of`."""
    draws = bootstrap_draws(statistics, clusters, resamples)
    estimates = statistics(np.ones((1, len(clusters))))
    return {name: interval_of(values, estimates[name][0]) for name, values in draws.items()}


def interval_of(draws: FloatArray, estimate: FloatArray) -> FloatArray:
    """Compute the 95 % percentile interval of bootstrap draws, centred on the estimate: (2, ...).

    It may exceed the statistic's range: clip intervals of accuracies. It is NaN where all draws,
    (resamples, ...), are.
    """
    undefined = np.isnan(draws).all(axis=0)
    centred = np.where(undefined, 0.0, _centred(draws, estimate))
    tail = (1 - LEVEL) / 2 * 100
    quantile = np.nanpercentile if np.isnan(centred).any() else np.percentile
    return np.where(undefined, np.nan, quantile(centred, [tail, 100 - tail], axis=0))


def p_values(draws: FloatArray, estimate: FloatArray) -> FloatArray:
    """Compute two-sided bootstrap p-values for a difference of zero.

    The draws, (resamples, ...), are centred on the estimate, as in `interval_of`, so that p-value
    and interval agree. The value is twice the share of defined resamples on the rarer side of zero,
    from 1 / resamples to 1; NaN where all are undefined.
    """
    draws = _centred(draws, estimate)
    lesser_side = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    defined = (~np.isnan(draws)).sum(axis=0)
    return np.minimum(ratio(np.maximum(2 * lesser_side, 1), defined), 1.0)


def expected_gap_under_null(draws: FloatArray) -> float:
    """Estimate the expected gap under the null hypothesis that all groups are equally accurate.

    Sampling noise biases the gap between the best and the worst group upwards, most of all for
    small groups. The estimate is the mean over resamples of the range of the groups' deviations
    from their means; NaN if there are fewer than two groups, or no resample contains all of them.

    Args:
        draws: Bootstrapped accuracy of the compared groups, (resamples, groups).
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
        draws: Bootstrapped accuracy of the compared groups, (resamples, groups).
        estimate: Their accuracy without resampling, (groups,).

    Returns:
        The p-value, 0 to 1; NaN if there are fewer than two groups, or if the resamples that
        contain all groups do not outnumber the groups.
    """
    whole = draws[np.isfinite(draws).all(axis=1)]
    groups = len(estimate)
    if groups < 2 or len(whole) <= groups:
        return float("nan")
    covariance = np.cov(whole[:, 1:] - whole[:, :1], rowvar=False).reshape(groups - 1, -1)
    # The covariance is singular if groups without errors have no variance.
    covariance += 1e-12 * np.eye(groups - 1)
    difference = estimate[1:] - estimate[0]
    return float(chi2.sf(difference @ np.linalg.solve(covariance, difference), groups - 1))


def compare_paired(
    first: Statistics, second: Statistics, clusters: IntArray, resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """Compare two models on the same images by the paired bootstrap.

    Returns:
        By name: `model` and `other` (the two values), `difference` (first minus second), its 95 %
        `interval`, and its `p_value`.
    """

    def differences(weights: FloatArray) -> dict[str, FloatArray]:
        mine, others = first(weights), second(weights)
        return {name: mine[name] - others[name] for name in mine}

    once = np.ones((1, len(clusters)))
    mine, others = first(once), second(once)
    compared = {}
    for name, draws in bootstrap_draws(differences, clusters, resamples).items():
        model, other = mine[name][0], others[name][0]
        compared[name] = {
            **{"model": model, "other": other, "difference": model - other},
            "interval": interval_of(draws, model - other),
            "p_value": p_values(draws, model - other),
        }
    return compared


def paired_comparison(
    probabilities: FloatArray,
    other_probabilities: FloatArray,
    labels: IntArray,
    clusters: IntArray,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Compare the mean accuracy of two predictions of the same labelled images.

    Returns:
        `difference` (first minus second), its 95 % `interval`, and its `p_value`, as in
        `compare_paired`; NaN if no label is known.
    """
    compared = compare_paired(
        lambda weights: {"accuracy": mean_accuracy(probabilities, labels, weights)},
        lambda weights: {"accuracy": mean_accuracy(other_probabilities, labels, weights)},
        *(clusters, resamples),
    )["accuracy"]
    return {name: compared[name].tolist() for name in ("difference", "interval", "p_value")}


def _centred(draws: FloatArray, estimate: FloatArray) -> FloatArray:
    """Shift draws so that their mean equals the estimate.

    Resampling increases the binned calibration error. Draws of accuracies are centred already and
    hardly change.
    """
    drawn = np.isfinite(draws)
    mean = ratio(np.where(drawn, draws, 0.0).sum(axis=0), drawn.sum(axis=0))
    return draws - mean + estimate


def _resampled_weights(clusters: IntArray, resamples: int) -> Iterator[FloatArray]:
    generator = np.random.default_rng(0)
    count = int(clusters.max()) + 1
    at_a_time = max(1, _PAIRS_AT_A_TIME // len(clusters))
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        # Counting draws is ten times as fast as numpy's multinomial.
        drawn = generator.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield weights[:, clusters].astype(np.float64)
