"""Sampling: shares that hold in every epoch, and orders that follow from the seed."""

import numpy as np
import pytest
from label2label.data.sampling import EpochSampler, draw_probabilities

SOURCES = np.array([0] * 60 + [1] * 40)
GROUPS = np.array([-1] * 60 + [0] * 30 + [1] * 8 + [2] * 2)


def test_without_probabilities_every_image_comes_once():
    sampler = EpochSampler(50, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(50))
    sampler.epoch = 1
    assert list(sampler) != first


@pytest.mark.parametrize("balanced", [False, True])
def test_any_position_of_an_epoch_can_be_gone_on_from(balanced):
    probabilities = draw_probabilities(SOURCES, [None, None], GROUPS) if balanced else None
    sampler = EpochSampler(100, 0, probabilities)
    sampler.epoch = 5
    whole = list(sampler)
    sampler.start = 37
    assert list(sampler) == whole[37:]
    assert len(sampler) == 63


def test_an_image_comes_as_often_as_its_probability_says():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(200))
    for epoch in range(5):
        sampler = EpochSampler(200, 1, probabilities)
        sampler.epoch = epoch
        draws = list(sampler)
        counts = np.bincount([row for row, _ in draws], minlength=200)
        assert len(set(draws)) == 200
        assert max(occurrence for _, occurrence in draws) == counts.max() - 1
        assert counts.sum() == 200
        assert (np.abs(counts - 200 * probabilities) < 1).all()


def test_groups_are_drawn_equally_often_and_the_rest_keeps_its_share():
    probabilities = draw_probabilities(SOURCES, [None, None], GROUPS)
    mass = [probabilities[group == GROUPS].sum() for group in (-1, 0, 1, 2)]
    assert mass == pytest.approx([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3])
    rows = [row for row, _ in EpochSampler(100, 0, probabilities)]
    drawn = np.bincount(GROUPS[rows] + 1)
    assert np.abs(drawn - 100 * np.array(mass)).max() <= 8


def test_shares_are_kept_and_the_others_divide_what_is_left():
    sources = np.array([0] * 30 + [1] * 10 + [2] * 5)
    probabilities = draw_probabilities(sources, [None, None, 0.5])
    mass = [probabilities[sources == source].sum() for source in range(3)]
    assert mass == pytest.approx([0.375, 0.125, 0.5])
    assert draw_probabilities(sources, [None, None, None]) is None


def test_a_group_of_a_source_without_a_share_is_not_drawn():
    sources = np.array([0] * 60 + [1] * 30 + [2] * 10)
    probabilities = draw_probabilities(sources, [None, None, 0], GROUPS)
    mass = [probabilities[group == GROUPS].sum() for group in (-1, 0, 1, 2)]
    assert mass == pytest.approx([2 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.8, 0.4], [1.0, None]])
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(ValueError, match="not to 1"):
        draw_probabilities(SOURCES, shares)
