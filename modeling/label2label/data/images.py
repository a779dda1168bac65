"""Read images of every common format as upright 8-bit RGB, for all packages of this project.

`prediction.photos` adds folders of photos. This module imports neither torch nor transformers.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from label2label.errors import UserError, join_lines

# Image formats only: Pillow hands some others (EPS) to programs that it starts.
IMAGE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "PPM", "AVIF")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAX_PIXELS = 50_000_000  # decoded
MAX_JPEG_PIXELS = 400_000_000  # in the file: libjpeg can decode at 1/8 of each side
# All coefficients of a progressive JPEG are in memory at once: 3 bytes per pixel if chroma is at
# half resolution (4:2:0), 6 if not. One with more bytes than this is decoded at half its sides.
MAX_PROGRESSIVE_PIXELS, MAX_COEFFICIENT_BYTES = MAX_PIXELS, 200_000_000
MIN_SIDE = 16  # pixels; nothing smaller shows a face
STRIP = 2_000_000  # pixels converted at once
ORIENTATION = 0x0112  # EXIF tag


class ImageError(UserError):
    """An image that cannot be read.

    Args:
        code: `"missing"`, `"empty"`, `"not_an_image"`, `"damaged"`, `"too_many_pixels"` or
            `"too_small"`, for callers with their own messages.
        text: One line, without the path.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class LoadedImage(NamedTuple):
    """An image with its original size."""

    pixels: np.ndarray  # upright uint8 RGB (height, width, 3); smaller if reduced when decoded
    size: tuple[int, int]  # width and height of the upright image in the file
    animated: bool  # the file has several frames, of which this is the first


def load_image(source: str | os.PathLike[str] | bytes, enough: int | None = None) -> LoadedImage:
    """Read an image as 8-bit RGB, rotated upright by its EXIF orientation.

    Of an animation, the first frame is read. A JPEG of more than 50 megapixels, or a progressive
    one whose coefficients take much memory, is decoded at a half, quarter or eighth of its sides.
    Pillow may warn about damaged metadata.

    Args:
        source: Path of an image file, or its content.
        enough: Number of pixels that suffices. A larger JPEG is decoded at a half, quarter or
            eighth of its sides that still has this many, which is faster.

    Raises:
        ImageError: The file is missing, a folder, not a regular file, empty, not an image or
            damaged; it has too many pixels, or too few to show a face; or it is HEIC and
            pillow-heif is not installed.
    """
    try:
        if isinstance(source, bytes):
            if not source:
                raise ImageError("empty", "the file is empty")
            return _load(io.BytesIO(source), enough)
        check_file(Path(source))
        with open(source, "rb") as file:
            return _load(file, enough)
    except ImageError:
        raise
    except PermissionError as error:
        raise ImageError("missing", "no permission to read this file") from error
    except UnidentifiedImageError as error:
        text = "not an image, or of a format that cannot be read"
        raise ImageError("not_an_image", text) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels() from error
    except MemoryError as error:
        text = "not enough memory to decode this image"
        raise ImageError("too_many_pixels", text) from error
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        text = f"damaged or truncated image ({join_lines(error)})"
        raise ImageError("damaged", text) from error


def convert_to_rgb(image: Image.Image) -> np.ndarray:
    """Convert any Pillow image to upright 8-bit RGB, with transparency on white.

    The result equals that of `Label2LabelImageProcessor`. Conversion in strips keeps peak memory
    little above that of the pixels.

    Args:
        image: Image of any mode, including 16-bit gray, CMYK, palettes and floats in 0..1, 0..255
            or 0..65535.

    Raises:
        ImageError: It has too few pixels to show a face, too many, or floats of another range.
    """
    _check_size(image.size, MAX_PIXELS)
    image.load()
    width, height = image.size  # Pillow rotates a TIFF on load
    factor = _find_factor(image)
    pixels, turned = _prepare_upright(image)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = image if rows >= height else image.crop(box)
        turned[top : top + rows] = _strip_to_rgb(strip, factor, image.info)
    return pixels


def _load(file: BinaryIO, enough: int | None) -> LoadedImage:
    with _open(file) as image:
        width, height = image.size
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            progressive = "progressive" in image.info
            _check_size(image.size, MAX_PROGRESSIVE_PIXELS if progressive else MAX_JPEG_PIXELS)
            _reduce_jpeg(image, enough)
        else:
            _check_size(image.size, MAX_PIXELS)
        animated = bool(getattr(image, "is_animated", False))
        pixels = convert_to_rgb(image)
    turned = (pixels.shape[0] > pixels.shape[1]) != (height > width)
    return LoadedImage(pixels, (height, width) if turned else (width, height), animated)


def _open(file: BinaryIO) -> Image.Image:
    """Open an image of one of `IMAGE_FORMATS`, trying formats with slow imports last."""
    head = file.read(12)
    file.seek(0)
    if head.startswith(b"\xff\xd8\xff"):
        # Image.open refuses JPEGs of more than 179 megapixels, before they can be reduced.
        try:
            return JpegImagePlugin.JpegImageFile(file)
        except SyntaxError as error:
            raise UnidentifiedImageError(str(error)) from error
    Image.preinit()  # JPEG, PNG, BMP, GIF and PPM: a tenth of the time of all formats
    try:
        return Image.open(file, formats=[name for name in IMAGE_FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        Image.init()
        try:
            return Image.open(file, formats=[name for name in IMAGE_FORMATS if name in Image.OPEN])
        except UnidentifiedImageError:
            if head[4:8] != b"ftyp" or head[8:12] not in HEIF_BRANDS:
                raise
            return _open_heif(file)


def _open_heif(file: BinaryIO) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ModuleNotFoundError as error:
        text = "HEIC photos need pillow-heif: install label2label with its extra [heic]"
        raise ImageError("not_an_image", text) from error
    file.seek(0)
    return HeifImageFile(file)  # not registered with Pillow: its settings are the caller's


def check_file(path: Path) -> None:
    """Raise for anything but a regular file, without opening it: a pipe would block."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: null byte
        raise ImageError("missing", "no such file") from error
    except OSError as error:
        raise ImageError("missing", f"cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError("missing", "no photos in this folder")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError("missing", "not a regular file")
    if found.st_size == 0:
        raise ImageError("empty", "the file is empty")


def _check_size(size: tuple[int, int], most: int) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        text = f"{width}x{height} pixels are too few to show a face: at least {MIN_SIDE}x{MIN_SIDE}"
        raise ImageError("too_small", text)
    if width * height > most:
        raise _too_many_pixels(f"{width}x{height}: ")


def _too_many_pixels(which: str = "") -> ImageError:
    return ImageError(
        "too_many_pixels",
        f"{which}too many pixels to decode safely (at most {MAX_PIXELS // 10**6} million, of a "
        f"baseline JPEG {MAX_JPEG_PIXELS // 10**6}): make it smaller",
    )


def _reduce_jpeg(image: JpegImagePlugin.JpegImageFile, enough: int | None) -> None:
    """Set libjpeg to decode at a half, quarter or eighth of the sides if the size permits."""
    width, height = image.size
    sampling = [h * v for _, h, v, _ in image.layer]  # of each component, relative to the others
    coefficient_bytes = 2 * width * height * sum(sampling) / max(sampling)
    progressive = "progressive" in image.info
    reduction = 2 if progressive and coefficient_bytes > MAX_COEFFICIENT_BYTES else 1
    while width * height > MAX_PIXELS * reduction**2:
        reduction *= 2
    while enough and reduction < 8 and width * height >= enough * (reduction * 2) ** 2:
        reduction *= 2
    if reduction > 1:
        image.draft(None, (width // reduction, height // reduction))


def _find_factor(image: Image.Image) -> float:
    """Return the factor that scales a 16-bit, 32-bit or float image to 0..255; else 1."""
    if image.mode.startswith("I;16"):
        return 1 / 257
    if image.mode not in ("I", "F"):
        return 1.0
    extrema: Any = image.getextrema()  # a pair: the image has one channel
    low, high = extrema
    if image.mode == "I":
        return 1 / 257 if high > 255 else 1.0
    if not (low >= 0 and high <= 65535):
        text = f"floats from {low:.3g} to {high:.3g}: only 0..1, 0..255 and 0..65535 are read"
        raise ImageError("damaged", text)
    return 255.0 if high <= 1 else 1.0 if high <= 255 else 1 / 257


def _strip_to_rgb(strip: Image.Image, factor: float, info: Mapping[Any, Any]) -> np.ndarray:
    if strip.mode.startswith("I"):  # Pillow's own conversion from 16 bits would clip at 255
        values = np.asarray(strip)
        values = values // 257 if factor != 1 else values
        return values.clip(0, 255).astype(np.uint8)[..., None]
    if strip.mode == "F":
        values = np.nan_to_num(np.asarray(strip)) * np.float32(factor)
        return np.round(values).clip(0, 255).astype(np.uint8)[..., None]
    if "A" in strip.getbands() or "transparency" in info:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return np.asarray(strip.convert("RGB"))


def _prepare_upright(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return empty upright pixels, and their view in the orientation of the file."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make the photo unreadable
        orientation = 1
    sideways = orientation in (5, 6, 7, 8)
    pixels = np.empty((*image.size[:: 1 if sideways else -1], 3), np.uint8)
    turned = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    return pixels, turned.transpose(1, 0, 2) if sideways else turned
