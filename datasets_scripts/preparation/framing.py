"""Frame faces like `label2label predict`: with the same detector, landmarks and transform."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace

import cv2
import numpy as np
from label2label.data.images import load_image
from label2label.data.schema import Sample
from label2label.errors import UserError, join_lines
from label2label.faces.alignment import align_face, choose_face
from label2label.faces.detection import FaceDetector
from label2label.faces.face import Face
from PIL import Image

from preparation.sources import BadImageError, Images

CELEBA_SIZE = (178, 218)
CELEBA_LANDMARKS = np.array(
    [[70.11, 111.54], [108.68, 112.31], [88.47, 135.82], [71.93, 153.28], [104.58, 153.98]]
)
"""Width and height of CelebA's aligned images, and where YuNet finds the five landmarks in them:
means over 700 full-size training images. The image processor's `alignment_template` is the same,
seen through its own resize and crop."""

UNALIGNED = "unaligned"
"""Variant, the part of an image's path after `#`, of an image in which no face was found."""

STORED_AS_THEY_ARE = "The image files are stored byte for byte."
ALIGNED = (
    "Faces were found by {detector} and brought onto the mean of CelebA's five landmarks by "
    "rotation, scale and shift, as 178x218 JPEG files of quality 95, as `label2label predict` "
    "frames them; beyond an image's edge its edge pixels repeat. An image in which no face was "
    f"found is stored as it is, with a path ending in `#{UNALIGNED}`."
)

ReadSample = Callable[[Sample], Iterable[tuple[Sample, bytes]]]
"""Reads the image of a sample: the rows that it gives (none where a filter drops it), each with
its encoded image. Raises `BadImageError`. Several threads call it."""

Box = tuple[float, float, float, float]


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image like `label2label predict`: (height, width, 3) uint8, RGB, upright."""
    try:
        return load_image(data).pixels
    except UserError as error:
        raise BadImageError(str(error)) from error


def encode_image(image: np.ndarray) -> bytes:
    """Encode an image as JPEG of quality 95."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=95)
    return stream.getvalue()


def align_like_celeba(photo: np.ndarray, face: Face) -> np.ndarray:
    """Rotate, scale and shift a face onto CelebA's mean landmarks.

    Returns:
        (218, 178, 3) uint8, RGB, framed like CelebA's aligned images; edge pixels are repeated
        beyond the photo's edge.
    """
    width, height = CELEBA_SIZE
    margin = (height - width) // 2
    square = align_face(photo, face, CELEBA_LANDMARKS + np.array([margin, 0]), height)
    return square[:, margin : margin + width]


class ReadImage:
    """Reader of raw images that checks them and frames their faces.

    Args:
        images: The raw images by sample key.
        align: Whether to frame faces; otherwise the files' bytes are kept.
        boxes: (x0, y0, x1, y1) of the labelled face in pixels, by image. In images without a box,
            the face nearest to the middle is framed.
    """

    def __init__(self, images: Images, align: bool, boxes: dict[str, Box] | None = None):
        self.images = images
        self.boxes = boxes or {}
        self.detector = FaceDetector() if align else None
        cv2.setNumThreads(1)  # the reading threads already use all cores

    @property
    def description(self) -> str:
        """Return the text of the dataset card about the framing."""
        if self.detector is None:
            return STORED_AS_THEY_ARE
        name = {"yunet": "YuNet", "haar": "OpenCV's Haar cascade"}[self.detector.name]
        return ALIGNED.format(detector=name)

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one image; mark its key `#unaligned` if no face was found to frame.

        Raises:
            BadImageError: If the image cannot be used.
        """
        data = self.images.read(sample.key)
        photo = decode_image(data)
        if self.detector is None:
            return [(sample, data)]
        try:
            face = self._choose(self.detector(photo), photo, sample.key)
            if face is not None:
                return [(sample, encode_image(align_like_celeba(photo, face)))]
        except (cv2.error, MemoryError, ValueError) as error:
            raise BadImageError(f"face detection failed: {join_lines(error)}") from error
        return [(replace(sample, key=f"{sample.key}#{UNALIGNED}"), data)]

    def _choose(self, faces: list[Face], photo: np.ndarray, key: str) -> Face | None:
        if key not in self.boxes:
            return choose_face(faces, photo) if faces else None
        x0, y0, x1, y1 = self.boxes[key]

        def distance(face: Face) -> float:
            left, top, right, bottom = face.box
            return max(
                abs(left + right - x0 - x1) / (x1 - x0), abs(top + bottom - y0 - y1) / (y1 - y0)
            )

        nearest = min(faces, key=distance, default=None)
        return nearest if nearest and distance(nearest) < 1 else None  # its middle is in the box
