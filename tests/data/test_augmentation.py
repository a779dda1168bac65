"""Augmentation: nothing changes by default, everything follows from the seed."""

import numpy as np
import pytest
from label2label import Label2LabelImageProcessor
from label2label.data.augmentation import Augmentation


@pytest.fixture
def image() -> np.ndarray:
    rows, columns = np.mgrid[0:109, 0:89]
    return np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)


def augment(image, seed=0, size=112, **kwargs) -> np.ndarray:
    return Augmentation(**kwargs)(image, size, np.random.default_rng(seed))


def test_without_changes_it_is_the_processors_crop(image):
    from PIL import Image

    processor = Label2LabelImageProcessor(do_rescale=False, do_normalize=False)
    crop = processor(Image.fromarray(image))["pixel_values"][0].transpose(1, 2, 0)
    difference = augment(image).astype(float) - crop
    assert np.abs(difference[2:-2, 2:-2]).max() <= 2


def test_the_same_seed_gives_the_same_crop_and_another_another(image):
    changes = {"flip": 0.5, "shift": 0.1, "scale": 0.1, "rotation": 10, "color": 0.3}
    changes |= {"grayscale": 0.5, "blur": 0.5, "erasing": 0.5}
    first = augment(image, seed=1, **changes)
    assert np.array_equal(first, augment(image, seed=1, **changes))
    assert not np.array_equal(first, augment(image, seed=2, **changes))
    assert first.shape == (112, 112, 3)
    assert first.dtype == np.uint8


def test_flip_mirrors(image):
    difference = augment(image, flip=1.0).astype(int) - augment(image)[:, ::-1]
    assert np.abs(difference).max() <= 1


def test_grayscale_makes_channels_equal(image):
    gray = augment(image, grayscale=1.0)
    assert np.ptp(gray.astype(int), axis=-1).max() <= 1


def test_erasing_covers_2_to_15_percent():
    flat = np.full((112, 112, 3), 7, np.uint8)
    for seed in range(20):
        erased = augment(flat, seed=seed, erasing=1.0)
        share = (erased != 7).any(axis=-1).mean()
        assert 0.015 < share < 0.16


def test_a_large_photo_is_not_aliased():
    stripes = np.zeros((1120, 1120, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = augment(stripes)
    assert np.abs(crop.astype(int) - 127).max() < 16


def test_shift_moves_by_at_most_its_share():
    dot = np.zeros((112, 112, 3), np.uint8)
    dot[56, 56] = 255
    for seed in range(10):
        moved = augment(dot, seed=seed, shift=0.1)[..., 0]
        row, column = np.unravel_index(moved.argmax(), moved.shape)
        assert abs(row - 56) <= 12
        assert abs(column - 56) <= 12
