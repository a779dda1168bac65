import numpy as np
import pytest
from label2label.evaluation.intervals import (
    bootstrap_intervals,
    clusters_of,
    interval_of,
    p_values,
    paired_comparison,
)
from label2label.evaluation.metrics import mean_accuracy


def accuracy_interval(right, clusters):
    """Interval of the accuracy of predictions that are right where `right` says so."""
    probabilities, labels = right.astype(float)[:, None], np.ones((len(right), 1), dtype=int)
    intervals = bootstrap_intervals(
        lambda weights: {"accuracy": mean_accuracy(probabilities, labels, weights)}, clusters
    )
    return intervals["accuracy"]


def test_images_of_one_person_share_a_cluster_and_unknown_people_do_not():
    clusters = clusters_of(["ann", None, "bob", "ann", None])
    assert clusters[0] == clusters[3]
    assert len(set(clusters.tolist())) == 4


def test_interval_of_independent_images_is_the_binomial_one():
    right = np.arange(1000) % 10 > 0  # 90 % right
    low, high = accuracy_interval(right, np.arange(1000))
    half = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert low == pytest.approx(0.9 - half, abs=0.003)
    assert high == pytest.approx(0.9 + half, abs=0.003)


def test_images_of_the_same_people_tell_less_than_independent_ones():
    right = np.repeat(np.arange(100) % 10 > 0, 10)  # each person all right or all wrong
    by_image = np.ptp(accuracy_interval(right, np.arange(1000)))
    by_person = np.ptp(accuracy_interval(right, np.repeat(np.arange(100), 10)))
    assert by_person == pytest.approx(by_image * np.sqrt(10), rel=0.15)


def test_a_statistic_that_is_undefined_in_every_resample_has_no_interval():
    intervals = bootstrap_intervals(
        lambda weights: {"nothing": np.full(len(weights), np.nan)}, np.arange(5), resamples=10
    )
    assert np.isnan(intervals["nothing"]).all()


def test_paired_comparison_finds_a_small_but_consistent_difference():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (400, 3))
    worse = np.where(generator.random((400, 3)) < 0.8, labels, 1 - labels).astype(float)
    better = worse.copy()
    better[:20] = labels[:20]
    comparison = paired_comparison(better, worse, labels, np.arange(400))
    expected = mean_accuracy(better, labels) - mean_accuracy(worse, labels)
    assert comparison["difference"] == pytest.approx(float(expected))
    assert comparison["interval"][0] > 0
    assert comparison["p_value"] < 0.05


def test_paired_comparison_of_a_model_with_itself_finds_nothing():
    labels = np.array([[1], [0], [1]])
    probabilities = np.array([[0.9], [0.8], [0.2]])
    comparison = paired_comparison(probabilities, probabilities, labels, np.arange(3))
    assert comparison == {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0}


def test_resamples_without_a_difference_do_not_count_for_its_p_value():
    nan = np.nan
    draws = np.array([[1, -1, nan, nan], [1, 1, nan, 2], [1, 1, nan, 1], [1, 1, nan, -1]])
    expected = [1 / 4, 2 * 1 / 4, nan, 2 * 1 / 3]
    estimate = np.array([0.5, 0.0, nan, 2 / 3])  # their means: nothing is moved
    np.testing.assert_allclose(p_values(draws, estimate), expected)


def test_p_values_are_of_draws_centred_on_the_estimate_as_intervals_are():
    draws = np.linspace(0.5, 2.5, 201)  # a bias of 1.5: not one is below zero
    assert p_values(draws, np.array(0.0)) == 1
    low, high = interval_of(draws, np.array(0.0))
    assert low < 0 < high


def test_models_without_a_known_label_have_no_p_value():
    labels = np.full((3, 1), -100)
    comparison = paired_comparison(np.ones((3, 1)), np.zeros((3, 1)), labels, np.arange(3))
    assert np.isnan(
        [comparison["difference"], *comparison["interval"], comparison["p_value"]]
    ).all()
