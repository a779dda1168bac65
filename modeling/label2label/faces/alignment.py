"""Align a face to the model's crop by a similarity transform of five landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from label2label.faces.face import Face

# Mean landmarks in a Haar cascade's box, as fractions of its width and height: YuNet's
# landmarks in the boxes of OpenCV's frontalface_alt2, mean over 252 photos of LFW.
HAAR_LANDMARKS = np.array(
    [[0.312, 0.388], [0.697, 0.386], [0.505, 0.604], [0.348, 0.778], [0.675, 0.774]]
)


def choose_face(faces: Sequence[Face], photo: np.ndarray) -> Face:
    """Choose the main face of a photo that shows one person.

    It is the one nearest to the photo's centre, relative to the face's height: bystanders are
    smaller or further from the centre.
    """
    middle = np.array(photo.shape[1::-1]) / 2

    def distance(face: Face) -> float:
        return float(np.hypot(*(middle - face.centre))) / (face.box[3] - face.box[1])

    return min(faces, key=distance)


def estimate_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Estimate the least-squares similarity transform from one point set to another.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
    (1991), in the plane: with points as complex numbers, a rotation and scale is one factor, and
    never a mirror image.

    Args:
        source: Points (n, 2) of [x, y].
        target: Corresponding points (n, 2).

    Returns:
        Matrix (2, 3), float64: `matrix[:, :2] @ point + matrix[:, 2]` is the transformed point.

    Raises:
        ValueError: All source points coincide, so no scale is defined.
    """
    start, end = (np.asarray(points, np.float64) @ [1, 1j] for points in (source, target))
    centred = start - start.mean()
    if np.vdot(centred, centred).real < 1e-12 * len(start):
        raise ValueError("all landmarks are one point, so no transform is defined")
    factor = np.vdot(centred, end) / np.vdot(centred, centred)  # vdot conjugates the first
    shift = end.mean() - factor * start.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def estimate_crop_transform(
    face: Face, template: Sequence[Sequence[float]] | np.ndarray
) -> np.ndarray:
    """Estimate the transform from photo to crop that maps the face's landmarks to the template.

    A face without landmarks gets the mean landmarks in a Haar cascade's box. Arguments are as in
    `align_face`; the result is as in `estimate_similarity`.
    """
    landmarks = face.landmarks
    if landmarks is None:
        x0, y0, x1, y1 = face.box
        landmarks = HAAR_LANDMARKS * [x1 - x0, y1 - y0] + [x0, y0]
    return estimate_similarity(landmarks, np.asarray(template))


def align_face(
    photo: np.ndarray,
    face: Face,
    template: Sequence[Sequence[float]] | np.ndarray,
    size: int = 112,
) -> np.ndarray:
    """Cut a face out of a photo so that its landmarks lie on the template.

    A face larger than the crop is first reduced by averaging, to avoid aliasing. Beyond the photo,
    edge pixels repeat.

    Args:
        photo: RGB image (height, width, 3), uint8, 0 to 255.
        face: A face of this photo.
        template: Five [x, y] in pixels of the crop, in the order of `Face.landmarks`.
        size: Height and width of the crop in pixels.

    Returns:
        RGB crop (size, size, 3), uint8, 0 to 255.
    """
    return warp_photo(photo, estimate_crop_transform(face, template), size, cv2.BORDER_REPLICATE)


def warp_photo(photo: np.ndarray, transform: np.ndarray, size: int, border: int) -> np.ndarray:
    """Cut a square out of a photo by a similarity transform, without aliasing.

    Args:
        photo: RGB image (height, width, 3), uint8, 0 to 255.
        transform: Matrix (2, 3), float64, photo pixels to crop pixels.
        size: Height and width of the crop in pixels.
        border: OpenCV's border type for pixels outside the photo.
    """
    to_crop = np.vstack([transform, [0.0, 0.0, 1.0]])
    scale = float(np.sqrt(np.linalg.det(to_crop[:2, :2])))
    if scale < 1.0:
        photo, to_photo = _shrink_around_crop(photo, to_crop, size, scale)
        to_crop = to_crop @ to_photo
    # warpAffine's origin is a pixel's centre, that of faces and templates a pixel's corner.
    centre_to_corner = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    matrix = np.linalg.inv(centre_to_corner) @ to_crop @ centre_to_corner
    return cv2.warpAffine(
        photo, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=border
    )


def _shrink_around_crop(
    photo: np.ndarray, to_crop: np.ndarray, size: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo's region under the crop, downscaled, and its (3, 3) matrix to the photo."""
    height, width = photo.shape[:2]
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]], dtype=np.float64)
    corners = (corners @ np.linalg.inv(to_crop).T)[:, :2]
    margin = 2.0 / scale  # interpolation reads up to one crop pixel outside
    x0, y0 = np.floor(corners.min(axis=0) - margin).astype(int)
    x1, y1 = np.ceil(corners.max(axis=0) + margin).astype(int)
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    x1, y1 = max(min(x1, width), x0 + 1), max(min(y1, height), y0 + 1)
    columns, rows = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    shrunk = cv2.resize(photo[y0:y1, x0:x1], (columns, rows), interpolation=cv2.INTER_AREA)
    to_photo = np.array(
        [[(x1 - x0) / columns, 0.0, x0], [0.0, (y1 - y0) / rows, y0], [0.0, 0.0, 1.0]]
    )
    return shrunk, to_photo
