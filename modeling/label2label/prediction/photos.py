"""Find photos in folders and read them, with one clear line for each that cannot be read."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from label2label.errors import UserError, join_lines

# Photo formats only: Pillow hands some others (EPS) to programs that it starts.
PHOTO_FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "JPEG2000",
    "PPM",
    "AVIF",
    "HEIF",
)
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
MIN_SIDE = 16  # pixels; nothing smaller shows a face


def find_photos(paths: Iterable[str | Path]) -> list[Path]:
    """Files to read: each file given, and every photo under each folder given.

    Args:
        paths: files, taken whatever their suffix, and folders, searched recursively for photos by
            suffix; what is hidden (a leading dot) is left out.

    Returns:
        Paths in the order given, sorted within a folder. A path that does not exist stays in, and
        so does a folder without photos: reading it says what is wrong.
    """
    return list(iter_photos(paths))


def iter_photos(paths: Iterable[str | Path]) -> Iterator[Path]:
    """What `find_photos` returns, as it is found; the names of one folder are in memory at a time.

    Args:
        paths: as for `find_photos`.

    Yields:
        Paths.
    """
    for path in map(Path, paths):
        found = False
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if Path(name).suffix.lower() in PHOTO_SUFFIXES and not name.startswith("."):
                    found = True
                    yield Path(folder, name)
        if not found:
            yield path


def read_photo(photo: str | Path | bytes) -> np.ndarray:
    """Read a photo as 8-bit RGB, turned upright as its EXIF orientation says.

    Pillow may warn of damaged metadata, or of a photo above half of what it calls a bomb.

    Args:
        photo: path of an image file, or what such a file holds; of an animation the first frame is
            read.

    Returns:
        uint8 array (height, width, 3), 0 to 255.

    Raises:
        UserError: the file is missing, a folder, out of reach, empty, no image, damaged, too large
            to be safe or too small to show a face. The text does not repeat the path.
    """
    try:
        if (len(photo) if isinstance(photo, bytes) else file_size(Path(photo))) == 0:
            raise UserError("the file is empty")
        with open_image(io.BytesIO(photo) if isinstance(photo, bytes) else Path(photo)) as image:
            return np.asarray(convert_to_rgb(image))
    except UserError:
        raise
    except PermissionError as error:
        raise UserError("no permission to read this file") from error
    except UnidentifiedImageError as error:
        raise UserError("not an image, or of a format that cannot be read") from error
    except Image.DecompressionBombError as error:
        raise UserError(
            "too many pixels to decode safely (a decompression bomb?): make it smaller"
        ) from error
    except MemoryError as error:
        raise UserError("not enough memory to decode this image") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise UserError(f"damaged or truncated image ({join_lines(error)})") from error


def file_size(path: Path) -> int:
    """Size of a regular file in bytes.

    Args:
        path: of the file; it is not opened, so that a pipe does not wait for a writer.

    Raises:
        UserError: it is missing, a folder or no regular file, or the system cannot tell.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # of a null byte
        raise UserError("no such file") from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise UserError("no photos in this folder")
    if not stat.S_ISREG(found.st_mode):
        raise UserError("not a regular file")
    return found.st_size


def open_image(file: Path | io.BytesIO) -> Image.Image:
    """Open an image of one of `PHOTO_FORMATS`; those that need more of Pillow are tried last.

    Args:
        file: path or content.

    Returns:
        The image, its pixels not yet read.

    Raises:
        PIL.UnidentifiedImageError: it is none.
    """
    Image.preinit()  # JPEG, PNG, BMP, GIF and PPM: a tenth of the time that all formats take
    try:
        return Image.open(file, formats=[name for name in PHOTO_FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        Image.init()
        return Image.open(file, formats=[name for name in PHOTO_FORMATS if name in Image.OPEN])


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB, upright; transparency is laid over white.

    It does what `Label2LabelImageProcessor` does, for callers that load no transformers.

    Args:
        image: of any mode, 16-bit gray and CMYK included.

    Raises:
        UserError: a side is shorter than 16 pixels.
    """
    if min(image.size) < MIN_SIDE:
        width, height = image.size
        raise UserError(
            f"{width}x{height} pixels are too few to show a face: at least {MIN_SIDE}x{MIN_SIDE}"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # Pillow's own conversion from 16 bits would clip at 255
        values = np.asarray(image)
        scale = 257 if values.max() > 255 or image.mode.startswith("I;16") else 1
        image = Image.fromarray((values // scale).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
