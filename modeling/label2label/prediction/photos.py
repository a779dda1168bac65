"""Find photos in folders and read photos given as path, bytes, PIL image or array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from label2label.data.images import ImageError, LoadedImage, convert_to_rgb, load_image

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)

Photo = str | os.PathLike[str] | bytes | bytearray | Image.Image | np.ndarray


def find_photos(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the given files, and all photos under the given folders by suffix, sorted.

    Hidden names (a leading dot) are left out. Missing paths and folders without photos are
    included: reading them raises a clear error.
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


def load_photo(photo: Photo, enough: int | None = None) -> LoadedImage:
    """Read a photo given as path, bytes, PIL image or array.

    Args:
        photo: Path or content of an image file, PIL image of any mode, or uint8 RGB array (height,
            width, 3).
        enough: As in `label2label.data.images.load_image`.

    Raises:
        ImageError: It cannot be read, or has too few or too many pixels.
        TypeError: It is none of these.
    """
    if isinstance(photo, Image.Image):
        try:
            pixels = convert_to_rgb(photo)
        except ImageError:
            raise
        except Exception as error:  # Pillow decodes lazily: the file may be damaged
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
        many = "; predict_photos takes many" if isinstance(photo, list | tuple) else ""
        raise TypeError(
            "a photo is a path, the bytes of an image file, a PIL image or a uint8 RGB array, "
            f"not {type(photo).__name__}{many}"
        )
    return LoadedImage(pixels, (pixels.shape[1], pixels.shape[0]), animated=False)


def read_photo(photo: Photo) -> np.ndarray:
    """Read a photo as `load_photo` does; return only its uint8 RGB pixels (height, width, 3)."""
    return load_photo(photo).pixels
