"""Augmentation of training faces, in batches of uint8 tensors on any device."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Scales of `zoom`: from loose crops to faces twice as large as a detector's framing.
ZOOM_RANGE = (0.75, 2.0)
BLUR_RANGE = (0.3, 1.5)  # standard deviation, pixels
ERASED_AREA = (0.02, 0.15)  # of the crop
LUMA = (0.299, 0.587, 0.114)
NUM_DRAWS = 21


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training faces; with all settings 0, the model's centre crop.

    Args:
        flip: Probability, 0..1, of a horizontal mirror image.
        shift: Largest shift each way, as a fraction of the crop's side.
        scale: Largest relative change of scale each way, 0..1.
        zoom: Probability, 0..1, of a scale drawn log-uniformly from `ZOOM_RANGE` instead, for
            images that were not framed by a detector.
        rotation: Largest rotation each way, in degrees.
        color: Largest relative change, 0..1, of brightness, contrast and saturation each.
        grayscale: Probability, 0..1, of dropping colour.
        blur: Probability, 0..1, of a Gaussian blur (`BLUR_RANGE`).
        erasing: Probability, 0..1, of covering a rectangle of 2 to 15 % of the crop with noise
            (arXiv:1708.04896).
    """

    flip: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    zoom: float = 0.0
    rotation: float = 0.0
    color: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    erasing: float = 0.0

    def __call__(self, images: Tensor, size: int, draws: np.ndarray) -> Tensor:
        """Crop each image and change it at random.

        Args:
            images: RGB, uint8, (batch, height, width, 3), on any device; the short side spans the
                model's crop.
            size: Side of the result, in pixels.
            draws: (batch, NUM_DRAWS), uniform in 0..1, from `draw_uniform`. Drawn on the CPU, so
                that results are the same on every device.

        Returns:
            float32, (batch, 3, size, size), 0..255.
        """
        geometry, color, blur, erasing = np.split(draws, (7, 11, 13), axis=1)
        crops = self._warp(images, size, geometry)
        if self.color or self.grayscale:
            crops = self._recolor(crops, color)
        if len(rows := np.flatnonzero(blur[:, 0] < self.blur)):
            index = torch.from_numpy(rows).to(crops.device)
            crops[index] = gaussian_blur(crops[index], _between(BLUR_RANGE, blur[rows, 1]))
        if len(rows := np.flatnonzero(erasing[:, 0] < self.erasing)):
            index = torch.from_numpy(rows).to(crops.device)
            crops[index] = erase_rectangles(crops[index], erasing[rows, 1:])
        return crops

    def _warp(self, images: Tensor, size: int, draws: np.ndarray) -> Tensor:
        flip, zoom, zoom_scale, scale, rotation, right, down = draws.T
        height, width = images.shape[1:3]
        scales = np.where(
            zoom < self.zoom,
            np.exp(_between((math.log(ZOOM_RANGE[0]), math.log(ZOOM_RANGE[1])), zoom_scale)),
            1 + self.scale * (2 * scale - 1),
        )
        step = min(height, width) / size / scales  # source pixels per pixel of the crop
        angle = np.radians(self.rotation * (2 * rotation - 1))
        mirror = np.where(flip < self.flip, -1.0, 1.0)
        # Source position of the crop's pixel (x, y), both from their centres: matrix (x, y) + start
        cosine, sine = step * np.cos(angle), step * np.sin(angle)
        matrix = np.array([[mirror * cosine, mirror * sine], [-sine, cosine]]).transpose(2, 0, 1)
        shift = self.shift * size * (2 * np.stack([right, down], axis=1) - 1)
        start = -(matrix @ shift[..., None])
        # grid_sample counts from -1 to 1 between the centres of the outermost pixels.
        unit = np.array([2 / (width - 1), 2 / (height - 1)])[:, None]
        affine = np.concatenate([matrix, start], axis=2) * unit
        x_by, y_by, from_ = torch.from_numpy(affine.astype(np.float32)).to(images.device).unbind(2)
        offsets = torch.arange(size, device=images.device) - (size - 1) / 2
        grid = (
            x_by[:, None, None] * offsets[:, None]
            + (y_by[:, None] * offsets[:, None] + from_[:, None])[:, :, None]
        )  # (batch, size, size, 2)
        return functional.grid_sample(
            images.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=True
        )

    def _recolor(self, crops: Tensor, draws: np.ndarray) -> Tensor:
        """Change brightness, contrast and saturation, all affine in colour, by one matrix."""
        brightness, contrast, saturation = 1 + self.color * (2 * draws[:, :3].T - 1)
        saturation = np.where(draws[:, 3] < self.grayscale, 0.0, saturation)[:, None, None]
        matrix = saturation * np.eye(3) + (1 - saturation) * np.array(LUMA)
        matrix *= (brightness * contrast)[:, None, None]
        tensors = matrix, brightness * (1 - contrast)
        matrix, share = (torch.from_numpy(t.astype(np.float32)).to(crops.device) for t in tensors)
        mean = crops.mean(dim=(2, 3)) @ crops.new_tensor(LUMA)  # (batch,), of the gray images
        offset = (share * mean)[:, None, None].expand(-1, 3, 1)
        return torch.baddbmm(offset, matrix, crops.flatten(2)).clamp_(0, 255).view_as(crops)


def gaussian_blur(images: Tensor, sigmas: np.ndarray) -> Tensor:
    """Blur each of the images (batch, channels, height, width) by its own Gaussian.

    `sigmas` are standard deviations in pixels, (batch,), at most 1.5.
    """
    radius = 4
    kernels = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigmas[:, None] ** 2))
    kernels /= kernels.sum(axis=1, keepdims=True)
    batch, channels, height, width = images.shape
    weights = torch.from_numpy(kernels.astype(np.float32)).to(images.device)
    weights = weights.repeat_interleave(channels, dim=0)[:, None]  # (batch * channels, 1, 9)
    padded = functional.pad(images, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    rows = functional.conv2d(padded, weights[:, :, None], groups=len(weights))
    both = functional.conv2d(rows, weights[..., None], groups=len(weights))
    return both.view(batch, channels, height, width)


def erase_rectangles(images: Tensor, draws: np.ndarray) -> Tensor:
    """Cover a rectangle of each image with noise (random erasing, arXiv:1708.04896).

    Args:
        images: (batch, 3, size, size), 0..255.
        draws: (batch, 7), uniform in 0..1: area, aspect ratio, position (two), and the noise's
            colour (three).
    """
    size = images.shape[-1]
    area = _between(ERASED_AREA, draws[:, 0]) * size * size
    aspect = np.exp(_between((math.log(0.4), math.log(2.5)), draws[:, 1]))
    sides = np.sqrt(area[:, None] * np.stack([aspect, 1 / aspect], axis=1))
    sides = sides.round().clip(1, size)  # height and width
    starts = np.floor(draws[:, 2:4] * (size - sides + 1))
    first, past = (
        torch.from_numpy(t.astype(np.float32)).to(images.device)[:, :, None]
        for t in (starts, starts + sides)
    )
    place = torch.arange(size, device=images.device)
    inside = (place >= first) & (place < past)  # (batch, 2, size)
    covered = inside[:, 0, :, None] & inside[:, 1, None, :]
    # One noise pattern for all, coloured per image: noise from a generator would depend on the
    # other images of the batch.
    field = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0)) * 255
    colors = torch.from_numpy(255 * draws[:, 4:7].astype(np.float32)).to(images.device)
    noise = (field.to(images.device) + colors[..., None, None]).remainder(255)
    return torch.where(covered[:, None], noise, images)


def draw_uniform(seed: int, epoch: int, rows: np.ndarray, occurrences: np.ndarray) -> np.ndarray:
    """Draw random numbers that depend only on each image, not on resuming or the processes.

    Args:
        seed, epoch: Not negative.
        rows: (batch,), index of each image.
        occurrences: (batch,), how often the epoch drew it before.

    Returns:
        float64, (batch, NUM_DRAWS), uniform in 0..1: a hash (splitmix64) of the arguments.
    """
    state = np.zeros((1, 1), np.uint64)
    parts = (
        np.array([[seed]]),
        np.array([[epoch]]),
        np.asarray(rows)[:, None],
        np.asarray(occurrences)[:, None],
        np.arange(NUM_DRAWS)[None],
    )
    for part in parts:
        state = state + part.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53


def _between(limits: tuple[float, float], draws: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * draws
