"""Blur faces as a camera does, for training `Blurry` where few images have it."""

from __future__ import annotations

import cv2
import numpy as np

BLUR_KINDS = ("motion", "focus")
MIN_EXTENT, MAX_EXTENT = 0.05, 0.12
"""Length of the motion, or diameter of the spot, as a share of the shorter side: below 5 % a face
of CelebA's size still looks sharp."""


def draw_blur(image: np.ndarray, kind: str, generator: np.random.Generator) -> np.ndarray:
    """Blur a whole image.

    Args:
        image: (height, width, 3) uint8, RGB.
        kind: One of `BLUR_KINDS`: along a line (the camera or the face moved), or over a disc (the
            lens is out of focus).
        generator: Decides the extent and the direction.

    Returns:
        A new image of the same shape and dtype.

    Raises:
        ValueError: If `kind` is unknown.
    """
    if kind not in BLUR_KINDS:
        raise ValueError(f"unknown kind of blur {kind!r}: choose one of {', '.join(BLUR_KINDS)}")
    extent = max(3.0, generator.uniform(MIN_EXTENT, MAX_EXTENT) * min(image.shape[:2]))
    size = int(np.ceil(extent)) // 2 * 2 + 1
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    if kind == "motion":
        angle = generator.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (extent - 1) / 2
        ends = np.round((middle + np.stack([-reach, reach])) * 16).astype(int)
        start, end = (tuple(map(int, point)) for point in ends)
        cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, 4)
    else:
        center = (16 * middle, 16 * middle)
        cv2.circle(kernel, center, round(8 * (extent - 1)), 1.0, -1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
