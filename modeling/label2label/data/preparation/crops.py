"""Crop a face from a photo as CelebA frames its faces."""

from __future__ import annotations

import cv2
import numpy as np

CROP_SIDE = 1.5
CROP_RISE = 0.135
"""CelebA's crop, in heights of the face that YuNet detects: its side, and its middle above the
face's. Measured on CelebA's images."""

MAX_CROP_PIXELS = 224


def crop_face(photo: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Crop a square that frames the face as CelebA does.

    Args:
        photo: (height, width, 3) uint8, RGB.
        box: (x0, y0, x1, y1) of the face in pixels.

    Returns:
        Square crop, uint8, RGB, of at most `MAX_CROP_PIXELS`; beyond the photo's edge its edge
        pixels repeat.
    """
    x0, y0, x1, y1 = box
    side = CROP_SIDE * (y1 - y0)
    left = (x0 + x1 - side) / 2
    top = (y0 + y1 - side) / 2 - CROP_RISE * (y1 - y0)
    pixels = max(1, min(MAX_CROP_PIXELS, round(side)))
    to_photo = np.array([[side / pixels, 0, left], [0, side / pixels, top]])
    reduction = side / pixels
    if reduction > 1:  # sampling alone would alias
        photo = cv2.GaussianBlur(photo, (0, 0), reduction / 2)
    return cv2.warpAffine(
        photo,
        to_photo,
        (pixels, pixels),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
