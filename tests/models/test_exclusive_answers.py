"""Answers that do not contradict each other: by hand, and against every set there is."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from label2label import Label2LabelImageProcessor
from label2label.models.exclusive_answers import CELEBA_EXCLUSIVE_ANSWERS, decide_answers

NAMES = sorted({name for group in CELEBA_EXCLUSIVE_ANSWERS for name in group})


def test_without_a_contradiction_thresholds_decide_alone():
    names = ["Bald", "No_Beard", "Young"]
    probabilities = np.array([[0.3, 0.5, 0.9], [0.29, 0.49, 0.1]])
    present = decide_answers(probabilities, [0.3, 0.5, 0.95], names, CELEBA_EXCLUSIVE_ANSWERS)
    assert present.tolist() == [[True, True, False], [False, False, False]]


def test_of_two_that_exclude_each_other_the_surer_stays():
    names, rules = ["Straight_Hair", "Wavy_Hair"], CELEBA_EXCLUSIVE_ANSWERS
    assert decide_answers([[0.6, 0.7]], [0.5, 0.5], names, rules).tolist() == [[False, True]]
    # Surer than its threshold asks, not surer in itself.
    assert decide_answers([[0.4, 0.7]], [0.1, 0.6], names, rules).tolist() == [[True, False]]
    assert decide_answers([[0.6, 0.7]], [0.5, 0.5], names, None).all()
    assert decide_answers([[0.6, 0.7]], [0.5, 0.5], ["a", "b"], rules).all()


def test_one_sure_answer_can_give_way_to_several():
    names = ["No_Beard", "Goatee", "Mustache", "Sideburns"]
    together = decide_answers(
        [[0.9, 0.8, 0.8, 0.1]], [0.5] * 4, names, CELEBA_EXCLUSIVE_ANSWERS
    )  # odds of 9 against 4 * 4
    assert together.tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_it_is_the_most_probable_of_all_sets_without_a_contradiction(threshold):
    rng = np.random.default_rng(0)
    probabilities = rng.random((40, len(NAMES)))
    least = np.full(len(NAMES), threshold)
    found = decide_answers(probabilities, least, NAMES, CELEBA_EXCLUSIVE_ANSWERS)
    groups = [[NAMES.index(name) for name in group] for group in CELEBA_EXCLUSIVE_ANSWERS]
    sets = np.array(list(itertools.product([False, True], repeat=len(NAMES))))
    sets = sets[np.all([sets[:, group].sum(1) <= 1 for group in groups], axis=0)]
    odds = np.log(probabilities / (1 - probabilities)) - np.log(least / (1 - least))
    best = sets[(odds @ sets.T).argmax(axis=1)]
    assert (found == best).all()
    assert (found != (probabilities >= least)).any()
    assert not (found & (probabilities < least)).any()


def test_certain_answers_and_extreme_thresholds_have_an_answer_too():
    names, rules = ["Bald", "Bangs"], CELEBA_EXCLUSIVE_ANSWERS
    assert decide_answers([[1.0, 1.0]], [0.0, 1.0], names, rules).sum() == 1
    assert decide_answers([[0.0, 0.0]], [0.0, 0.0], names, rules).sum() == 1
    assert decide_answers([[np.nan, 1.0]], [0.5, 0.5], names, rules).tolist() == [[False, True]]
    assert decide_answers(np.zeros((0, 2)), [0.5, 0.5], names, rules).shape == (0, 2)


def test_rules_that_cannot_be_gone_through_are_refused():
    names = [f"a{i}" for i in range(40)]
    star = [["a0", name] for name in names[1:]]
    with pytest.raises(ValueError, match="join 40 attributes"):
        decide_answers(np.zeros((1, 40)), [0.5] * 40, names, star)


def test_the_processor_decides_by_its_rules_and_keeps_probabilities(tmp_path):
    names = ["Bald", "Bangs", "Young"]
    outputs = SimpleNamespace(logits=np.array([[2.0, 1.0, 3.0]]))
    processor = Label2LabelImageProcessor(attributes=names)
    (answers,) = processor.post_process_attributes(outputs)
    assert [answers[name]["present"] for name in names] == [True, False, True]
    assert answers["Bangs"]["probability"] == pytest.approx(0.731, abs=1e-3)
    (answers,) = processor.post_process_attributes(outputs, threshold=0.9)
    assert [answers[name]["present"] for name in names] == [False, False, True]
    (answers,) = processor.post_process_attributes(outputs, threshold=0.1)
    assert [answers[name]["present"] for name in names] == [True, False, True]

    Label2LabelImageProcessor(attributes=names, exclusive_answers=[]).save_pretrained(tmp_path)
    (answers,) = Label2LabelImageProcessor.from_pretrained(tmp_path).post_process_attributes(
        outputs
    )
    assert all(answer["present"] for answer in answers.values())
