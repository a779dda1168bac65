"""Photos as visitors send them: bytes in memory, checked before they are decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

from label2label.data.images import MAX_PIXELS, ImageError, LoadedImage, load_image
from PIL import Image

MAX_BYTES = 20_000_000
# The package's error codes for which the page uses another text.
CODES = {"empty": "no_photo", "damaged": "not_an_image"}


class PhotoError(Exception):
    """A photo that cannot be processed: the page's text, `error.CODE`, and its values."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


def decode_data_url(url: str) -> bytes:
    """Decode a data URL, `data:image/jpeg;base64,...`, or bare base64, of at most `MAX_BYTES`."""
    text = url.partition(",")[2] if url.startswith("data:") else url
    if not text:
        raise PhotoError("no_photo")
    if len(text) > MAX_BYTES * 4 / 3 + 4:
        raise PhotoError("too_many_bytes", limit=MAX_BYTES // 1_000_000)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PhotoError("not_an_image") from error


def read_photo(data: bytes, enough: int | None = None) -> LoadedImage:
    """Decode a photo and rotate it upright by its EXIF orientation, or raise `PhotoError`.

    A JPEG may be decoded at a reduced size of at least `enough` pixels.
    """
    if len(data) > MAX_BYTES:
        raise PhotoError("too_many_bytes", limit=MAX_BYTES // 1_000_000)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata and large photos
            return load_image(data, enough)
    except ImageError as error:
        code = CODES.get(error.code, error.code)
        values = {"limit": MAX_PIXELS // 1_000_000} if code == "too_many_pixels" else {}
        raise PhotoError(code, **values) from error


def encode_data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """Encode an image as a data URL of `"png"` or `"jpeg"`, with options of Pillow's encoder."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
