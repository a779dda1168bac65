"""Random changes to training faces: geometry in one warp, then colour, blur and erasing."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

LARGEST = 1.25  # of the crop's side: what an image's shorter side is reduced to before its warp


@dataclass(frozen=True)
class Augmentation:
    """
    How much a training face may change. All zero leaves the centre crop that the image processor
    takes.

    Args:
        flip: Probability, 0..1, of a horizontal mirror image.
        shift: Largest shift each way, as a fraction of the crop's side.
        scale: Largest relative change of scale each way, 0..1.
        rotation: Largest rotation each way, in degrees.
        color: Largest relative change, 0..1, of brightness, contrast and saturation each.
        grayscale: Probability, 0..1, of dropping colour.
        blur: Probability, 0..1, of a slight Gaussian blur (sigma up to 1.5 pixels).
        erasing: Probability, 0..1, of covering a rectangle of 2 to 15 % of the crop with noise
            (arXiv:1708.04896).
    """

    flip: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    rotation: float = 0.0
    color: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    erasing: float = 0.0

    def __call__(self, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """
        Crops a face and changes it at random.

        Args:
            image: RGB, uint8, shape (height, width, 3).
            size: Side of the crop, in pixels.
            rng: Source of all randomness: the same state gives the same crop.

        Returns:
            RGB, uint8, shape (size, size, 3).
        """
        crop = self._warp(image, size, rng)
        if self.color or self.grayscale:
            crop = self._recolor(crop, rng)
        if rng.random() < self.blur:
            crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.3, 1.5))
        if rng.random() < self.erasing:
            crop = self._erase(crop, rng)
        return crop

    def _warp(self, image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        image = reduce_image(image, size)
        height, width = image.shape[:2]
        scale = size / min(height, width) * (1 + rng.uniform(-self.scale, self.scale))
        angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        shift = rng.uniform(-self.shift, self.shift, size=2) * size
        mirror = -1.0 if rng.random() < self.flip else 1.0
        rotation = scale * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        matrix = rotation * [[mirror], [1.0]]
        centre = (np.array([width, height]) - 1) / 2
        offset = (size - 1) / 2 + shift - matrix @ centre
        return cv2.warpAffine(
            image,
            np.column_stack([matrix, offset]),
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _recolor(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        brightness, contrast, saturation = 1 + rng.uniform(-self.color, self.color, size=3)
        if rng.random() < self.grayscale:
            saturation = 0.0
        # All three are affine in a pixel's colour, so one matrix does them in one pass.
        gray = np.array([0.299, 0.587, 0.114])
        saturate = saturation * np.eye(3) + (1 - saturation) * gray
        mean = gray @ cv2.mean(crop)[:3]
        offset = np.full((3, 1), brightness * (1 - contrast) * mean)
        return cv2.transform(crop, np.hstack([brightness * contrast * saturate, offset]))

    def _erase(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = crop.shape[0]
        area = rng.uniform(0.02, 0.15) * size * size
        aspect = math.exp(rng.uniform(math.log(0.4), math.log(2.5)))
        height = min(size, max(1, round(math.sqrt(area * aspect))))
        width = min(size, max(1, round(math.sqrt(area / aspect))))
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        crop = crop.copy()
        crop[top : top + height, left : left + width] = rng.integers(
            0, 256, (height, width, 3), np.uint8
        )
        return crop


def reduce_image(image: np.ndarray, size: int) -> np.ndarray:
    """
    Reduces an image from which a much smaller crop is to be taken: a warp alone would alias.

    Args:
        image: RGB, uint8, shape (height, width, 3).
        size: Side of the crop, in pixels.

    Returns:
        The image, its shorter side at most 1.25 times the crop's.
    """
    largest = round(LARGEST * size)
    height, width = image.shape[:2]
    if min(height, width) <= largest:
        return image
    ratio = largest / min(height, width)
    shape = (max(largest, round(ratio * width)), max(largest, round(ratio * height)))
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
