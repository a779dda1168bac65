"""One detected face and its geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# The five points that face-recognition models are trained with, in a 112x112 crop (InsightFace).
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_UPRIGHT = np.array(ARCFACE_TEMPLATE) - np.mean(ARCFACE_TEMPLATE, axis=0)

# Beyond these limits, predictions are less accurate (measured by `benchmarks/photo.py`).
SMALL_FACE = 30.0  # pixels
TURNED_AWAY = 45.0  # degrees of yaw
CUT_MARGIN = 0.05  # of the face's size, between a landmark and the photo's edge
NOSE_DEPTH = 0.6  # of the eyes' distance: nose tip in front of eyes and mouth


@dataclass(frozen=True, eq=False)
class Face:
    """A face detected in a photo, in pixels of the photo.

    Coordinates are continuous: (0, 0) is the outer corner of the top left pixel, (width, height)
    is the outer corner of the bottom right pixel.

    Args:
        box: (x0, y0, x1, y1), left, top, right and bottom, in pixels, inside the photo.
        score: The detector's confidence, 0 to 1.
        landmarks: Float array (5, 2) of [x, y]: viewer's left eye, viewer's right eye, nose tip,
            viewer's left and right mouth corners, as seen when the face is upright; None from a
            detector that finds boxes only.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None

    @property
    def size(self) -> float:
        """Return the side, in pixels, of a square with the box's area."""
        x0, y0, x1, y1 = self.box
        return math.sqrt((x1 - x0) * (y1 - y0))

    @property
    def centre(self) -> np.ndarray:
        """Return the centre of the box, (2,) of [x, y]."""
        x0, y0, x1, y1 = self.box
        return np.array([(x0 + x1) / 2, (y0 + y1) / 2])

    @property
    def roll(self) -> float:
        """Return the clockwise roll in degrees, -180 to 180; 0 without landmarks.

        The rotation of `label2label.faces.alignment.estimate_similarity`, in closed form.
        """
        if self.landmarks is None:
            return 0.0
        points = self.landmarks - self.landmarks.mean(axis=0)
        sine = _UPRIGHT[:, 0] @ points[:, 1] - _UPRIGHT[:, 1] @ points[:, 0]
        return math.degrees(math.atan2(sine, (_UPRIGHT * points).sum()))

    @property
    def yaw(self) -> float:
        """Return the yaw to the viewer's right in degrees, -90 to 90; 0 without landmarks.

        A rough estimate from the nose tip's offset from the middle of eyes and mouth.
        """
        if self.landmarks is None:
            return 0.0
        left_eye, right_eye, nose, left_mouth, right_mouth = self.landmarks
        eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
        down = (mouth - eyes) / max(float(np.hypot(*(mouth - eyes))), 1e-6)
        across = np.array([down[1], -down[0]])
        breadth = max(float((right_eye - left_eye) @ across), 1e-6)
        return math.degrees(math.atan(float((nose - eyes) @ across) / (NOSE_DEPTH * breadth)))

    def find_flaws(self, width: float, height: float) -> list[str]:
        """List why predictions for this face, in a photo of this size, are less reliable.

        Any of `"small"`, `"cut"` (by the photo's edge) and `"turned away"`.
        """
        flaws = ["small"] if self.size < SMALL_FACE else []
        if self.landmarks is not None:
            margin = CUT_MARGIN * self.size
            low, high = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
            if low.min() < margin or (high > np.array([width, height]) - margin).any():
                flaws.append("cut")
        if abs(self.yaw) > TURNED_AWAY:
            flaws.append("turned away")
        return flaws
