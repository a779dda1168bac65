import numpy as np
import pytest
from label2label.evaluation import metrics
from sklearn import metrics as sklearn_metrics

# Two attributes, four images; the last label of the second attribute is unknown.
PROBABILITIES = np.array([[0.9, 0.2], [0.6, 0.7], [0.4, 0.8], [0.1, 0.9]])
LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, -100]])


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    probabilities = generator.random((300, 5)).round(2)  # rounded, so that some tie
    labels = (generator.random((300, 5)) < probabilities).astype(int)
    labels[generator.random((300, 5)) < 0.2] = -100
    return probabilities, labels


def test_mean_accuracy_is_over_images_and_attributes_and_skips_unknown_labels():
    # First attribute: right, wrong, wrong, right. Second: right, right, wrong, unknown.
    assert metrics.mean_accuracy(PROBABILITIES, LABELS) == pytest.approx(4 / 7)
    np.testing.assert_allclose(
        metrics.accuracy_per_attribute(PROBABILITIES, LABELS), [2 / 4, 2 / 3]
    )


def test_a_column_that_is_unknown_throughout_changes_no_overall_score():
    probabilities = np.hstack([PROBABILITIES, np.full((4, 1), 0.9)])
    labels = np.hstack([LABELS, np.full((4, 1), -100)])
    scores = metrics.overall_scores(probabilities, labels)
    for name, expected in metrics.overall_scores(PROBABILITIES, LABELS).items():
        assert scores[name] == pytest.approx(float(expected))
    for metric in metrics.PER_ATTRIBUTE.values():
        assert np.isnan(metric(probabilities, labels)[2])


def test_a_probability_of_one_half_predicts_absent():
    assert metrics.mean_accuracy(np.array([[0.5]]), np.array([[0]])) == 1


def test_balanced_accuracy_by_hand():
    # First: both rates 1/2. Second: the one present found, one of two absent found.
    np.testing.assert_allclose(
        metrics.balanced_accuracy_per_attribute(PROBABILITIES, LABELS), [0.5, 0.75]
    )


def test_balanced_accuracy_of_an_attribute_that_is_always_present_is_undefined():
    values = metrics.balanced_accuracy_per_attribute(np.array([[0.9], [0.8]]), np.array([[1], [1]]))
    assert np.isnan(values[0])


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (metrics.accuracy_per_attribute, sklearn_metrics.accuracy_score),
        (metrics.balanced_accuracy_per_attribute, sklearn_metrics.balanced_accuracy_score),
        (metrics.f1_per_attribute, sklearn_metrics.f1_score),
    ],
)
def test_decisions_are_scored_as_by_scikit_learn(predictions, metric, reference):
    probabilities, labels = predictions
    for a, value in enumerate(metric(probabilities, labels)):
        known = labels[:, a] != -100
        assert value == pytest.approx(reference(labels[known, a], probabilities[known, a] > 0.5))


def test_average_precision_with_ties_equals_scikit_learns(predictions):
    probabilities, labels = predictions
    for a, value in enumerate(metrics.average_precision_per_attribute(probabilities, labels)):
        known = labels[:, a] != -100
        reference = sklearn_metrics.average_precision_score(
            labels[known, a], probabilities[known, a]
        )
        assert value == pytest.approx(reference)


def test_calibration_error_by_hand():
    # One bin holds 0.81 and 0.82 with one present of two, another holds 0.1, absent.
    probabilities, labels = np.array([[0.81], [0.82], [0.1]]), np.array([[1], [0], [0]])
    expected = (2 * abs(0.815 - 0.5) + 1 * abs(0.1 - 0)) / 3
    value = metrics.calibration_error_per_attribute(probabilities, labels)[0]
    assert value == pytest.approx(expected)


def test_calibration_error_of_certain_and_right_predictions_is_zero():
    labels = np.array([[1], [0]])
    assert metrics.calibration_error_per_attribute(labels.astype(float), labels)[0] == 0


def test_reliability_curve_pools_the_known_labels():
    curve = metrics.reliability_curve(PROBABILITIES, LABELS)
    assert sum(curve["count"]) == 7
    assert curve["predicted"] == sorted(curve["predicted"])


@pytest.mark.parametrize("name", metrics.PER_ATTRIBUTE)
def test_a_weight_of_two_counts_an_image_twice(predictions, name):
    probabilities, labels = predictions
    metric = metrics.PER_ATTRIBUTE[name]
    weights = np.random.default_rng(1).integers(0, 3, size=(2, 300))
    weighted = metric(probabilities, labels, weights)
    for draw, values in zip(weights, weighted, strict=True):
        repeated = metric(probabilities.repeat(draw, axis=0), labels.repeat(draw, axis=0))
        np.testing.assert_allclose(values, repeated)


def test_majority_accuracy_by_hand():
    # First attribute 2 of 4 either way, second absent in 2 of 3.
    assert metrics.majority_accuracy(LABELS) == pytest.approx(4 / 7)
