import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from label2label.evaluation.groups import (
    age_bands,
    group_scores,
    intersection,
    post_stratified_scores,
)


def scores_of(right, groups, **options):
    """Group scores of one attribute, always present, predicted right where `right` says so."""
    right = np.asarray(right, dtype=float)[:, None]
    labels = np.ones(right.shape, dtype=int)
    return group_scores(
        right, labels, groups, ["Young"], np.arange(len(right)), resamples=50, **options
    )


def test_age_bands_meet_at_fifteen_and_leave_unknown_ages_unknown():
    assert age_bands([0, 14, 15, 60, 116, None, -1]) == [
        "0-4",
        "5-14",
        "15-29",
        "60+",
        "60+",
        None,
        None,
    ]


def test_intersection_is_unknown_where_either_column_is():
    columns = [["White", "Asian", None], ["Male", None, "Male"]]
    assert intersection(columns) == ["White, Male", None, None]


def test_worst_group_and_gap_by_hand():
    right = [1] * 36 + [0] * 4 + [1] * 20 + [0] * 20
    scores = scores_of(right, ["a"] * 40 + ["b"] * 40)
    assert scores["per_group"]["a"]["accuracy"] == pytest.approx(0.9)
    assert scores["per_group"]["b"]["num_images"] == 40
    assert (scores["worst_group"], scores["best_group"]) == ("b", "a")
    assert scores["gap"] == pytest.approx(0.4)
    low, high = scores["gap_interval"]
    assert 0.1 < low < 0.4 < high < 0.7


def test_a_group_under_30_images_is_shown_but_kept_out_of_the_gap():
    right = [1] * 30 + [1] * 15 + [0] * 15 + [0] * 29
    scores = scores_of(right, ["a"] * 30 + ["b"] * 30 + ["c"] * 29)
    assert scores["per_group"]["c"]["small"]
    assert scores["per_group"]["c"]["accuracy"] == 0
    assert scores["worst_group"] == "b"
    assert scores["gap"] == pytest.approx(0.5)
    assert scores["per_attribute"]["Young"]["gap"] == pytest.approx(0.5)


def test_one_group_alone_has_no_gap():
    scores = scores_of([1] * 40, ["a"] * 40)
    assert scores["gap"] is None
    assert scores["worst_group"] is None
    assert np.isnan(scores["per_attribute"]["Young"]["demographic_parity_difference"])


def test_images_of_unknown_group_are_left_out_and_counted():
    scores = scores_of([1] * 30 + [0] * 10, ["a"] * 30 + [None] * 10)
    assert scores["num_unknown"] == 10
    assert scores["per_group"]["a"]["accuracy"] == 1


def test_a_group_column_without_a_known_value_has_no_groups():
    assert scores_of([1, 0], [None, None])["per_group"] == {}


def test_parity_and_odds_equal_fairlearns_where_every_rate_has_images():
    generator = np.random.default_rng(0)
    probabilities = generator.random((900, 2))
    labels = generator.integers(0, 2, (900, 2))
    groups = generator.choice(["a", "b", "c"], 900)
    scores = group_scores(
        probabilities, labels, list(groups), ["Male", "Young"], np.arange(900), resamples=5
    )
    for a, name in enumerate(["Male", "Young"]):
        truth, predicted = labels[:, a], probabilities[:, a] > 0.5
        own = scores["per_attribute"][name]
        assert own["demographic_parity_difference"] == pytest.approx(
            demographic_parity_difference(truth, predicted, sensitive_features=groups)
        )
        assert own["equalized_odds_difference"] == pytest.approx(
            equalized_odds_difference(truth, predicted, sensitive_features=groups)
        )


def test_a_rate_without_images_makes_odds_undefined_instead_of_zero():
    # Group b has no absent label, so it has no false positive rate.
    labels = np.array([0] * 40 + [1] * 40 + [1] * 40)[:, None]
    scores = group_scores(
        labels.astype(float),
        labels,
        ["a"] * 80 + ["b"] * 40,
        ["Male"],
        np.arange(120),
        resamples=5,
    )
    assert np.isnan(scores["per_attribute"]["Male"]["equalized_odds_difference"])


def test_unknown_labels_do_not_count_in_a_group():
    labels = np.array([1] * 40 + [-100] * 10 + [1] * 40)[:, None]
    probabilities = np.array([1.0] * 40 + [0.0] * 10 + [1.0] * 40)[:, None]
    scores = group_scores(
        probabilities, labels, ["a"] * 50 + ["b"] * 40, ["Male"], np.arange(90), resamples=5
    )
    assert scores["per_group"]["a"]["accuracy"] == 1
    assert scores["per_attribute"]["Male"]["num_images"] == {"a": 40, "b": 40}


def test_a_gap_that_is_only_due_to_age_vanishes_when_adjusted():
    # Children are half right, adults all right, in both groups; group b has more children.
    groups = ["a"] * 200 + ["b"] * 200
    ages = ["child"] * 40 + ["adult"] * 160 + ["child"] * 160 + ["adult"] * 40
    right = [1, 0] * 20 + [1] * 160 + [1, 0] * 80 + [1] * 40
    raw = scores_of(right, groups)
    adjusted = post_stratified_scores(
        np.asarray(right, dtype=float)[:, None],
        np.ones((400, 1), dtype=int),
        groups,
        ages,
        np.arange(400),
        resamples=50,
    )
    assert raw["gap"] == pytest.approx(0.3)
    assert adjusted["gap"] == pytest.approx(0)
    assert adjusted["strata"] == {"adult": 0.5, "child": 0.5}
    assert adjusted["per_group"]["b"]["accuracy"] == pytest.approx(0.75)
    assert adjusted["per_group"]["b"]["num_images"] == {"adult": 40, "child": 160}


def test_strata_that_a_group_lacks_are_left_out_and_named():
    groups = ["a"] * 60 + ["b"] * 40
    ages = ["adult"] * 30 + ["old"] * 30 + ["adult"] * 40
    right = np.array([1.0] * 30 + [0.0] * 30 + [1.0] * 20 + [0.0] * 20)[:, None]
    adjusted = post_stratified_scores(
        right, np.ones((100, 1), dtype=int), groups, ages, np.arange(100), resamples=5
    )
    assert adjusted["strata_left_out"] == ["old"]
    assert adjusted["gap"] == pytest.approx(0.5)


def test_groups_that_share_no_stratum_cannot_be_adjusted():
    assert (
        post_stratified_scores(
            np.ones((80, 1)),
            np.ones((80, 1), dtype=int),
            ["a"] * 40 + ["b"] * 40,
            ["x"] * 40 + ["y"] * 40,
            np.arange(80),
            resamples=5,
        )
        is None
    )
