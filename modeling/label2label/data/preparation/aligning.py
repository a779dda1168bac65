"""The option `--align`: faces turned and framed as CelebA's, for datasets that frame them apart."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cached_property

import cv2

from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.chunks import ReadSample
from label2label.data.preparation.counts import Counts, rows_per_variant
from label2label.data.preparation.crops import align_like_celeba, choose_face
from label2label.data.preparation.images import decode_image, encode_image
from label2label.data.preparation.sources import RawImages, ReadImage
from label2label.data.schema import Sample
from label2label.faces.detection import FaceDetector

DETECTION_SIDE = 240
"""Pixels of the longer side in which faces are looked for: datasets hold one large face an image,
and of UTKFace's the landmarks are as exact as at 480, for a fifth of the time."""

UNALIGNED = "unaligned"
"""Variant, the part of an image's path after `#`, of an image in which no face was found."""

STORED_AS_THEY_ARE = "The JPEG files are stored byte for byte."
ALIGNED = (
    "Faces were found by YuNet and brought onto the mean of CelebA's five landmarks by rotation, "
    "scale and shift, as 178x218 JPEG files of quality 95. An image in which no face was found is "
    f"stored as it is, with a path ending in `#{UNALIGNED}`."
)


def add_align_option(parser: argparse.ArgumentParser) -> None:
    """Add `--align`.

    Args:
        parser: A dataset program's.
    """
    parser.add_argument(
        "--align",
        action="store_true",
        help="bring every face onto CelebA's mean landmarks instead of storing the file as it is; "
        "images without a face stay as they are and are counted",
    )


def image_reader(images: RawImages, align: bool) -> ReadSample:
    """Reader of a dataset's images.

    Args:
        images: The raw images.
        align: Whether `--align` was given.

    Returns:
        What reads and checks, and perhaps aligns, the image of a sample.
    """
    return AlignImage(images) if align else ReadImage(images)


def describe_alignment(description: DatasetDescription, align: bool) -> DatasetDescription:
    """Say in the card whether the faces were aligned.

    Args:
        description: One whose process begins with `STORED_AS_THEY_ARE`.
        align: Whether `--align` was given.

    Returns:
        The description to use.
    """
    if not align:
        return description
    process = description.process.replace(STORED_AS_THEY_ARE, ALIGNED)
    return replace(description, process=process)


def report_alignment(counts: Counts) -> None:
    """Print in how many images no face was found.

    Args:
        counts: Rows of an aligned dataset.
    """
    variants = rows_per_variant(counts)
    rows = sum(variants.values())
    unaligned = variants.get(UNALIGNED, 0)
    print(f"aligned {rows - unaligned:,} of {rows:,} images; in {unaligned:,} no face was found")


@dataclass
class AlignImage:
    """Reads the image of a sample and aligns its face.

    Args:
        images: The raw images, which a sample's key names.
    """

    images: RawImages

    @cached_property
    def _detector(self) -> FaceDetector:
        cv2.setNumThreads(1)  # the workers share the cores already
        return FaceDetector(close_up_side=DETECTION_SIDE)

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one image.

        Args:
            sample: Its key names the image.

        Returns:
            The sample with its encoded aligned face, or with its file as it is and its key marked
            where no face was found.

        Raises:
            BadImageError: If the image cannot be used.
        """
        data = self.images.read(sample.key)
        photo = decode_image(data)
        faces = self._detector(photo)
        if not faces:
            return [(replace(sample, key=f"{sample.key}#{UNALIGNED}"), data)]
        return [(sample, encode_image(align_like_celeba(photo, choose_face(faces, photo))))]
