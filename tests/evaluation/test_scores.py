import numpy as np
import pytest
from label2label.errors import UserError
from label2label.evaluation.scores import Predictions, score_predictions


def make(**options):
    defaults = {
        "names": ["Male", "Young"],
        "probabilities": np.full((40, 2), 0.9),
        "labels": np.ones((40, 2), dtype=int),
    }
    return Predictions(**(defaults | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probabilities": np.full((39, 2), 0.9)}, r"predictions of shape \(39, 2\)"),
        ({"probabilities": np.full((40, 3), 0.9)}, "40 images and 2 attributes"),
        ({"query_probabilities": np.full((40, 1), 0.9)}, "query predictions of shape"),
        ({"probabilities": np.full((40, 2), np.nan)}, "no probabilities"),
        ({"probabilities": np.full((40, 2), 1.5)}, "no probabilities"),
        ({"labels": np.full((40, 2), -1)}, "labels must be 1, 0, or -100"),
        ({"names": ["Male"]}, "labels of shape"),
        ({"groups": {"race": ["White"] * 41}}, "race: 41 values for 40 images"),
        ({"ages": [20] * 39}, "ages: 39 values for 40 images"),
        ({"identities": ["ann"] * 39}, "identities: 39 values for 40 images"),
    ],
)
def test_what_does_not_belong_together_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_what_the_language_model_adds_is_paired_with_the_queries():
    right = np.array([1.0] * 36 + [0.0] * 4)[:, None].repeat(2, axis=1)
    queries = right.copy()
    queries[:2] = 0  # wrong where the sentence is right
    added = score_predictions(make(probabilities=right, query_probabilities=queries))
    assert added["over_queries"]["difference"] == pytest.approx(added["accuracy"] - 0.85)
    low, high = added["over_queries"]["interval"]
    assert -0.01 < low < 0.05 < high < 0.15
    assert score_predictions(make())["over_queries"] is None


def test_the_older_are_scored_apart_with_groups_of_their_own():
    # Children are all wrong; among adults group b is right in 20 of 30.
    ages = [3] * 20 + [15] * 40 + [5] * 20 + [90] * 30 + [None] * 5
    right = [0] * 20 + [1] * 40 + [0] * 20 + [1] * 20 + [0] * 10 + [1] * 5
    groups = {"race": ["a"] * 60 + ["b"] * 50 + ["a"] * 5}
    scores = score_predictions(
        make(
            names=["Male"],
            probabilities=np.array(right, dtype=float)[:, None],
            labels=np.ones((115, 1), dtype=int),
            ages=ages,
            groups=groups,
        ),
        resamples=20,
    )
    older = scores["minimum_age"]
    assert older["years"] == 15
    assert older["num_images"] == 70
    assert older["accuracy"] == pytest.approx(60 / 70, abs=1e-6)
    male = older["groups"]["race"]["per_attribute"]["Male"]
    assert male["accuracy"] == {"a": 1.0, "b": pytest.approx(2 / 3, abs=1e-6)}
    assert male["num_images"] == {"a": 40, "b": 30}
    assert scores["groups"]["race"]["per_attribute"]["Male"]["num_images"] == {"a": 65, "b": 50}
    assert older["per_attribute"]["Male"]["num_labels"] == 70


def test_without_ages_nothing_is_said_of_them():
    scores = score_predictions(make(groups={"race": ["a", "b"] * 20}), resamples=5)
    assert scores["minimum_age"] is None
    assert scores["age_adjusted"] == {}


def test_age_adjusted_gaps_of_sparse_ages_rest_on_merged_bands():
    # No group has 30 images in any narrow band, but each has ten on either side of 15.
    ages = [1, 8, 20, 35, 50, 70] * 16
    groups = {"race": ["a"] * 48 + ["b"] * 48}
    scores = score_predictions(
        make(
            probabilities=np.full((96, 2), 0.9),
            labels=np.ones((96, 2), dtype=int),
            ages=ages,
            groups=groups,
        ),
        resamples=5,
    )
    male = scores["age_adjusted"]["race"]["per_attribute"]["Male"]
    assert male["gap"] == 0
    assert sum(male["per_group"]["a"]["num_images"].values()) == 48
    assert "0-14" in male["strata"]


def test_no_interval_leaves_the_range_of_its_score():
    generator = np.random.default_rng(0)
    scores = score_predictions(
        make(probabilities=generator.random((12, 2)), labels=generator.integers(0, 2, (12, 2))),
        resamples=200,
    )
    for low, high in scores["intervals"].values():
        assert 0 <= low <= high <= 1
