"""Frame faces as CelebA does: by five landmarks where there are some, else by the face's box."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from label2label.faces.alignment import align_face
from label2label.faces.detection import Face

CELEBA_SIZE = (178, 218)
CELEBA_LANDMARKS = np.array(
    [[69.7, 112.0], [108.0, 111.3], [88.8, 134.5], [72.9, 152.5], [105.9, 151.8]]
)
"""Width and height of CelebA's aligned images, and where YuNet finds the five landmarks in them:
means over 991 images, by `benchmarks/alignment_template.py`."""

CROP_SIDE = 1.5
CROP_RISE = 0.135
"""CelebA's crop, in heights of the face that YuNet detects: its side, and its middle above the
face's. Measured on CelebA's images."""

MAX_CROP_PIXELS = 224


def choose_face(faces: Sequence[Face], photo: np.ndarray) -> Face:
    """Of several faces, the one that a photo of one person shows.

    Args:
        faces: At least one.
        photo: (height, width, 3), in which they were found.

    Returns:
        The face nearest to the photo's middle, in heights of its own: bystanders are smaller or
        further out.
    """
    middle = np.array(photo.shape[1::-1]) / 2

    def distance(face: Face) -> float:
        x0, y0, x1, y1 = face.box
        return float(np.hypot(*(middle - [(x0 + x1) / 2, (y0 + y1) / 2]))) / (y1 - y0)

    return min(faces, key=distance)


def align_like_celeba(photo: np.ndarray, face: Face) -> np.ndarray:
    """Turn, scale and shift a face onto CelebA's mean landmarks.

    Args:
        photo: (height, width, 3) uint8, RGB.
        face: A face of this photo; without landmarks its box says where they are on average.

    Returns:
        (218, 178, 3) uint8, RGB, framed as CelebA's aligned images are; beyond the photo's edge its
        edge pixels repeat.
    """
    width, height = CELEBA_SIZE
    margin = (height - width) // 2
    square = align_face(photo, face, CELEBA_LANDMARKS + np.array([margin, 0]), height)
    return square[:, margin : margin + width]


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
