import numpy as np
import pytest
from label2label.evaluation.calibration import (
    balanced_thresholds,
    decision_scores,
    fit_calibration,
    fit_temperature,
    frequencies,
    negative_log_likelihood,
    to_logits,
    to_probabilities,
)
from sklearn.metrics import balanced_accuracy_score, log_loss


@pytest.fixture(scope="module")
def overconfident():
    """Logits twice as large as the truth's, of four attributes from rare to even, and labels."""
    generator = np.random.default_rng(0)
    true_logits = generator.normal([-4, -3, -1.5, 0], 2, (3000, 4))
    labels = (generator.random((3000, 4)) < 1 / (1 + np.exp(-true_logits))).astype(int)
    labels[generator.random((3000, 4)) < 0.1] = -100
    return 2 * true_logits, labels


def test_the_temperature_undoes_an_overconfidence_of_two(overconfident):
    assert fit_temperature(*overconfident) == pytest.approx(2, abs=0.1)


def test_no_other_temperature_is_more_likely(overconfident):
    logits, labels = overconfident
    best = fit_temperature(logits, labels)
    likelihoods = [
        negative_log_likelihood(to_probabilities(logits, t), labels)
        for t in (0.9 * best, best, 1.1 * best)
    ]
    assert np.argmin(likelihoods) == 1


def test_negative_log_likelihood_is_scikit_learns(overconfident):
    logits, labels = overconfident
    probabilities = to_probabilities(logits, 2.0)
    known = labels != -100
    expected = log_loss(labels[known], probabilities[known])
    assert float(negative_log_likelihood(probabilities, labels)) == pytest.approx(expected)


def test_logits_and_probabilities_are_each_others_inverse():
    logits = np.array([-5.0, 0.0, 3.0])
    assert to_logits(to_probabilities(logits, 1.0)) == pytest.approx(logits)
    assert to_logits(np.array([0.0, 1.0])).tolist() == [-30, 30]


def test_thresholds_run_from_one_half_to_the_frequency():
    frequency = np.array([0.02, 0.3, 0.5, 0.9])
    assert balanced_thresholds(frequency, 0.0).tolist() == [0.5] * 4
    assert balanced_thresholds(frequency, 1e9) == pytest.approx(frequency)
    between = balanced_thresholds(frequency, 0.1)
    assert (np.minimum(frequency, 0.5) <= between).all()
    assert (between <= np.maximum(frequency, 0.5)).all()


def test_no_other_threshold_has_a_better_expected_score():
    # Expected over calibrated probabilities that are spread evenly: by enumeration.
    probabilities = (np.arange(10_000) + 0.5) / 10_000 * 0.6
    frequency, weight = probabilities.mean(), 0.4
    candidates = np.linspace(0.01, 0.59, 59)
    scores = []
    for threshold in candidates:
        yes = probabilities >= threshold
        right = np.where(yes, probabilities, 1 - probabilities).mean()
        sensitivity = probabilities[yes].sum() / probabilities.sum()
        specificity = (1 - probabilities[~yes]).sum() / (1 - probabilities).sum()
        scores.append(right + weight * (sensitivity + specificity) / 2)
    (threshold,) = balanced_thresholds(np.array([frequency]), weight)
    assert candidates[np.argmax(scores)] == pytest.approx(threshold, abs=0.01)


def test_fitted_thresholds_gain_balanced_accuracy_and_cost_no_more_than_allowed(overconfident):
    logits, labels = overconfident
    calibration = fit_calibration(logits, labels, np.arange(3000), accuracy_loss=0.002)
    table = {row["balance_weight"]: row for row in calibration.cross_validation}
    chosen, half = table[calibration.balance_weight], table[0.0]
    assert calibration.balance_weight > 0
    assert chosen["accuracy"] >= half["accuracy"] - 0.002
    assert chosen["balanced_accuracy"] > half["balanced_accuracy"] + 0.01
    larger = [w for w in table if w > calibration.balance_weight]
    assert all(table[w]["accuracy"] < half["accuracy"] - 0.002 for w in larger)


def test_an_attribute_without_labels_keeps_one_half(overconfident):
    logits, labels = overconfident
    unknown = np.hstack([labels, np.full((3000, 1), -100)])
    calibration = fit_calibration(
        np.hstack([logits, logits[:, :1]]), unknown, np.arange(3000), accuracy_loss=0.01
    )
    assert calibration.thresholds[-1] == 0.5
    assert frequencies(unknown)[-1] == 0.5


def test_decisions_are_scored_as_by_scikit_learn(overconfident):
    logits, labels = overconfident
    decisions = (logits > 1).astype(float)
    expected = []
    for a in range(4):
        known = labels[:, a] != -100
        expected.append(balanced_accuracy_score(labels[known, a], decisions[known, a]))
    scores = decision_scores(decisions, labels)
    assert float(scores["balanced_accuracy"]) == pytest.approx(np.mean(expected))
