"""The coupling of known words finds what labels tell of each other."""

import numpy as np
import pytest
from label2label.evaluation.coupling import fit_coupling


def draw(images: int, seed: int) -> np.ndarray:
    """Labels of three attributes: the second is mostly the first, the third is no one's."""
    rng = np.random.default_rng(seed)
    first = rng.random(images) < 0.5
    second = np.where(rng.random(images) < 0.9, first, ~first)
    return np.stack([first, second, rng.random(images) < 0.5], axis=1).astype(int)


def test_it_finds_which_words_tell_of_which():
    labels = draw(4000, 0)
    nothing = np.zeros(labels.shape)  # a model that sees nothing in the image
    weight = fit_coupling(nothing, nothing, labels).numpy()
    assert weight.diagonal() == pytest.approx(0)
    # A surprise of one half either way says 0.9 or 0.1, a logit of 2.2; the fit stops on its way.
    assert 3.0 < weight[0, 1] < 4.4
    assert 3.0 < weight[1, 0] < 4.4
    assert np.abs(weight[[0, 1, 2, 2], [2, 2, 0, 1]]).max() < 0.5


def test_unknown_labels_are_neither_given_nor_asked():
    labels = draw(4000, 1)
    nothing = np.zeros(labels.shape)
    labels[:, 1] = -100
    weight = fit_coupling(nothing, nothing, labels).numpy()
    assert np.abs(weight[1]).max() == np.abs(weight[:, 1]).max() == 0
