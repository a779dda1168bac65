import numpy as np
import pytest
from label2label.evaluation.metrics import mean_accuracy
from label2label.evaluation.stratification import (
    age_bands,
    post_stratified_scores,
    shared_age_bands,
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


def test_shared_bands_are_the_narrow_ones_where_every_group_has_images():
    ages = [2, 10, 20, 40, 50, 70] * 20
    assert set(shared_age_bands(ages, ["a", "a", "a", "a", "a", "a"] * 20)) == set(age_bands(ages))


def test_shared_bands_merge_until_every_compared_group_has_ten_images():
    # Group b has no one from 30 to 44, so these years join a neighbour.
    ages = [2] * 20 + [10] * 20 + [20] * 20 + [35] * 20 + [50] * 20 + [70] * 20
    groups = ["a", "b"] * 30 + ["a"] * 20 + ["a", "b"] * 20
    bands = shared_age_bands(ages, groups)
    assert len(set(bands)) == 5
    counts = {(g, b): 0 for g in "ab" for b in set(bands)}
    for key in zip(groups, bands, strict=True):
        counts[key] += 1
    assert min(counts.values()) >= 10


def test_shared_bands_keep_children_apart_before_all_else():
    # Of the edges 5 and 15 only one can stay: group b has 10 below 15, all of them under 5.
    ages = [2] * 10 + [10] * 10 + [20] * 60 + [2] * 10 + [20] * 40
    groups = ["a"] * 80 + ["b"] * 50
    assert sorted(set(shared_age_bands(ages, groups))) == ["0-14", "15+"]


def test_shared_bands_start_where_the_ages_do():
    bands = shared_age_bands([16, 40] * 40, ["a"] * 40 + ["b"] * 40)
    assert set(bands) == {"15-29", "30+"}


def test_groups_too_small_to_compare_do_not_widen_the_bands():
    ages = [2, 20] * 20 + [20] * 5
    assert sorted(set(shared_age_bands(ages, ["a"] * 40 + ["b"] * 5))) == ["0-14", "15+"]


def test_images_without_an_age_have_no_band():
    assert shared_age_bands([None, -1], ["a", "a"]) == [None, None]
    assert age_bands([float("nan"), 70.0]) == [None, "60+"]
    ages = [float("nan"), *[20, 40] * 40]
    assert shared_age_bands(ages, ["a"] * 41 + ["b"] * 40)[0] is None


def test_a_gap_that_is_only_due_to_age_vanishes_when_adjusted():
    # Children are half right, adults all right, in both groups; group b has more children.
    groups = ["a"] * 200 + ["b"] * 200
    ages = ["child"] * 40 + ["adult"] * 160 + ["child"] * 160 + ["adult"] * 40
    right = [1, 0] * 20 + [1] * 160 + [1, 0] * 80 + [1] * 40
    adjusted = post_stratified_scores(
        np.asarray(right, dtype=float)[:, None],
        np.ones((400, 1), dtype=int),
        groups,
        ages,
        np.arange(400),
        resamples=50,
    )
    assert np.mean(right[:200]) - np.mean(right[200:]) == pytest.approx(0.3)
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


def test_the_adjusted_accuracy_is_the_hand_computed_mean_over_strata():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (400, 3))
    probabilities = generator.random((400, 3))
    groups = generator.choice(["a", "b"], 400)
    strata = generator.choice(["x", "y", "z"], 400, p=[0.6, 0.3, 0.1])
    adjusted = post_stratified_scores(
        probabilities, labels, list(groups), list(strata), np.arange(400), resamples=5
    )
    for group in "ab":
        expected = sum(
            (strata == stratum).mean()
            * mean_accuracy(
                probabilities[(groups == group) & (strata == stratum)],
                labels[(groups == group) & (strata == stratum)],
            )
            for stratum in "xyz"
        )
        assert adjusted["per_group"][group]["accuracy"] == pytest.approx(float(expected))


def test_intervals_of_adjusted_accuracies_end_at_one():
    right = np.tile([0.0] + [1.0] * 39, 6)[:, None]
    groups, strata = np.repeat(list("abcdef"), 40).tolist(), ["x", "y"] * 120
    adjusted = post_stratified_scores(
        right, np.ones((240, 1), dtype=int), groups, strata, np.arange(240), resamples=50
    )
    assert max(s["interval"][1] for s in adjusted["per_group"].values()) == 1
