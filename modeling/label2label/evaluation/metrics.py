"""Score multi-attribute predictions, by functions or as an `evaluate.Metric`.

    metric = evaluate.load(label2label.evaluation.MULTI_ATTRIBUTE)

`label2label.evaluation` describes the arrays.
"""

from collections.abc import Callable, Iterable, Sequence

import datasets
import evaluate
import numpy as np
import numpy.typing as npt

from label2label.data.vocabulary import IGNORE_INDEX

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

THRESHOLD = 0.5
CALIBRATION_BINS = 15
_RESAMPLES_AT_A_TIME = 64  # average precision: the arrays fit in the CPU cache


def correct_predictions(probabilities: FloatArray, labels: IntArray) -> npt.NDArray[np.bool_]:
    """Return where the prediction (probability > 0.5) equals the label: (images, attributes)."""
    return ((probabilities > THRESHOLD) == (labels == 1)) & (labels != IGNORE_INDEX)


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Divide with broadcasting; NaN where the denominator is zero."""
    numerator = np.asarray(numerator, dtype=np.float64)
    denominator = np.asarray(denominator, dtype=np.float64)
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _confusion(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None
) -> tuple[FloatArray, ...]:
    """Count true and false positives, and true and false negatives: (..., attributes) each."""
    weights = _image_weights(labels, weights)
    predicted, present, absent = probabilities > THRESHOLD, labels == 1, labels == 0
    found, false_alarms = weights @ (predicted & present), weights @ (predicted & absent)
    return found, false_alarms, weights @ absent - false_alarms, weights @ present - found


def accuracy_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Compute the share of correct predictions: (..., attributes)."""
    tp, fp, tn, fn = _confusion(probabilities, labels, weights)
    return ratio(tp + tn, tp + tn + fp + fn)


def mean_accuracy(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Average (prediction == label) over images and attributes: the papers' mean accuracy (...)."""
    weights = _image_weights(labels, weights)
    correct = correct_predictions(probabilities, labels).sum(1)
    return ratio(weights @ correct, weights @ (labels != IGNORE_INDEX).sum(1))


def majority_accuracy(labels: IntArray) -> float:
    """Compute the mean accuracy of the majority-class baseline; NaN if no label is known."""
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)
    return float(ratio(np.maximum(present, absent).sum(), (present + absent).sum()))


def balanced_accuracy_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Average the true positive rate and the true negative rate: (..., attributes).

    NaN if an attribute is never or always present.
    """
    tp, fp, tn, fn = _confusion(probabilities, labels, weights)
    return (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2


def f1_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Compute the harmonic mean of precision and recall of "present": (..., attributes).

    NaN if an attribute is neither present nor predicted in any image.
    """
    tp, fp, _, fn = _confusion(probabilities, labels, weights)
    return ratio(2 * tp, 2 * tp + fp + fn)


def average_precision_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Integrate the precision-recall curve as a step function, as scikit-learn does.

    (..., attributes); NaN if an attribute is present in no image.
    """
    weights = _image_weights(labels, weights)
    resamples = weights.reshape(-1, len(labels)).T  # (images, resamples): contiguous by image
    scores = np.full((resamples.shape[1], labels.shape[1]), np.nan)
    for start in range(0, len(scores), _RESAMPLES_AT_A_TIME):
        block = slice(start, start + _RESAMPLES_AT_A_TIME)
        counts = np.ascontiguousarray(resamples[:, block])
        for a, known in enumerate((labels != IGNORE_INDEX).T):
            if (labels[:, a] == 1).any():
                of_known = counts if known.all() else counts[known]
                present = labels[known, a] == 1
                scores[block, a] = _average_precision(probabilities[known, a], present, of_known)
    return scores.reshape(*weights.shape[:-1], labels.shape[1])


def _average_precision(
    probabilities: FloatArray, present: npt.NDArray[np.bool_], counts: FloatArray
) -> FloatArray:
    order = np.argsort(-probabilities, kind="stable")
    present, counts = present[order], counts[order]
    # Recall grows only at present images; tied probabilities share the threshold at their end.
    ends = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    ends = ends[np.searchsorted(ends, np.flatnonzero(present))]
    found = counts * present[:, None]
    precision = np.nan_to_num(
        ratio(np.cumsum(found, axis=0)[ends], np.cumsum(counts, axis=0)[ends])
    )
    return ratio((found[present] * precision).sum(0), found.sum(0))


def calibration_error_per_attribute(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Compute the expected calibration error over 15 bins of equal width: (..., attributes).

    It is the mean absolute difference between predicted and observed share of "present", weighted
    by the images in each bin.
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
    """Compute `predicted` and `observed` share of "present" and `count` of labels per filled bin.

    Attributes are pooled.
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


def contradictory(
    present: npt.NDArray[np.bool_], names: Sequence[str], exclusive_answers: Iterable[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    """Find images with two present attributes of a group that excludes it: bool, (images,).

    LogicNet (arXiv:2311.11208) counts such answers as failed. `present` is (images, attributes).
    """
    groups = ([a for a, name in enumerate(names) if name in group] for group in exclusive_answers)
    broken = [present[:, group].sum(axis=1) > 1 for group in groups]
    return np.any(broken, axis=0) if broken else np.zeros(len(present), dtype=bool)


PER_ATTRIBUTE: dict[str, Callable[..., FloatArray]] = {
    "accuracy": accuracy_per_attribute,
    "balanced_accuracy": balanced_accuracy_per_attribute,
    "f1": f1_per_attribute,
    "average_precision": average_precision_per_attribute,
    "expected_calibration_error": calibration_error_per_attribute,
}


def overall_scores(
    probabilities: FloatArray,
    labels: IntArray,
    weights: FloatArray | None = None,
    names: Iterable[str] = tuple(PER_ATTRIBUTE),
) -> dict[str, FloatArray]:
    """Compute mean accuracy, and the mean of other metrics over the attributes that define them.

    Returns:
        Values (...) by name, of all metrics or of `names`.
    """
    scores = {}
    for name in names:
        if name == "accuracy":
            scores[name] = mean_accuracy(probabilities, labels, weights)
        else:
            values = PER_ATTRIBUTE[name](probabilities, labels, weights)
            defined = np.isfinite(values).sum(axis=-1)
            scores[name] = ratio(np.nansum(values, axis=-1), defined)
    return scores


def _image_weights(labels: IntArray, weights: FloatArray | None) -> FloatArray:
    return np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)


def _calibration_bins(probabilities: FloatArray) -> IntArray:
    return np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


class MultiAttribute(evaluate.Metric):
    """Metric of multi-attribute predictions for `evaluate.load`; unknown labels are ignored."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean accuracy over images and attributes, balanced accuracy, F1, average "
            "precision and expected calibration error, overall and per attribute.",
            citation="Li et al., Label2Label: A Language Modeling Framework for Multi-Attribute "
            "Learning, ECCV 2022",
            inputs_description="predictions: probabilities (images, attributes), 0 to 1; "
            "references: labels (images, attributes), 1 present, 0 absent, -100 unknown. Returns "
            "the overall scores by name, and `per_attribute`: a list by name; NaN is undefined.",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int32")),
                }
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[int]]
    ) -> dict[str, float | dict[str, list[float]]]:
        shapes = {tuple(map(len, predictions)), tuple(map(len, references))}
        if len(shapes) > 1 or len(set(shapes.pop())) != 1:
            raise ValueError(
                f"{len(predictions)} predictions and {len(references)} references are not of the "
                "same images and attributes"
            )
        probabilities, labels = np.asarray(predictions), np.asarray(references)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():  # also true for NaN
            raise ValueError("predictions must be probabilities in 0..1")
        overall = overall_scores(probabilities, labels)
        each = {
            name: score(probabilities, labels).tolist() for name, score in PER_ATTRIBUTE.items()
        }
        return {name: float(value) for name, value in overall.items()} | {"per_attribute": each}
