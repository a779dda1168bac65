"""The raw images of a dataset, in a folder or a zip archive, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from label2label.data.preparation.images import decode_image
from label2label.data.preparation.zip_archive import ImageZip
from label2label.data.schema import Sample
from label2label.errors import UserError


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


RawImages = ImageFolder | ImageZip
"""The images of a dataset as downloaded, by name."""


def open_images(source: Path, *names: str) -> RawImages:
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


@dataclass(frozen=True)
class ReadImage:
    """Reads and checks the image of a sample and keeps its bytes as they are.

    Args:
        images: The raw images, which a sample's key names.
    """

    images: RawImages

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
