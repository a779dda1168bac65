"""The benchmark of framings crops about the centre, and scores each zoom by itself."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def framings(load_benchmark):
    return load_benchmark("framings")


def test_a_zoom_cuts_about_the_centre_and_repeats_the_edge(framings):
    image = np.zeros((40, 30, 3), np.uint8)
    image[:, :] = np.arange(30)[None, :, None]
    assert framings.zoom_in(image, 1.0).shape == (30, 30, 3)
    assert framings.zoom_in(image, 2.0)[0, :, 0].tolist() == list(range(7, 22))
    loose = framings.zoom_in(image, 0.5)
    assert loose.shape == (60, 60, 3)
    assert loose[0, :15, 0].tolist() == [0] * 15
    assert loose[0, 45:, 0].tolist() == [29] * 15


def test_each_zoom_is_scored_on_its_own_crop(framings):
    # A model that sees an attribute where the crop's corner is bright: it is dark in tight crops.
    crop = lambda pixels: pixels[:2, :2]  # noqa: E731
    model = SimpleNamespace(
        preprocessing=SimpleNamespace(crop=crop),
        predict=lambda crops: np.stack([crops[:, 0, 0, 0] / 255] * 2, axis=1),
    )
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[8:32, 8:32] = 0
    right = framings.count_right(model, [Image.fromarray(pixels)] * 3, np.array([[1, -100]] * 3))
    seen = dict(zip(framings.ZOOMS, right[0, :, 0].tolist(), strict=True))
    assert seen == {1.0: True, 0.8: True, 1.25: True, 1.5: True, 2.0: False}
    assert not right[:, :, 1].any()  # an unknown label is never right
