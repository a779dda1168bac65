"""From a prepared dataset to batches: splits, label arrays, and faces as normalised tensors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from label2label.data.augmentation import Augmentation
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES, Vocabulary, derive_labels
from label2label.errors import UserError


def load_split(path: str | Path, split: str) -> datasets.Dataset:
    """
    Opens one split of a prepared dataset, memory-mapped.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        split: `"train"`, `"validation"` or `"test"`.

    Returns:
        The split, in the one dataset schema.

    Raises:
        UserError: If the folder or the split is missing, cannot be read, or has no images.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{path} is a file: give the folder that a script of datasets_scripts/ wrote"
        )
    if not folder.exists() and (folder.is_absolute() or str(path).count("/") != 1):
        raise UserError(f"{path}: no such folder; prepare a dataset with datasets_scripts/ first")
    try:
        splits = datasets.get_dataset_split_names(str(path))
        if split not in splits:
            raise UserError(f"{path} has no split {split!r}: it has {', '.join(splits)}")
        dataset = datasets.load_dataset(str(path), split=split)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is no prepared dataset ({_first_line(error)}): "
            "make one with a script of datasets_scripts/"
        ) from error
    if "image" not in dataset.column_names:
        raise UserError(f"{path}: the {split} split has no column 'image'")
    if len(dataset) == 0:
        raise UserError(f"{path}: the {split} split is empty")
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
    Faces and labels of one split, as tensors.

    Its items are `{"pixel_values": float32 (3, size, size), "labels": int64 (attributes)}`, and
    `"teacher"`, float32 (attributes), where there is one. With an augmentation, an item's
    randomness depends on `seed`, `epoch` and its index alone, so that it is the same in any worker,
    process or resumed run.

    Args:
        dataset: A split in the one dataset schema.
        attributes: Attribute columns, in the model's order.
        processor: The model's image processor.
        augmentation: Changes training faces; `None` takes the processor's own crop.
        seed: Seed of the augmentation.
        teacher: A teacher's probabilities, (images, attributes).

    Raises:
        UserError: If the dataset has no column for an attribute.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        attributes: Sequence[str],
        processor: Any,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        teacher: np.ndarray | None = None,
    ):
        opposites = VOCABULARIES["union"].opposites
        columns = set(dataset.column_names)
        missing = [a for a in attributes if a not in columns and opposites.get(a) not in columns]
        if missing:
            raise UserError(f"the dataset has no column {', '.join(map(repr, missing))}")
        self.images = dataset.select_columns(["image"])
        self.labels = label_array(dataset, attributes)
        self.processor = processor
        self.augmentation = augmentation
        self.seed = seed
        self.teacher = teacher
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = self.images[index]["image"]
        if image is None:
            raise UserError(f"image {index} of the dataset is null")
        if self.augmentation is None:
            pixels = self.processor(image, return_tensors="pt")["pixel_values"][0]
        else:
            rng = np.random.default_rng((self.seed, self.epoch, index))
            crop = self.augmentation(
                np.asarray(image.convert("RGB")), self.processor.crop_size["height"], rng
            )
            pixels = self.processor(
                crop, do_resize=False, do_center_crop=False, return_tensors="pt"
            )["pixel_values"][0]
        item = {
            "pixel_values": pixels,
            "labels": torch.from_numpy(self.labels[index].astype(np.int64)),
        }
        if self.teacher is not None:
            item["teacher"] = torch.from_numpy(self.teacher[index])
        return item


class EpochSampler(Sampler[int]):
    """
    A permutation of the dataset that depends on `seed` and `epoch` alone, from any position on.

    Args:
        num_samples: Length of the dataset.
        seed: Seed of the permutations.
    """

    def __init__(self, num_samples: int, seed: int):
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        yield from rng.permutation(self.num_samples)[self.start :].tolist()

    def __len__(self) -> int:
        return self.num_samples - self.start


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
