"""Photos as visitors send them: bytes in memory, checked before they are decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

import numpy as np
from label2label.errors import UserError
from label2label.prediction.photos import IMAGE_FORMATS, convert_to_rgb
from PIL import Image

MAX_BYTES = 20_000_000
MAX_MEGAPIXELS = 50
ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")


class PhotoError(Exception):
    """A photo that cannot be looked at.

    Args:
        code: which of the page's texts says why (`error.CODE`).
        values: what the text has blanks for.
    """

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


def decode_data_url(url: str) -> bytes:
    """The bytes in a data URL or in bare base64.

    Args:
        url: `data:image/jpeg;base64,...`, or what follows the comma.

    Returns:
        The bytes.

    Raises:
        PhotoError: there is nothing in it, it is no base64, or it is too long.
    """
    text = url.partition(",")[2] if url.startswith("data:") else url
    if not text:
        raise PhotoError("no_photo")
    if len(text) > MAX_BYTES * 4 / 3 + 4:
        raise PhotoError("too_many_bytes", limit=MAX_BYTES // 1_000_000)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PhotoError("not_an_image") from error


def read_photo(data: bytes) -> tuple[np.ndarray, bool]:
    """Decode a photo, upright.

    Args:
        data: an image file's bytes.

    Returns:
        uint8 RGB (height, width, 3), 0 to 255, and whether it is the first frame of several.

    Raises:
        PhotoError: there is none, it is no image, damaged, too large or too small.
    """
    if not data:
        raise PhotoError("no_photo")
    if len(data) > MAX_BYTES:
        raise PhotoError("too_many_bytes", limit=MAX_BYTES // 1_000_000)
    Image.init()
    formats = [name for name in IMAGE_FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of large photos
            with Image.open(io.BytesIO(data), formats=formats) as image:
                megapixels = image.width * image.height / 1e6
                if megapixels > MAX_MEGAPIXELS:
                    raise PhotoError(
                        "too_many_pixels", megapixels=round(megapixels), limit=MAX_MEGAPIXELS
                    )
                animated = image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)
                return convert_to_rgb(image), animated
    except UserError as error:
        raise PhotoError("too_small") from error
    except Image.DecompressionBombError as error:
        raise PhotoError("too_many_pixels", megapixels="> 170", limit=MAX_MEGAPIXELS) from error
    except PhotoError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise PhotoError("not_an_image") from error


def encode_data_url(crop: np.ndarray) -> str:
    """A crop without loss, so that asking about it again gives the same numbers.

    Args:
        crop: uint8 RGB (height, width, 3), 0 to 255.

    Returns:
        `data:image/png;base64,...`.
    """
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
