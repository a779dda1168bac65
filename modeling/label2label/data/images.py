"""The raw images of a dataset, in a folder or a zip archive, read one at a time."""

from __future__ import annotations

import io
import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from label2label.data.preparation import BadImageError
from label2label.errors import UserError
from PIL import Image, UnidentifiedImageError


class ImageFolder:
    """Image files below a folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def __contains__(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """Read one file.

        Args:
            name: Path below the folder.

        Returns:
            Its bytes.
        """
        return (self.path / name).read_bytes()


class ImageZip:
    """Image files in a zip archive; it is opened once in every process that reads from it.

    Args:
        path: The archive.
        root: Folder inside the archive that names are relative to.
    """

    def __init__(self, path: Path, root: str):
        self.path = path
        self.root = root

    def __reduce__(self) -> tuple:
        return ImageZip, (self.path, self.root)

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{self.path} is no zip archive or is truncated: get it again"
            ) from error

    def __contains__(self, name: str) -> bool:
        return f"{self.root}/{name}" in self._archive.NameToInfo

    def read(self, name: str) -> bytes:
        """Read one file.

        Args:
            name: Path below the root.

        Returns:
            Its bytes.

        Raises:
            BadImageError: If its bytes are damaged.
        """
        try:
            return self._archive.read(f"{self.root}/{name}")
        except (zipfile.BadZipFile, EOFError) as error:
            raise BadImageError(f"damaged in the archive: {error}") from error


def open_images(source: Path, name: str) -> ImageFolder | ImageZip:
    """Find the images of a dataset.

    Args:
        source: Folder of the download.
        name: Name of the image folder, or of the zip archive without `.zip`.

    Returns:
        The folder `source/name`, or else the archive `source/name.zip`.

    Raises:
        UserError: If there is neither.
    """
    if (source / name).is_dir():
        return ImageFolder(source / name)
    archive = source / f"{name}.zip"
    if archive.is_file():
        return ImageZip(archive, PurePosixPath(name).name)
    raise UserError(f"{source} has neither a folder {name}/ nor {name}.zip: is --source right?")


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image whole, as a check that it can be used.

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
