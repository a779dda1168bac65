"""One temperature for the probabilities and one threshold for each attribute, from held-out images.

The temperature is the one of arXiv:1706.04599, section 4.2: the logits are divided by it, so that
the negative log-likelihood of held-out labels is least.

Thresholds come from decision theory rather than from a search for each attribute, which finds the
noise of a few hundred images: of calibrated probabilities p, the decision that maximises the
expected accuracy + w * balanced accuracy says yes from a threshold that follows from w and the
attribute's frequency alone. w = 0 gives 0.5, a large w gives the frequency. So one number is
fitted for all attributes, and cross-validation tells how large it may be before accuracy falls.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.evaluation.metrics import (
    FloatArray,
    IntArray,
    balanced_accuracy_per_attribute,
    f1_per_attribute,
    mean_accuracy,
    mean_of_defined,
    ratio,
)

BALANCE_WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
FOLDS = 5
REPEATS = 4
LOGIT_LIMIT = 30.0


@dataclass(frozen=True)
class Calibration:
    """What is fitted to held-out images.

    Args:
        temperature: what the logits are divided by, above 0.
        thresholds: (attributes,), probability in 0..1 from which each counts as present.
        balance_weight: of balanced accuracy beside accuracy, 0 or more.
        cross_validation: for every weight tried, `balance_weight`, `accuracy`,
            `balanced_accuracy` and `f1` on images that neither temperature nor thresholds saw.
    """

    temperature: float
    thresholds: FloatArray
    balance_weight: float
    cross_validation: list[dict[str, float]] = field(default_factory=list)


def fit_calibration(
    logits: FloatArray, labels: IntArray, clusters: IntArray, accuracy_loss: float = 0.0005
) -> Calibration:
    """Fit the temperature, and the thresholds of best balanced accuracy that cost no accuracy.

    Args:
        logits: (images, attributes), of temperature 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        clusters: (images,), who is on each image, as `clusters_of` returns them; one person's
            images share a fold.
        accuracy_loss: how far below that of thresholds of 0.5 the cross-validated mean accuracy
            may fall, 0 to 1.

    Returns:
        The calibration; its weight is the largest tried whose accuracy is within the loss.
    """
    table = _cross_validate(logits, labels, clusters)
    allowed = [
        row["balance_weight"]
        for row in table
        if row["accuracy"] >= table[0]["accuracy"] - accuracy_loss
    ]
    weight = max(allowed)
    return Calibration(
        temperature=fit_temperature(logits, labels),
        thresholds=balanced_thresholds(frequencies(labels), weight),
        balance_weight=weight,
        cross_validation=table,
    )


def fit_temperature(logits: FloatArray, labels: IntArray) -> float:
    """The temperature of the least negative log-likelihood (arXiv:1706.04599, section 4.2).

    Args:
        logits: (images, attributes), of temperature 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.

    Returns:
        A number from 0.05 to 20.
    """
    known = labels != IGNORE_INDEX
    values, present = logits[known], labels[known]

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - scaled * present).mean())

    bounds = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def balanced_thresholds(frequency: FloatArray, balance_weight: float) -> FloatArray:
    """Thresholds that maximise expected accuracy + weight * balanced accuracy.

    A yes is right with probability p and then adds 1 + w / (2 f) for an attribute of frequency f;
    a no adds 1 + w / (2 (1 - f)) with probability 1 - p. Yes pays from where the two are equal.

    Args:
        frequency: (attributes,), share of images that have each attribute, between 0 and 1.
        balance_weight: w, 0 or more.

    Returns:
        (attributes,), 0 to 1.
    """
    yes = 1 + balance_weight / (2 * frequency)
    no = 1 + balance_weight / (2 * (1 - frequency))
    return no / (yes + no)


def frequencies(labels: IntArray) -> FloatArray:
    """Share of images that have each attribute, by Laplace's rule of succession.

    Args:
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.

    Returns:
        (attributes,), above 0 and below 1; one half where no label is known, so that the threshold
        stays 0.5.
    """
    known = labels != IGNORE_INDEX
    return ((labels == 1).sum(0) + 1) / (known.sum(0) + 2)


def to_logits(probabilities: FloatArray) -> FloatArray:
    """Logits of probabilities, within -30..30.

    Args:
        probabilities: any shape, 0 to 1.

    Returns:
        The same shape.
    """
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-probabilities)
    return np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)


def to_probabilities(logits: FloatArray, temperature: float) -> FloatArray:
    """Sigmoid of logits over a temperature.

    Args:
        logits: any shape, of temperature 1.
        temperature: above 0.

    Returns:
        The same shape, 0 to 1.
    """
    return 0.5 * (1 + np.tanh(logits / (2 * temperature)))


def negative_log_likelihood(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Mean over images and attributes of -log of the probability given to the label.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (...), NaN where no label is known.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    known = labels != IGNORE_INDEX
    tiny = np.finfo(np.float64).tiny
    given = np.maximum(np.where(labels == 1, probabilities, 1 - probabilities), tiny)
    return ratio(weights @ np.where(known, -np.log(given), 0).sum(1), weights @ known.sum(1))


def decision_scores(
    decisions: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> dict[str, Any]:
    """Scores that depend on yes or no alone.

    Args:
        decisions: (images, attributes), 1 for yes and 0 for no.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        `accuracy` over images and attributes, and the mean over attributes of `balanced_accuracy`
        and `f1`, each of shape (...).
    """
    return {
        "accuracy": mean_accuracy(decisions, labels, weights),
        "balanced_accuracy": mean_of_defined(
            balanced_accuracy_per_attribute(decisions, labels, weights)
        ),
        "f1": mean_of_defined(f1_per_attribute(decisions, labels, weights)),
    }


def _cross_validate(
    logits: FloatArray, labels: IntArray, clusters: IntArray
) -> list[dict[str, float]]:
    decisions = np.zeros((len(BALANCE_WEIGHTS), *labels.shape))
    tables = []
    for repeat in range(REPEATS):
        for train, test in _folds(clusters, repeat):
            temperature = fit_temperature(logits[train], labels[train])
            probabilities = to_probabilities(logits[test], temperature)
            frequency = frequencies(labels[train])
            for index, weight in enumerate(BALANCE_WEIGHTS):
                decisions[index, test] = probabilities >= balanced_thresholds(frequency, weight)
        tables.append([decision_scores(made, labels) for made in decisions])
    return [
        {"balance_weight": weight}
        | {name: float(np.mean([t[index][name] for t in tables])) for name in tables[0][index]}
        for index, weight in enumerate(BALANCE_WEIGHTS)
    ]


def _folds(clusters: IntArray, repeat: int) -> Iterator[tuple[FloatArray, FloatArray]]:
    count = int(clusters.max()) + 1
    fold = (np.random.default_rng(repeat).permutation(count) % FOLDS)[clusters]
    for number in range(FOLDS):
        yield fold != number, fold == number
