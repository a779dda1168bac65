"""Draw face masks and blur, for training `Wearing_Mask` and `Blurry` where few images have them.

A mask is drawn from five landmarks. Its outline is defined in face coordinates (origin between the
eyes, one axis along the eyes, one from the eyes to the mouth), so that it rotates, scales and
shears with the face. It is shaded with the blurred luma of the face that it covers.
"""

from __future__ import annotations

import cv2
import numpy as np

MASK_KINDS = ("surgical", "cloth")
BLUR_KINDS = ("motion", "focus")
MIN_EXTENT, MAX_EXTENT = 0.05, 0.12
"""Length of the motion, or diameter of the spot, as a share of the shorter side: below 5 % a face
of CelebA's size still looks sharp."""

HIDDEN_BY_MASK = (
    "5_o_Clock_Shadow",
    "Beard",
    "Big_Lips",
    "Big_Nose",
    "Double_Chin",
    "Goatee",
    "High_Cheekbones",
    "Mouth_Slightly_Open",
    "Mustache",
    "No_Beard",
    "Oval_Face",
    "Pointy_Nose",
    "Rosy_Cheeks",
    "Smiling",
    "Wearing_Lipstick",
)
"""Attributes that cannot be seen under a mask: they are unknown once one is drawn."""

# Right half of the outline, from the bridge of the nose to below the chin. x: distance from the
# middle in units of the eye distance; y: distance below the eyes in units of eyes to mouth.
_OUTLINE = np.array([[0, 0.36], [0.3, 0.46], [0.82, 0.6], [0.86, 1.0], [0.6, 1.5], [0, 1.7]])
_STRAPS = np.array([[[0.8, 0.62], [1.15, 0.3]], [[0.74, 1.25], [1.12, 0.7]]])
_PLEATS = (0.85, 1.05, 1.25)
_SURGICAL_COLORS = ((165, 205, 228), (228, 234, 236), (172, 214, 202), (70, 74, 80))
_SUBPIXEL_BITS = 4


class FaceFrame:
    """Coordinate system of a face.

    Args:
        landmarks: (5, 2) pixels: left eye, right eye, nose tip, left and right mouth corner.

    Raises:
        ValueError: If the landmarks lie on a line.
    """

    def __init__(self, landmarks: np.ndarray):
        left_eye, right_eye, nose, left_mouth, right_mouth = np.asarray(landmarks, np.float64)
        self.origin = (left_eye + right_eye) / 2
        self.across = right_eye - left_eye
        self.down = (left_mouth + right_mouth) / 2 - self.origin
        self.axes = np.stack([self.across, self.down])
        if abs(np.linalg.det(self.axes)) < 1.0:
            raise ValueError("the landmarks do not span a face")
        # Offset of the nose tip from the middle: the head is turned to that side.
        turn = np.linalg.solve(self.axes.T, nose - self.origin)[0]
        self.turn = float(np.clip(turn, -0.4, 0.4))

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Convert face coordinates to pixels; foreshorten the side that is turned away."""
        x, y = points[..., 0], points[..., 1]
        x = x * np.where(x * self.turn > 0, 1 - abs(self.turn), 1 + abs(self.turn) / 2)
        return self.origin + np.stack([x, y], axis=-1) @ self.axes


def draw_mask(
    image: np.ndarray, landmarks: np.ndarray, kind: str, generator: np.random.Generator
) -> np.ndarray:
    """Draw a mask over the lower half of a face.

    Args:
        image: (height, width, 3) uint8, RGB.
        landmarks: (5, 2) pixels, as for `FaceFrame`.
        kind: One of `MASK_KINDS`.
        generator: Source of the mask's shape, color and texture.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ValueError: If the landmarks lie on a line or the kind is unknown.
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"unknown kind of mask {kind!r}: choose one of {', '.join(MASK_KINDS)}")
    frame = FaceFrame(landmarks)
    half = _OUTLINE * generator.uniform(0.95, 1.05, _OUTLINE.shape)
    outline = np.concatenate([half, half[-2:0:-1] * [-1, 1]])
    if kind == "surgical":
        color = np.array(_SURGICAL_COLORS[generator.integers(len(_SURGICAL_COLORS))], np.float64)
    else:
        color = generator.uniform(25, 230, 3)
    texture = np.broadcast_to(color, image.shape)
    thickness = max(1, round(0.03 * float(np.linalg.norm(frame.down))))
    if kind == "surgical":
        for down in _PLEATS:
            pleat = frame.to_pixels(np.array([[-0.8, down], [0, down + 0.06], [0.8, down]]))
            texture = texture * (1 - 0.2 * _cover_line(image.shape, pleat, thickness))
    elif generator.random() < 0.5:
        for across in np.arange(-0.9, 0.9, generator.uniform(0.15, 0.4)):
            stripe = frame.to_pixels(np.array([[across, 0.3], [across, 1.8]]))
            texture = texture * (1 - 0.5 * _cover_line(image.shape, stripe, 2 * thickness))
    cover = _cover_polygon(image.shape, frame.to_pixels(outline))
    straps = np.zeros_like(cover)
    for strap in _STRAPS:
        for side in (-1, 1):
            line = frame.to_pixels(strap * [side, 1])
            straps = np.maximum(straps, _cover_line(image.shape, line, thickness))
    shaded = texture * _shading(image, frame, cover)
    masked = image * (1 - straps) + color * straps
    masked = masked * (1 - cover) + shaded * cover
    return masked.clip(0, 255).astype(np.uint8)


def draw_blur(image: np.ndarray, kind: str, generator: np.random.Generator) -> np.ndarray:
    """Blur a whole image.

    Args:
        image: (height, width, 3) uint8, RGB.
        kind: One of `BLUR_KINDS`.
        generator: Source of the blur's extent and direction.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ValueError: If the kind is unknown.
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


def _shading(image: np.ndarray, frame: FaceFrame, cover: np.ndarray) -> np.ndarray:
    """Compute the light on the mask: the face's blurred luma, relative to its mean."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    light = cv2.GaussianBlur(luma, (0, 0), max(1.0, 0.3 * float(np.linalg.norm(frame.down))))
    mean = (light[..., None] * cover).sum() / max(cover.sum(), 1.0)
    return (light / max(mean, 1.0)).clip(0.4, 1.3)[..., None]


def _cover_polygon(shape: tuple[int, ...], points: np.ndarray) -> np.ndarray:
    canvas = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(canvas, [_subpixels(points)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas[..., None] / 255


def _cover_line(shape: tuple[int, ...], points: np.ndarray, thickness: int) -> np.ndarray:
    canvas = np.zeros(shape[:2], np.uint8)
    lines = [_subpixels(points)]
    cv2.polylines(canvas, lines, False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas[..., None] / 255


def _subpixels(points: np.ndarray) -> np.ndarray:
    # OpenCV's origin is the centre of the first pixel, the landmarks' origin its outer corner.
    return np.round((points - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
