"""The raw images of a dataset, in a folder or a zip archive, read one at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from label2label.data.schema import Sample
from label2label.data.zip_index import ZipIndex
from label2label.errors import UserError


class BadImageError(Exception):
    """An image that cannot be used; the text says why. It is skipped, counted and listed."""


class ImageFolder:
    """Image files below a folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def __contains__(self, name: str) -> bool:
        return (self.path / name).is_file()

    def __iter__(self) -> Iterator[str]:
        """Paths of the files below the folder, sorted within each folder."""
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            for file in sorted(files):
                yield (Path(folder) / file).relative_to(self.path).as_posix()

    def read(self, name: str) -> bytes:
        """Read one file.

        Args:
            name: Its path below the folder.

        Returns:
            Its bytes.
        """
        return (self.path / name).read_bytes()


class ImageZip:
    """Image files in a zip archive.

    Args:
        path: The archive.
        root: Folder inside the archive that names are relative to.

    Raises:
        UserError: If the archive is damaged.
    """

    def __init__(self, path: Path, root: str):
        self.path = path
        self._index = ZipIndex(path, root)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[str]:
        """Names of the files, sorted."""
        return iter(self._index)

    def read(self, name: str) -> bytes:
        """Read one file.

        Args:
            name: Its path below the root.

        Returns:
            Its bytes.

        Raises:
            BadImageError: If its bytes are damaged.
        """
        try:
            return self._index.read(name)
        except ValueError as error:
            raise BadImageError(str(error)) from error


def open_images(source: Path, *names: str) -> ImageFolder | ImageZip:
    """Find the images of a dataset.

    Args:
        source: Folder of the download.
        names: Names that the image folder may have, or the zip archive without `.zip`.

    Returns:
        The first folder `source/name` or archive `source/name.zip` that there is. A folder of the
        same name inside it, as some mirrors pack it, is entered.

    Raises:
        UserError: If there is none.
    """
    for name in names:
        folder, archive = source / name, source / f"{name}.zip"
        if folder.is_dir():
            return ImageFolder(folder / name if (folder / name).is_dir() else folder)
        if archive.is_file():
            return ImageZip(archive, name)
    wanted = " or ".join(f"{name}/ or {name}.zip" for name in names)
    raise UserError(f"{source} does not hold {wanted}: give the dataset's folder as --source")


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


@dataclass(frozen=True)
class ReadImage:
    """Reads and checks the image of a sample and keeps its bytes as they are.

    Args:
        images: The raw images, which a sample's key names.
    """

    images: ImageFolder | ImageZip

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one image.

        Args:
            sample: Its key names the image.

        Returns:
            The sample with its encoded image.

        Raises:
            BadImageError: If the image cannot be used.
        """
        data = self.images.read(sample.key)
        decode_image(data)
        return [(sample, data)]
