"""Augmentation: nothing changes by default, everything follows from seed, epoch and image."""

import cv2
import numpy as np
import pytest
import torch
from label2label.data.augmentation import NUM_DRAWS, Augmentation, draw_uniform, gaussian_blur

CHANGES = {"flip": 0.5, "shift": 0.1, "scale": 0.1, "zoom": 0.3, "rotation": 10, "color": 0.3}
CHANGES |= {"grayscale": 0.5, "blur": 0.5, "erasing": 0.5}


@pytest.fixture
def images() -> np.ndarray:
    rows, columns = np.mgrid[0:168, 0:140]
    image = np.stack([rows, columns + 50, (rows + columns) // 2], axis=-1).astype(np.uint8)
    return np.stack([image, image[::-1]])


def augment(images, seed=0, size=112, epoch=0, **changes) -> np.ndarray:
    draws = draw_uniform(seed, epoch, np.arange(len(images)), np.zeros(len(images), int))
    crops = Augmentation(**changes)(torch.from_numpy(images.copy()), size, draws)
    assert crops.shape == (len(images), 3, size, size)
    assert crops.min() >= 0
    assert crops.max() <= 255.01
    return crops.permute(0, 2, 3, 1).numpy()


def test_without_changes_it_is_the_centre(images):
    expected = cv2.resize(images[0, 14:154], (112, 112), interpolation=cv2.INTER_LINEAR)
    assert np.abs(augment(images)[0] - expected)[2:-2, 2:-2].max() <= 1


def test_the_same_seed_gives_the_same_crops_and_another_epoch_others(images):
    first = augment(images, seed=1, **CHANGES)
    assert np.array_equal(first, augment(images, seed=1, **CHANGES))
    assert not np.array_equal(first, augment(images, seed=1, epoch=1, **CHANGES))
    assert not np.array_equal(first, augment(images, seed=2, **CHANGES))


def test_a_warp_turns_scales_and_moves_as_opencv_does(images):
    draws = np.full((1, NUM_DRAWS), 0.5)
    draws[0, [0, 3, 4, 5, 6]] = 0.0, 1.0, 1.0, 1.0, 0.0  # mirrored, larger, turned, right, up
    changes = Augmentation(flip=1, scale=0.2, rotation=30, shift=0.1)
    found = changes(torch.from_numpy(images[:1].copy()), 112, draws)[0].permute(1, 2, 0).numpy()
    scale, angle = 1.2 * 112 / 140, np.radians(30)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix * [[-1.0, 1.0]]
    offset = 55.5 + np.array([11.2, -11.2]) - matrix @ [69.5, 83.5]
    expected = cv2.warpAffine(
        images[0],
        np.column_stack([matrix, offset]),
        (112, 112),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    assert np.abs(found - expected).max() <= 2


def test_flip_mirrors(images):
    assert np.abs(augment(images, flip=1.0) - augment(images)[:, :, ::-1]).max() < 0.1


def test_zoom_shows_faces_from_loose_to_twice_as_large():
    # A disc 40 pixels wide in the crop, of 1,257 pixels of area
    image = np.zeros((168, 140, 3), np.uint8)
    cv2.circle(image, (70, 84), 25, (255, 255, 255), -1)
    areas = (augment(np.stack([image] * 200), zoom=1.0)[..., 0] > 127).sum(axis=(1, 2))
    scales = np.sqrt(areas / 1257)
    assert 0.7 < scales.min() < 0.85
    assert 1.8 < scales.max() < 2.1
    plain = (augment(np.stack([image] * 50), zoom=0.0)[..., 0] > 127).sum(axis=(1, 2))
    assert np.ptp(plain) == 0


def test_grayscale_makes_channels_equal(images):
    assert np.ptp(augment(images, grayscale=1.0), axis=-1).max() < 0.01


def test_colour_changes_stay_within_their_share():
    flat = np.full((100, 140, 140, 3), 100, np.uint8)
    values = augment(flat, color=0.2).mean(axis=(1, 2, 3))
    assert 79 < values.min() < 85
    assert 115 < values.max() < 121


def test_each_image_is_blurred_by_its_own_deviation(images):
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    found = gaussian_blur(torch.from_numpy(noise).permute(0, 3, 1, 2).float(), np.array([0.5, 1.5]))
    for image, blurred, sigma in zip(noise, found, (0.5, 1.5), strict=True):
        expected = cv2.GaussianBlur(image.astype(np.float32), (9, 9), sigma)
        assert np.abs(blurred.permute(1, 2, 0).numpy() - expected).max() < 0.01


def test_erasing_covers_2_to_15_percent():
    flat = np.full((40, 168, 140, 3), 7, np.uint8)
    shares = (np.abs(augment(flat, erasing=1.0) - 7) > 0.01).any(axis=-1).mean(axis=(1, 2))
    assert 0.015 < shares.min() < 0.05
    assert 0.1 < shares.max() < 0.16


def test_shift_moves_by_at_most_its_share():
    dot = np.zeros((30, 168, 140, 3), np.uint8)
    dot[:, 82:86, 68:72] = 255
    for moved in augment(dot, shift=0.1)[..., 0]:
        row, column = np.unravel_index(moved.argmax(), moved.shape)
        assert abs(row - 55.5) <= 13
        assert abs(column - 55.5) <= 13


def test_an_images_draws_depend_on_nothing_else_in_the_batch():
    rows, times = np.array([5, 9, 9]), np.array([0, 0, 1])
    draws = draw_uniform(3, 2, rows, times)
    assert draws.shape == (3, NUM_DRAWS)
    assert np.array_equal(draws[1:2], draw_uniform(3, 2, rows[1:2], times[1:2]))
    many = draw_uniform(0, 0, np.arange(5000), np.zeros(5000, int))
    assert many.mean(axis=0) == pytest.approx(0.5, abs=0.02)
    assert many.std(axis=0) == pytest.approx(12**-0.5, abs=0.01)
    assert np.abs(np.corrcoef(many.T) - np.eye(NUM_DRAWS)).max() < 0.07
    assert len(np.unique(many)) == many.size
