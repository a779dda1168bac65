import json

import numpy as np
import pytest
from label2label.errors import UserError
from label2label.evaluation.predictions import Predictions
from label2label.evaluation.scores import compare_predictions, score_predictions


def make(**options):
    defaults = {
        "names": ["Male", "Young"],
        "probabilities": np.full((40, 2), 0.9),
        "labels": np.ones((40, 2), dtype=int),
    }
    return Predictions(**(defaults | options))


@pytest.mark.parametrize("probability", [np.nan, 1.5])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(UserError, match="not probabilities"):
        make(probabilities=np.full((40, 2), probability))
    with pytest.raises(UserError, match="not probabilities"):
        make(query_probabilities=np.full((40, 2), probability))


def test_what_the_language_model_adds_is_paired_with_the_queries():
    right = np.array([1.0] * 36 + [0.0] * 4)[:, None].repeat(2, axis=1)
    queries = right.copy()
    queries[:2] = 0  # wrong where the sentence is right
    added = score_predictions(make(probabilities=right, query_probabilities=queries))
    assert added["over_queries"]["difference"] == pytest.approx(added["accuracy"] - 0.85)
    low, high = added["over_queries"]["interval"]
    assert -0.01 < low < 0.05 < high < 0.15
    assert score_predictions(make())["over_queries"] is None


def test_without_ages_nothing_is_said_of_them():
    scores = score_predictions(make(groups={"race": ["a", "b"] * 20}), resamples=5)
    assert scores["age_adjusted"] == {}


def test_contradictory_answers_are_counted_before_and_after_they_are_decided():
    # Bald with bangs are 4 of 40 labels, 10 queries and 8 answers; of the two, Bald is surer.
    bald_and_bangs, bald = np.array([0.9, 0.8]), np.array([0.9, 0.1])
    labels = np.array([[1, 1]] * 4 + [[1, 0]] * 36)
    scores = score_predictions(
        make(
            names=["Bald", "Bangs"],
            probabilities=np.array([bald] * 2 + [bald_and_bangs] * 8 + [bald] * 30),
            query_probabilities=np.array([bald_and_bangs] * 10 + [bald] * 30),
            labels=labels,
            exclusive_answers=[["Bald", "Bangs"]],
        ),
        resamples=200,
    )["contradictions"]
    shares = {name: s["share"] for name, s in scores.items() if "share" in s}
    assert shares == {"labels": 0.1, "query_answers": 0.25, "answers": 0.2, "decided": 0}
    low, high = scores["answers"]["interval"]
    assert 0.05 < low < 0.2 < high < 0.35
    # Of the 8 answers that are taken away, 2 were right and 6 wrong.
    assert scores["accuracy"]["difference"] == pytest.approx(4 / 80)


def test_without_rules_about_its_attributes_nothing_is_said_of_contradictions():
    rules = [["Bald", "Bangs"], ["Male", "Bald"]]
    assert score_predictions(make(exclusive_answers=rules), 5)["contradictions"] is None


def test_no_interval_leaves_the_range_of_its_score():
    generator = np.random.default_rng(0)
    scores = score_predictions(
        make(probabilities=generator.random((12, 2)), labels=generator.integers(0, 2, (12, 2))),
        resamples=200,
    )
    for low, high in scores["intervals"].values():
        assert 0 <= low <= high <= 1


def predictions(right, **options):
    """Of one attribute, always present, predicted right where `right` says so."""
    right = np.asarray(right, dtype=float)[:, None]
    defaults = {"names": ["Young"], "labels": np.ones(right.shape, dtype=int)}
    return Predictions(probabilities=right, **(defaults | options))


GROUPS = {"race": ["a"] * 100 + ["b"] * 100 + ["c"] * 20}
BEFORE = [1] * 90 + [0] * 10 + [1] * 60 + [0] * 40 + [0] * 20
AFTER = [1] * 90 + [0] * 10 + [1] * 85 + [0] * 15 + [1] * 20


@pytest.fixture
def comparison():
    return compare_predictions(
        predictions(AFTER, groups=GROUPS), predictions(BEFORE, groups=GROUPS), resamples=400
    )


def test_overall_difference_by_hand(comparison):
    accuracy = comparison["overall"]["accuracy"]
    assert accuracy["model"] == pytest.approx(195 / 220, abs=1e-6)
    assert accuracy["other"] == pytest.approx(150 / 220, abs=1e-6)
    assert accuracy["difference"] == pytest.approx(45 / 220, abs=1e-6)
    assert accuracy["interval"][0] > 0.1
    assert accuracy["p_value"] < 0.01


def test_a_group_that_did_not_change_has_no_difference_at_all(comparison):
    unchanged = comparison["groups"]["race"]["per_group"]["a"]
    assert unchanged["difference"] == 0
    assert unchanged["interval"] == [0, 0]
    assert unchanged["p_value"] == 1


def test_a_paired_interval_is_narrower_than_that_of_two_samples(comparison):
    gain = comparison["groups"]["race"]["per_group"]["b"]
    assert gain["difference"] == pytest.approx(0.25)
    # 25 of 100 images turn right: binomial, whatever the other 75 are.
    half = 1.96 * np.sqrt(0.25 * 0.75 / 100)
    assert gain["interval"] == pytest.approx([0.25 - half, 0.25 + half], abs=0.03)


def test_the_gap_is_each_models_own_and_leaves_small_groups_out(comparison):
    gap = comparison["groups"]["race"]["gap"]
    assert gap["model"] == pytest.approx(0.05)
    assert gap["other"] == pytest.approx(0.3)
    assert gap["difference"] == pytest.approx(-0.25)
    small = comparison["groups"]["race"]["per_group"]["c"]
    assert small["small"]
    assert small["num_images"] == 20


def test_only_attributes_of_both_models_are_compared():
    labels = np.ones((40, 2), dtype=int)
    first = Predictions(["Young", "Male"], np.ones((40, 2)), labels)
    second = Predictions(["Bald", "Young"], np.ones((40, 2)) * [0.0, 1.0], labels)
    comparison = compare_predictions(first, second, resamples=5)
    assert list(comparison["per_attribute"]) == ["Young"]
    assert comparison["attributes_left_out"] == ["Male", "Bald"]
    assert comparison["overall"]["accuracy"]["difference"] == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (predictions([1, 0, 1], names=["Male"]), "share no attribute"),
        (predictions([1, 0]), "3 and 2 images cannot be paired"),
        (predictions([1, 0, 1], labels=np.zeros((3, 1), dtype=int)), "the same labels"),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(other, message):
    with pytest.raises(UserError, match=message):
        compare_predictions(predictions([1, 0, 1]), other, resamples=5)


def test_models_whose_shared_attributes_have_no_label_are_refused():
    labels = np.array([[1, -100]] * 3)
    one = Predictions(["Male", "Young"], np.ones((3, 2)), labels)
    other = Predictions(["Young", "Bald"], np.ones((3, 2)), labels[:, ::-1])
    with pytest.raises(UserError, match=r"share has a known label \(Young\)"):
        compare_predictions(one, other, resamples=5)


@pytest.mark.parametrize("seed", range(8))
def test_interval_and_p_value_of_a_calibration_error_do_not_contradict_each_other(seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (400, 5))
    probabilities, surer = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-1.35 * logits))
    labels = (generator.random((400, 5)) < probabilities).astype(int)
    models = [Predictions(list("abcde"), values, labels) for values in (probabilities, surer)]
    error = compare_predictions(*models, resamples=200)["overall"]["expected_calibration_error"]
    low, high = error["interval"]
    if abs(error["p_value"] - 0.05) > 0.011:  # the interval's ends lie between two draws
        assert (low > 0 or high < 0) == (error["p_value"] < 0.05)


def test_a_group_without_enough_known_labels_is_small_and_one_without_any_has_no_figures():
    groups = {"race": ["a"] * 100 + ["b"] * 60 + ["c"] * 60}
    labels = np.array([1] * 5 + [-100] * 95 + [1] * 60 + [-100] * 60)[:, None]
    before = [0] * 100 + [1] * 60 + [0] * 60
    compared = compare_predictions(
        predictions(AFTER, groups=groups, labels=labels),
        predictions(before, groups=groups, labels=labels),
        resamples=50,
    )
    race = compared["groups"]["race"]
    counts = {g: (s["num_images"], s["small"]) for g, s in race["per_group"].items()}
    assert counts == {"a": (5, True), "b": (60, False), "c": (0, True)}
    assert race["gap"] is None
    unknown = {"num_images", "small"} ^ set(race["per_group"]["c"])
    values = {name: race["per_group"]["c"][name] for name in unknown}
    assert values.pop("interval") == [None, None]
    assert values == dict.fromkeys(("model", "other", "difference", "p_value"))
    assert json.dumps(compared, allow_nan=False)
