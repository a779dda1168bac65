import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from label2label.evaluation import groups as scoring
from label2label.evaluation.groups import age_bands, cells_of, with_intersection
from label2label.evaluation.metrics import mean_accuracy
from label2label.evaluation.predictions import Predictions
from scipy.stats import chi2


def group_scores(probabilities, labels, groups, names, resamples):
    return scoring.group_scores(Predictions(names, probabilities, labels), groups, resamples)


def scores_of(right, groups, resamples=50):
    """Group scores of one attribute, always present, predicted right where `right` says so."""
    right = np.asarray(right, dtype=float)[:, None]
    return group_scores(right, np.ones(right.shape, dtype=int), groups, ["Young"], resamples)


def test_intersection_is_unknown_where_either_column_is():
    columns = {"race": ["White", "Asian", None], "gender": ["Male", None, "Male"]}
    assert with_intersection(columns)["race x gender"] == ["White, Male", None, None]
    assert list(with_intersection({"race": ["White"]})) == ["race"]
    assert list(with_intersection({"race": ["a", None], "gender": [None, "b"]})) == [
        "race",
        "gender",
    ]


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


def test_equal_groups_are_two_groups_without_a_gap():
    scores = scores_of([1] * 80, ["a"] * 40 + ["b"] * 40)
    assert (scores["worst_group"], scores["best_group"], scores["gap"]) == ("a", "b", 0)


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
    scores = group_scores(probabilities, labels, list(groups), ["Male", "Young"], resamples=5)
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
        labels.astype(float), labels, ["a"] * 80 + ["b"] * 40, ["Male"], resamples=5
    )
    assert np.isnan(scores["per_attribute"]["Male"]["equalized_odds_difference"])


def test_an_attribute_with_one_label_has_it_in_its_group():
    labels = np.full((40, 2), -100)
    labels[:, 0], labels[7, 1] = 1, 0
    groups = ["a"] * 20 + ["b"] * 20
    scores = group_scores(np.ones((40, 2)), labels, groups, ["Young", "Bald"], resamples=20)
    assert scores["per_attribute"]["Bald"]["num_images"] == {"a": 1}
    assert scores["per_attribute"]["Bald"]["accuracy"] == {"a": 0.0}


def test_unknown_labels_do_not_count_in_a_group():
    labels = np.array([1] * 40 + [-100] * 10 + [1] * 40)[:, None]
    probabilities = np.array([1.0] * 40 + [0.0] * 10 + [1.0] * 40)[:, None]
    scores = group_scores(probabilities, labels, ["a"] * 50 + ["b"] * 40, ["Male"], resamples=5)
    assert scores["per_group"]["a"]["accuracy"] == 1
    assert scores["per_attribute"]["Male"]["num_images"] == {"a": 40, "b": 40}


def test_every_attribute_has_its_worst_group_gap_and_interval():
    # Overall the groups are equal: a is right on Male alone, b on Young alone.
    groups = ["a"] * 40 + ["b"] * 40
    labels = np.ones((80, 2), dtype=int)
    probabilities = np.array([[1.0, 0.0]] * 40 + [[0.5, 1.0]] * 20 + [[1.0, 1.0]] * 20)
    scores = group_scores(probabilities, labels, groups, ["Male", "Young"], resamples=200)
    male, young = (scores["per_attribute"][name] for name in ("Male", "Young"))
    assert (male["worst_group"], male["best_group"], male["gap"]) == ("b", "a", 0.5)
    assert (young["worst_group"], young["best_group"], young["gap"]) == ("a", "b", 1.0)
    half = 1.96 * np.sqrt(0.25 / 40)
    assert male["interval"]["b"] == pytest.approx([0.5 - half, 0.5 + half], abs=0.05)
    assert male["gap_interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=0.05)
    assert young["interval"]["a"] == [0.0, 0.0]


def test_expected_gap_under_null_is_what_equal_groups_show():
    # Two groups, both right on 80 %: the mean of the absolute difference of two normal estimates.
    right = ([1] * 80 + [0] * 20) * 2
    labels = np.ones((200, 1), dtype=int)
    scores = group_scores(
        np.array(right, dtype=float)[:, None],
        labels,
        ["a"] * 100 + ["b"] * 100,
        ["Young"],
        resamples=4000,
    )
    expected = np.sqrt(2 / np.pi) * np.sqrt(2 * 0.8 * 0.2 / 100)
    assert scores["gap"] == 0
    assert scores["expected_gap_under_null"] == pytest.approx(expected, rel=0.05)
    assert (
        scores["per_attribute"]["Young"]["expected_gap_under_null"]
        == scores["expected_gap_under_null"]
    )


def test_expected_gap_under_null_grows_with_the_number_of_groups_and_leaves_small_ones_out():
    right = [1] * 30 + [0] * 10
    two, five = (
        scores_of(right * n, np.repeat(list("abcde")[:n], 40).tolist())["expected_gap_under_null"]
        for n in (2, 5)
    )
    assert 1.5 * two < five
    small = scores_of([*right * 2, 1, 0], ["a"] * 40 + ["b"] * 40 + ["c"] * 2)[
        "expected_gap_under_null"
    ]
    assert small == pytest.approx(two, rel=0.5)


def test_p_value_is_that_of_an_analysis_of_variance_and_a_small_group_hides_nothing():
    right = [1] * 720 + [0] * 80 + [1] * 190 + [0] * 50  # 0.90 of 800 and 0.79 of 240
    groups = ["a"] * 800 + ["b"] * 240
    first = scores_of(right, groups, resamples=2000)
    se = np.sqrt(0.9 * 0.1 / 800 + 190 * 50 / 240**3)
    assert first["p_value"] == pytest.approx(chi2.sf((0.9 - 190 / 240) ** 2 / se**2, 1), rel=0.5)
    assert first["p_value"] < 0.001
    # A small group between them widens what chance makes of the gap, and not the p-value.
    more = scores_of([*right, *[1] * 26, *[0] * 5], [*groups, *["c"] * 31], resamples=2000)
    assert more["gap"] == first["gap"]
    assert more["expected_gap_under_null"] > 2 * first["expected_gap_under_null"]
    assert more["p_value"] < 0.001


def test_p_values_of_equal_groups_are_spread_evenly():
    draw = np.random.default_rng(0)
    p_values = [
        scores_of(draw.random(300) < 0.8, ["a"] * 100 + ["b"] * 60 + ["c"] * 140, 200)["p_value"]
        for _ in range(200)
    ]
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)
    assert 2 <= np.sum(np.array(p_values) < 0.05) <= 22


def test_groups_that_are_right_throughout_are_equal():
    assert scores_of([1] * 80, ["a"] * 40 + ["b"] * 40)["p_value"] == 1
    assert scores_of([1] * 40 + [0] * 40, ["a"] * 40 + ["b"] * 40)["p_value"] == 0


def test_rates_of_every_group_come_with_the_images_behind_them():
    labels = np.array([1] * 30 + [0] * 30 + [1] * 30 + [0] * 10)[:, None]
    predicted = np.array([1.0] * 15 + [0.0] * 15 + [1.0] * 3 + [0.0] * 27 + [1.0] * 40)[:, None]
    scores = group_scores(predicted, labels, ["a"] * 60 + ["b"] * 40, ["Male"], resamples=5)[
        "per_attribute"
    ]["Male"]
    assert scores["num_images"] == {"a": 60, "b": 40}
    assert scores["num_present"] == {"a": 30, "b": 30}
    assert scores["selection_rate"] == pytest.approx({"a": 0.3, "b": 1.0})
    assert scores["true_positive_rate"] == pytest.approx({"a": 0.5, "b": 1.0})
    assert scores["false_positive_rate"]["a"] == pytest.approx(0.1)
    assert np.isnan(scores["false_positive_rate"]["b"])  # of ten images


def test_an_attribute_without_labels_in_a_group_has_no_figure_there():
    labels = np.array([[1, 1]] * 40 + [[1, -100]] * 40)
    scores = group_scores(
        labels.clip(0, 1).astype(float),
        labels,
        ["a"] * 40 + ["b"] * 40,
        ["Male", "Young"],
        resamples=5,
    )
    assert scores["per_attribute"]["Young"]["num_images"] == {"a": 40}
    assert set(scores["per_attribute"]["Young"]["interval"]) == {"a"}
    assert scores["per_attribute"]["Young"]["gap"] is None
    assert scores["per_attribute"]["Male"]["gap"] == 0


def test_images_without_a_known_label_do_not_make_a_group_large():
    # Group a has 1,000 images of which five are labelled, and c none at all.
    groups = ["a"] * 1000 + ["b"] * 40 + ["c"] * 60 + ["d"] * 40
    labels = np.array([1] * 5 + [-100] * 995 + [1] * 40 + [-100] * 60 + [1] * 40)[:, None]
    right = np.array([0.0] * 1000 + [1.0] * 20 + [0.0] * 20 + [0.0] * 60 + [1.0] * 40)[:, None]
    scores = group_scores(right, labels, groups, ["Male"], resamples=20)
    counts = {g: (s["num_images"], s["small"]) for g, s in scores["per_group"].items()}
    assert counts == {"a": (5, True), "b": (40, False), "c": (0, True), "d": (40, False)}
    assert (scores["worst_group"], scores["best_group"], scores["gap"]) == ("b", "d", 0.5)


def test_intervals_of_accuracies_end_at_zero_and_one_and_those_of_gaps_do_not():
    wrong = {"a": 1, "b": 2, "c": 39, "d": 38, "e": 0}
    right = np.concatenate([[0.0] * n + [1.0] * (40 - n) for n in wrong.values()])
    scores = scores_of(right, np.repeat(list(wrong), 40).tolist())
    ends = np.array([s["interval"] for s in scores["per_group"].values()])
    by_attribute = np.array(list(scores["per_attribute"]["Young"]["interval"].values()))
    assert (ends == by_attribute).all()
    assert ends.min() == 0
    assert ends.max() == 1
    assert scores["gap"] == pytest.approx(39 / 40)
    assert scores["gap_interval"][1] > 1


def at_equal_ages(probabilities, labels, groups, strata, resamples):
    """Scores of all attributes together, standardised by stratum."""
    names = [str(a) for a in range(labels.shape[1])]
    predictions = Predictions(names, probabilities, labels)
    scores = scoring.standardised_scores(predictions, groups, strata, resamples)
    if scores["overall"] and len(names) == 1:
        np.testing.assert_equal(scores["per_attribute"], {"0": scores["overall"]})
    return scores["overall"]


def test_age_bands_meet_at_fifteen_and_leave_unknown_ages_unknown():
    ages = [0, 14, 15, 60, 116, None, -1, float("nan")]
    assert age_bands(ages) == ["0-4", "5-14", "15-29", "60+", "60+", None, None, None]


def test_a_gap_that_is_only_due_to_age_vanishes_when_adjusted():
    # Children are half right, adults all right, in both groups; group b has more children.
    groups = ["a"] * 200 + ["b"] * 200
    ages = ["child"] * 40 + ["adult"] * 160 + ["child"] * 160 + ["adult"] * 40
    right = [1, 0] * 20 + [1] * 160 + [1, 0] * 80 + [1] * 40
    adjusted = at_equal_ages(
        np.asarray(right, dtype=float)[:, None],
        np.ones((400, 1), dtype=int),
        groups,
        ages,
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
    adjusted = at_equal_ages(right, np.ones((100, 1), dtype=int), groups, ages, resamples=5)
    assert adjusted["strata_left_out"] == ["old"]
    assert adjusted["gap"] == pytest.approx(0.5)


def test_groups_that_share_no_stratum_cannot_be_adjusted():
    assert (
        at_equal_ages(
            np.ones((80, 1)),
            np.ones((80, 1), dtype=int),
            ["a"] * 40 + ["b"] * 40,
            ["x"] * 40 + ["y"] * 40,
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
    adjusted = at_equal_ages(probabilities, labels, list(groups), list(strata), resamples=5)
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
    adjusted = at_equal_ages(right, np.ones((240, 1), dtype=int), groups, strata, resamples=50)
    assert max(s["interval"][1] for s in adjusted["per_group"].values()) == 1


def test_each_attribute_is_standardised_by_the_strata_that_it_has():
    # The second attribute has no known label of the old: their stratum counts for the first alone.
    labels = np.ones((160, 2), dtype=int)
    strata = ["young", "old"] * 80
    labels[1::2, 1] = -100
    right = np.array([[1.0, 1.0]] * 80 + [[1.0, 1.0], [0.0, 0.0]] * 40)
    groups = ["a"] * 80 + ["b"] * 80
    scores = scoring.standardised_scores(
        Predictions(["Male", "Young"], right, labels), groups, strata, resamples=5
    )["per_attribute"]
    assert scores["Male"]["strata"] == {"old": 0.5, "young": 0.5}
    assert scores["Male"]["gap"] == pytest.approx(0.5)
    assert scores["Young"]["strata"] == {"young": 1.0}
    assert scores["Young"]["strata_left_out"] == ["old"]
    assert scores["Young"]["gap"] == pytest.approx(0)


def test_groups_of_any_text_are_in_one_order():
    names = ["5-14", "15-29", "²", "$", "서울", "05", "5", ""]
    values, cells = cells_of([*names, None])
    assert values == cells_of([None, *names[::-1]])[0]
    assert values.index("5-14") < values.index("15-29")
    assert cells.sum(axis=1).tolist() == [1] * len(names) + [0]
