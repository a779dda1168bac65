"""Encoded images to arrays and back; what is wrong with one that cannot be used."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError


class BadImageError(Exception):
    """An image that cannot be used; the text says why. It is skipped, counted and listed."""


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image whole, which also tells whether it can be used.

    Args:
        data: The encoded image.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        BadImageError: If it is empty, truncated, no image, or far too large.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise BadImageError("not an image" if data else "empty file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImageError(f"cannot be decoded: {error}") from error


def encode_image(image: np.ndarray) -> bytes:
    """Encode an image that was cropped or drawn on.

    Args:
        image: (height, width, 3) uint8, RGB.

    Returns:
        JPEG bytes of quality 95.
    """
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=95)
    return stream.getvalue()
