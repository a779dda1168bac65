"""Images decoded and resized once, kept as plain pixels in one memory-mapped file."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
from tqdm.auto import tqdm

from label2label.errors import UserError


class DecodedImages:
    """
    The images of a dataset as uint8 arrays, decoded when asked for or all of them once.

    Args:
        dataset: With a column `image`.
        prepare: Makes an array of shape (height, width, 3), uint8, from a PIL image.
        kind: Says in a few letters what `prepare` does: arrays of another kind are kept apart.
        keep: Whether to decode all images now and keep them beside datasets' own cache, where later
            runs find them.

    Raises:
        UserError: If an image cannot be read, or the disk has no room for the pixels.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        prepare: Callable[[PIL.Image.Image], np.ndarray],
        kind: str,
        keep: bool = True,
    ):
        # Undecoded, so that an image which cannot be read is met here, where its row is known.
        self.dataset = dataset.select_columns(["image"]).cast_column(
            "image", datasets.Image(decode=False)
        )
        self.prepare = prepare
        self.file: Path | None = None
        if keep:
            cache = Path(datasets.config.HF_DATASETS_CACHE) / "label2label"
            self.file = cache / f"{dataset._fingerprint}-{kind}.pixels"
            if not self.file.exists():
                self._decode_all(self.file)
            shapes = self.file.with_suffix(".json").read_text(encoding="utf-8")
            self.shapes = np.array(json.loads(shapes)).reshape(-1, 2)
            sizes = self.shapes.prod(axis=1) * 3
            self.starts = np.concatenate([[0], sizes.cumsum()])
            self.pixels = np.memmap(self.file, np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray:
        if self.file is None:
            return self._decode(index)
        height, width = self.shapes[index]
        return self.pixels[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)

    def name(self, index: int) -> str:
        """What the dataset calls an image: its file name where it has one, and its row."""
        image = self.dataset[index]["image"] or {}
        name = os.path.basename(image.get("path") or "")
        return f"{name} (row {index})" if name else f"row {index}"

    def _decode(self, index: int) -> np.ndarray:
        try:
            encoded = self.dataset[index]["image"]
            if encoded is None:
                raise ValueError("it is null")
            return self.prepare(datasets.Image().decode_example(encoded))
        except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise UserError(f"the image in {self.name(index)} cannot be read: {error}") from error

    def _decode_all(self, file: Path) -> None:
        temporary = file.with_name(f".{file.stem}-{os.getpid()}.pixels")
        shapes = []
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as pixels:
                for index in tqdm(range(len(self)), desc="decode images", unit="image"):
                    image = self._decode(index)
                    shapes.append(image.shape[:2])
                    pixels.write(np.ascontiguousarray(image).data)
            told = temporary.with_suffix(".json")
            told.write_text(json.dumps(shapes), encoding="utf-8")
            os.replace(told, file.with_suffix(".json"))
            os.replace(temporary, file)
        except OSError as error:
            raise UserError(
                f"{file}: cannot keep the decoded images ({error.strerror or error}); "
                "make room, or train with --set keep_decoded=false"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
                temporary.with_suffix(".json").unlink(missing_ok=True)
