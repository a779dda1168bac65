"""Multi-attribute metrics: one value an attribute, or one value overall.

Every function takes image weights of shape (..., images) and answers with the same leading
shape, so that a bootstrap is one call with a (resamples, images) array of counts.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from label2label.data.vocabulary import IGNORE_INDEX

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

THRESHOLD = 0.5
CALIBRATION_BINS = 15


def correct_predictions(probabilities: FloatArray, labels: IntArray) -> npt.NDArray[np.bool_]:
    """Where a label is known and the prediction, probability > 0.5, equals it.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.

    Returns:
        (images, attributes) booleans, False where the label is unknown.
    """
    return ((probabilities > THRESHOLD) == (labels == 1)) & (labels != IGNORE_INDEX)


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Divide, with NaN for "undefined" where there is nothing to divide by.

    Args:
        numerator: any shape.
        denominator: of a shape that broadcasts with it, not negative.

    Returns:
        Floats of the broadcast shape, NaN where the denominator is zero.
    """
    numerator = np.asarray(numerator, dtype=np.float64)
    denominator = np.asarray(denominator, dtype=np.float64)
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def accuracy_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Share of images whose prediction equals the label.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., attributes), NaN where an attribute has no known label.
    """
    weights = _image_weights(labels, weights)
    known = labels != IGNORE_INDEX
    return ratio(weights @ correct_predictions(probabilities, labels), weights @ known)


def mean_accuracy(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Mean over images and attributes of (prediction == label), as the papers define accuracy.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (...), NaN where no label is known.
    """
    weights = _image_weights(labels, weights)
    known = labels != IGNORE_INDEX
    return ratio(
        weights @ correct_predictions(probabilities, labels).sum(1), weights @ known.sum(1)
    )


def majority_accuracy(labels: IntArray) -> float:
    """Mean accuracy of answering every attribute with its more frequent value.

    Args:
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.

    Returns:
        The accuracy that a model without an eye reaches on these labels; NaN where none is known.
    """
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)
    return float(ratio(np.maximum(present, absent).sum(), (present + absent).sum()))


def balanced_accuracy_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Mean of the true positive rate and the true negative rate.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., attributes), NaN where an attribute is never or always present.
    """
    weights = _image_weights(labels, weights)
    predicted = probabilities > THRESHOLD
    present, absent = labels == 1, labels == 0
    true_positive_rate = ratio(weights @ (predicted & present), weights @ present)
    true_negative_rate = ratio(weights @ (~predicted & absent), weights @ absent)
    return (true_positive_rate + true_negative_rate) / 2


def f1_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Harmonic mean of precision and recall of "present".

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., attributes), NaN where an attribute is neither present nor predicted in any image.
    """
    weights = _image_weights(labels, weights)
    predicted = (probabilities > THRESHOLD) & (labels != IGNORE_INDEX)
    present = labels == 1
    return ratio(2 * (weights @ (predicted & present)), weights @ predicted + weights @ present)


def average_precision_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Area under the precision-recall curve as a step function (scikit-learn's definition).

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., attributes), NaN where an attribute is present in no image.
    """
    weights = _image_weights(labels, weights)
    values = [
        _average_precision(probabilities[known, a], labels[known, a], weights[..., known])
        for a, known in enumerate((labels != IGNORE_INDEX).T)
    ]
    return np.stack(values, axis=-1)


def calibration_error_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Expected calibration error of "present", over equally wide bins of the probability.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        (..., attributes): mean distance between the predicted and the observed share of "present",
        weighted by the images in each bin; NaN where an attribute has no known label.
    """
    weights = _image_weights(labels, weights)
    bins = _calibration_bins(probabilities)
    known = labels != IGNORE_INDEX
    excess = np.where(known, probabilities - (labels == 1), 0.0)  # (images, attributes)
    distance = sum(
        np.abs(weights @ np.where(bins == b, excess, 0.0)) for b in range(CALIBRATION_BINS)
    )
    return ratio(np.asarray(distance), weights @ known)


def reliability_curve(
    probabilities: FloatArray, labels: IntArray
) -> dict[str, list[float] | list[int]]:
    """Observed against predicted share of "present", pooled over attributes.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.

    Returns:
        `predicted`, `observed` and `count` of every bin that holds a known label, in order.
    """
    known = labels != IGNORE_INDEX
    bins = _calibration_bins(probabilities)[known]
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    predicted = np.bincount(bins, probabilities[known], CALIBRATION_BINS)
    observed = np.bincount(bins, labels[known], CALIBRATION_BINS)
    filled = count > 0
    return {
        "predicted": (predicted[filled] / count[filled]).tolist(),
        "observed": (observed[filled] / count[filled]).tolist(),
        "count": count[filled].tolist(),
    }


PER_ATTRIBUTE: dict[str, Callable[..., FloatArray]] = {
    "accuracy": accuracy_per_attribute,
    "balanced_accuracy": balanced_accuracy_per_attribute,
    "f1": f1_per_attribute,
    "average_precision": average_precision_per_attribute,
    "expected_calibration_error": calibration_error_per_attribute,
}


def overall_scores(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Every metric overall: accuracy over images and attributes, the others' mean over attributes.

    Args:
        probabilities: (images, attributes), 0 to 1.
        labels: (images, attributes), 1 present, 0 absent, -100 unknown and not counted.
        weights: (..., images), how often each image counts; once each by default.

    Returns:
        Name to value of shape (...). Attributes whose value is undefined do not count.
    """
    scores = {"accuracy": mean_accuracy(probabilities, labels, weights)}
    for name, metric in PER_ATTRIBUTE.items():
        if name not in scores:
            scores[name] = mean_of_defined(metric(probabilities, labels, weights))
    return scores


def _image_weights(labels: IntArray, weights: FloatArray | None) -> FloatArray:
    return np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)


def mean_of_defined(values: FloatArray) -> FloatArray:
    """Average along the last axis what is not NaN.

    Args:
        values: (..., n).

    Returns:
        (...), NaN where all of them are.
    """
    return ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(axis=-1))


def _calibration_bins(probabilities: FloatArray) -> IntArray:
    return np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def _average_precision(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray
) -> FloatArray:
    if not len(labels):
        return np.full(weights.shape[:-1], np.nan)
    order = np.argsort(-probabilities, kind="stable")
    # Images that tie share one threshold, which is the last of them.
    thresholds = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    weights = weights[..., order]
    retrieved = np.cumsum(weights, axis=-1)[..., thresholds]
    hits = np.cumsum(weights * labels[order], axis=-1)[..., thresholds]
    precision = np.nan_to_num(ratio(hits, retrieved))
    return ratio((np.diff(hits, axis=-1, prepend=0) * precision).sum(-1), hits[..., -1])
