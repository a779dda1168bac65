"""Brightness and left-right balance of face crops, and whether they lie in a reference's range."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from label2label.data.preparation.images import BadImageError, decode_image
from label2label.data.preparation.reading import read_images
from label2label.errors import UserError

CENTRAL_SHARE = 0.95
"""Share of the reference's images that lie inside the range, as many left out on either side."""

MAX_REFERENCE_IMAGES = 2000


def measure_lighting(image: np.ndarray) -> tuple[float, float]:
    """Brightness and left-right balance of a face crop.

    Args:
        image: (height, width, 3) uint8, RGB; only its central square counts.

    Returns:
        Mean luma (0..255), and the difference of the right and left halves' means over their sum
        (-1 lit from the left only, 1 from the right only).
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    luma = image[top : top + side, left : left + side] @ np.array([0.299, 0.587, 0.114])
    left_half, right_half = luma[:, : side // 2].mean(), luma[:, side - side // 2 :].mean()
    total = left_half + right_half
    return float(luma.mean()), float((right_half - left_half) / total) if total else 0.0


@dataclass(frozen=True)
class LightingRange:
    """Lighting that a reference dataset has.

    Args:
        brightness: Lowest and highest mean luma, 0..255.
        balance: Lowest and highest left-right balance, -1..1.
    """

    brightness: tuple[float, float]
    balance: tuple[float, float]

    def __contains__(self, image: np.ndarray) -> bool:
        """Whether a face crop, (height, width, 3) uint8, is lit like the reference."""
        brightness, balance = measure_lighting(image)
        return (
            self.brightness[0] <= brightness <= self.brightness[1]
            and self.balance[0] <= balance <= self.balance[1]
        )


def measure_reference(dataset: Path) -> LightingRange:
    """Range of lighting of a prepared dataset.

    Args:
        dataset: Its folder; the first `MAX_REFERENCE_IMAGES` training images are measured.

    Returns:
        The central range that `CENTRAL_SHARE` of them lie in, for each measure.

    Raises:
        UserError: If the folder holds no prepared dataset or an image of it cannot be decoded.
    """
    try:
        measures = [
            measure_lighting(decode_image(data))
            for data in read_images(dataset, "train", MAX_REFERENCE_IMAGES)
        ]
    except BadImageError as error:
        raise UserError(f"{dataset}, the reference, holds an image that {error}") from error
    if not measures:
        raise UserError(f"{dataset}, the reference, has no training images")
    tail = 50 * (1 - CENTRAL_SHARE)
    (darkest, left), (brightest, right) = np.percentile(measures, [tail, 100 - tail], axis=0)
    return LightingRange(
        brightness=(float(darkest), float(brightest)), balance=(float(left), float(right))
    )
