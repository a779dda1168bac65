"""Find photos in folders and read what callers give as a photo."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from label2label.data.images import (
    IMAGE_FORMATS,
    MAX_PIXELS,
    ImageError,
    LoadedImage,
    convert_to_rgb,
    load_image,
)

__all__ = [
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "ImageError",
    "LoadedImage",
    "Photo",
    "convert_to_rgb",
    "find_photos",
    "iter_photos",
    "load_photo",
    "read_photo",
]

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)

Photo = str | os.PathLike[str] | bytes | bytearray | Image.Image | np.ndarray


def find_photos(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Find the files to read: each file given, and every photo under each folder given.

    Args:
        paths: files, taken whatever their suffix, and folders, searched recursively for photos by
            suffix; what is hidden (a leading dot) is left out.

    Returns:
        Paths in the order given, sorted within a folder. A path that does not exist stays in, and
        so does a folder without photos: reading it says what is wrong.
    """
    return list(iter_photos(paths))


def iter_photos(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield what `find_photos` returns, with the names of one folder in memory at a time."""
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


def load_photo(photo: Photo, enough: int | None = None) -> LoadedImage:
    """Read what a caller gives as a photo.

    Args:
        photo: path of an image file, what such a file holds, a PIL image of any mode, or a uint8
            RGB array (height, width, 3).
        enough: as for `label2label.data.images.load_image`.

    Returns:
        Its pixels, upright.

    Raises:
        ImageError: it cannot be read, or has too few pixels or too many.
        TypeError: it is something else.
    """
    if isinstance(photo, Image.Image):
        try:
            pixels = convert_to_rgb(photo)
        except ImageError:
            raise
        except Exception as error:  # of a file that Pillow reads only now
            raise ImageError("damaged", f"damaged or truncated image ({error})") from error
    elif isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise TypeError(
                "an array must be uint8 RGB of shape (height, width, 3), "
                f"not {photo.dtype} of shape {photo.shape}"
            )
        pixels = np.ascontiguousarray(photo)
    elif isinstance(photo, bytes | bytearray | str | os.PathLike):
        return load_image(bytes(photo) if isinstance(photo, bytearray) else photo, enough)
    else:
        raise TypeError(
            "a photo is a path, the bytes of an image file, a PIL image or a uint8 RGB array, "
            f"not {type(photo).__name__}"
        )
    return LoadedImage(pixels, (pixels.shape[1], pixels.shape[0]), animated=False)


def read_photo(photo: Photo) -> np.ndarray:
    """Read a photo as `load_photo` does, its pixels alone: uint8 RGB (height, width, 3)."""
    return load_photo(photo).pixels
