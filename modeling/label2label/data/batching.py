"""From a prepared dataset to batches: splits, label arrays, and faces as normalised tensors."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset

from label2label.data.augmentation import LARGEST, Augmentation, reduce_image
from label2label.data.decoding import DecodedImages
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES, Vocabulary, derive_labels
from label2label.errors import UserError

Opened = TypeVar("Opened", datasets.Dataset, datasets.IterableDataset)


def load_split(path: str | Path, split: str, alone: bool = False) -> datasets.Dataset:
    """
    Opens one split of a prepared dataset, memory-mapped.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        split: `"train"`, `"validation"` or `"test"`.
        alone: Whether the other splits are left where they are; else datasets fetches and caches
            all of them.

    Returns:
        The split, in the one dataset schema.

    Raises:
        UserError: If the folder or the split is missing, cannot be read, or has no images.
    """

    def load() -> datasets.Dataset:
        if not alone:
            return datasets.load_dataset(str(path), split=split)
        builder = datasets.load_dataset_builder(str(path))
        files = {split: builder.config.data_files[split]}
        features = builder.info.features
        return datasets.load_dataset(builder.name, data_files=files, split=split, features=features)

    dataset = _open_split(path, split, load)
    if len(dataset) == 0:
        raise UserError(f"{path}: the {split} split is empty")
    return dataset


def stream_split(path: str | Path, split: str) -> datasets.IterableDataset:
    """
    Opens one split of a prepared dataset to be read from front to back, none of it kept.

    Args:
        path: As for `load_split`; of a Hub dataset nothing is downloaded before it is read.
        split: `"train"`, `"validation"` or `"test"`.

    Returns:
        The split, in the one dataset schema.

    Raises:
        UserError: If the folder or the split is missing, cannot be read, or has no column `image`.
    """
    return _open_split(
        path, split, lambda: datasets.load_dataset(str(path), split=split, streaming=True)
    )


def _open_split(path: str | Path, split: str, load: Callable[[], Opened]) -> Opened:
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{path} is a file: give the folder that a script of datasets_scripts/ wrote"
        )
    if not folder.exists() and (folder.is_absolute() or str(path).count("/") != 1):
        raise UserError(
            f"{path}: no such folder or file; prepare a dataset with datasets_scripts/ first"
        )
    try:
        splits = datasets.get_dataset_split_names(str(path))
        if split not in splits:
            raise UserError(f"{path} has no split {split!r}: it has {', '.join(splits)}")
        dataset = load()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is no prepared dataset ({_first_line(error)}): "
            "make one with a script of datasets_scripts/"
        ) from error
    # A stream whose files do not tell their columns has None.
    if "image" not in (dataset.column_names or []):
        raise UserError(f"{path}: the {split} split has no column 'image'")
    return dataset


def label_array(dataset: datasets.Dataset, attributes: Sequence[str]) -> np.ndarray:
    """
    Reads attribute columns as one array.

    Args:
        dataset: A split in the one dataset schema.
        attributes: Columns to read, in order; each nullable bool. One that the dataset names by its
            opposite (`Beard` = not `No_Beard`) is derived.

    Returns:
        int8 of shape (images, attributes): 1 present, 0 absent, -100 unknown, as is throughout an
        attribute that the dataset does not have.

    Raises:
        UserError: If a column holds anything but booleans and nulls.
    """
    vocabulary = Vocabulary("asked", tuple(attributes), VOCABULARIES["union"].opposites)
    columns = [name for name in dataset.column_names if name in _sources(vocabulary)]
    labels = np.full((len(dataset), len(columns)), IGNORE_INDEX, np.int8)
    table = dataset.with_format("arrow")
    for column, name in enumerate(columns):
        values = table[name]
        for start, chunk in _chunks(values):
            try:
                known = chunk.is_valid().to_numpy(zero_copy_only=False)
                present = chunk.cast("bool").fill_null(False).to_numpy(zero_copy_only=False)
            except (ValueError, NotImplementedError) as error:
                raise UserError(
                    f"column {name!r} must hold booleans: {_first_line(error)}"
                ) from error
            labels[start : start + len(chunk), column][known] = present[known]
    return derive_labels(labels, columns, vocabulary)


class AttributeDataset(Dataset):
    """
    Faces and labels of one split, as batches of tensors.

    A batch is `{"pixel_values": float32 (batch, 3, size, size), "labels": int64 (batch,
    attributes), "row": int64 (batch,)}`, and `"teacher"`, float32 (batch, attributes), where there
    is one. With an augmentation, an image's randomness depends on `seed`, `epoch` and its row
    alone, so that it is the same in any worker, process or resumed run.

    Args:
        dataset: A split in the one dataset schema.
        attributes: Attribute columns, in the model's order.
        processor: The model's image processor.
        augmentation: Changes training faces; `None` takes the processor's own crop.
        seed: Seed of the augmentation.
        teacher: A teacher's probabilities, (images, attributes).
        keep_decoded: Whether images are decoded once, all of them now, and kept on disk.

    Raises:
        UserError: If the dataset has no column for an attribute, or an image cannot be read.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        attributes: Sequence[str],
        processor: Any,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        teacher: np.ndarray | None = None,
        keep_decoded: bool = False,
    ):
        opposites = VOCABULARIES["union"].opposites
        columns = set(dataset.column_names)
        missing = [a for a in attributes if a not in columns and opposites.get(a) not in columns]
        if missing:
            raise UserError(f"the dataset has no column {', '.join(map(repr, missing))}")
        self.dataset = dataset
        self.attributes = attributes
        self.labels = label_array(dataset, attributes)
        self.processor = processor
        self.augmentation = augmentation
        self.seed = seed
        self.teacher = teacher
        self.epoch = 0
        if augmentation is None:
            settings = [processor.to_dict()[name] for name in ("size", "crop_size", "resample")]
            digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
            self.images = DecodedImages(dataset, self._crop, f"crop-{digest}", keep_decoded)
        else:
            kind = f"within-{round(LARGEST * self.size)}"
            self.images = DecodedImages(dataset, self._reduce, kind, keep_decoded)

    @property
    def size(self) -> int:
        """Side of the crops, in pixels."""
        return self.processor.crop_size["height"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        pixels = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for place, index in enumerate(indices):
            image = self.images[index]
            if self.augmentation is not None:
                rng = np.random.default_rng((self.seed, self.epoch, index))
                image = self.augmentation(image, self.size, rng)
            pixels[place] = image
        batch = {
            "pixel_values": self._normalize(torch.from_numpy(pixels)),
            "labels": torch.from_numpy(self.labels[indices].astype(np.int64)),
            "row": torch.tensor(indices),
        }
        if self.teacher is not None:
            batch["teacher"] = torch.from_numpy(self.teacher[indices])
        return batch

    def _normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """The processor's last two steps, on the whole batch: several times as fast."""
        mean = torch.tensor(self.processor.image_mean) if self.processor.do_normalize else 0.0
        std = torch.tensor(self.processor.image_std) if self.processor.do_normalize else 1.0
        factor = self.processor.rescale_factor if self.processor.do_rescale else 1.0
        normalized = pixels.float().mul_(factor / std).sub_(mean / std)
        return normalized.permute(0, 3, 1, 2).contiguous()

    def _crop(self, image: PIL.Image.Image) -> np.ndarray:
        crop = self.processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
        return np.asarray(crop).transpose(1, 2, 0)

    def _reduce(self, image: PIL.Image.Image) -> np.ndarray:
        return reduce_image(self.processor.process_image(image).transpose(1, 2, 0), self.size)


def batch_loader(data: Dataset, batch_size: int | None, **options: Any) -> DataLoader:
    """
    Makes a loader of whole batches, which the dataset puts together itself.

    Args:
        data: The images.
        batch_size: Images a batch; `None` for a stream of batches.
        **options: Of `torch.utils.data.DataLoader`.

    Returns:
        The loader.
    """
    return DataLoader(data, batch_size=batch_size, collate_fn=_as_it_is, **options)


def _as_it_is(batch: Any) -> Any:
    return batch


def _sources(vocabulary: Vocabulary) -> set[str]:
    """Columns that say something of a vocabulary's attributes."""
    own = set(vocabulary.attributes)
    return own | {vocabulary.opposites[name] for name in own if name in vocabulary.opposites}


def _chunks(values: Any) -> Iterator[tuple[int, Any]]:
    start = 0
    for chunk in values.chunks:
        yield start, chunk
        start += len(chunk)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
