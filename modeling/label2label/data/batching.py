"""From a prepared dataset to batches: splits, label arrays, and faces as tensors."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from label2label.data.augmentation import LARGEST, Augmentation, reduce_image
from label2label.data.decoding import DecodedImages
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES, Vocabulary, derive_labels
from label2label.errors import UserError, first_line

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
            f"{path} is no prepared dataset ({first_line(error)}): "
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
        attributes: Columns to read, in order; each nullable bool, or numbers that are 1 or 0. One
            that the dataset names by its opposite (`Beard` = not `No_Beard`) is derived.

    Returns:
        1 present, 0 absent, -100 unknown, as is throughout an attribute that the dataset does not
        have; int8 of shape (images, attributes).

    Raises:
        UserError: If a column holds anything else: -1 and -100, too, are no booleans.
    """
    vocabulary = Vocabulary("asked", tuple(attributes), VOCABULARIES["union"].opposites)
    columns = [name for name in dataset.column_names if name in _sources(vocabulary)]
    labels = np.full((len(dataset), len(columns)), IGNORE_INDEX, np.int8)
    table = dataset.with_format("arrow")
    for column, name in enumerate(columns):
        values = table[name]
        for start, chunk in _chunks(values):
            known = chunk.is_valid().to_numpy(zero_copy_only=False)
            present = _booleans(chunk, name).to_numpy(zero_copy_only=False)
            labels[start : start + len(chunk), column][known] = present[known]
    return derive_labels(labels, columns, vocabulary)


def _booleans(chunk: pa.Array, name: str) -> pa.Array:
    """Booleans, false where null."""
    kind = chunk.type
    if pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64()):
        numbers = chunk.drop_null().to_numpy(zero_copy_only=False)
        if len(others := numbers[(numbers != 0) & (numbers != 1)]):
            raise UserError(
                f"column {name!r} must hold booleans, or 1 and 0, and null where unknown: it holds "
                f"{others[0]}"
            )
    elif not (pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise UserError(f"column {name!r} must hold booleans and nulls: it is of type {kind}")
    return chunk.cast("bool").fill_null(False)


class AttributeDataset(Dataset):
    """
    Faces and labels of one split, as batches of tensors.

    A batch is `{"pixels": uint8 (batch, size, size, 3), "labels": int64 (batch, attributes), "row":
    int64 (batch,)}`, and `"teacher"`, float32 (batch, attributes), where there is one;
    `normalize_pixels` makes what the model sees of the pixels. With an augmentation, an image's
    randomness depends on `seed`, `epoch`, its row and how often the epoch drew it before, alone, so
    that it is the same in any worker, process or resumed run. In a loader's worker, a batch of an
    image that cannot be read is `{"error": text}`, for `raise_errors`.

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
        return {name: value[0] for name, value in self._batch([(index, 0)]).items()}

    def __getitems__(self, draws: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """One batch, of rows or of `(row, occurrence)` as `EpochSampler` draws them."""
        try:
            return self._batch([draw if isinstance(draw, tuple) else (draw, 0) for draw in draws])
        except UserError as error:
            if get_worker_info() is None:
                raise
            # Raised here, it would reach the main process with a worker's traceback in its text.
            return {"error": str(error)}

    def _batch(self, draws: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        rows = [row for row, _ in draws]
        pixels = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        for place, (row, occurrence) in enumerate(draws):
            image = self.images[row]
            if self.augmentation is not None:
                repeat = (occurrence,) if occurrence else ()
                rng = np.random.default_rng((self.seed, self.epoch, row, *repeat))
                image = self.augmentation(image, self.size, rng)
            pixels[place] = image
        batch = {
            "pixels": torch.from_numpy(pixels),
            "labels": torch.from_numpy(self.labels[rows].astype(np.int64)),
            "row": torch.tensor(rows),
        }
        if self.teacher is not None:
            batch["teacher"] = torch.from_numpy(self.teacher[rows])
        return batch

    def _crop(self, image: PIL.Image.Image) -> np.ndarray:
        crop = self.processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
        return np.asarray(crop).transpose(1, 2, 0)

    def _reduce(self, image: PIL.Image.Image) -> np.ndarray:
        return reduce_image(self.processor.process_image(image).transpose(1, 2, 0), self.size)


def normalize_pixels(pixels: torch.Tensor, processor: Any) -> torch.Tensor:
    """
    Takes the image processor's last two steps, rescaling and normalisation, on a whole batch.

    It is for the process that trains: a loader's workers hand over bytes, a quarter of the floats.

    Args:
        pixels: uint8 of shape (batch, height, width, 3), on any device.
        processor: The model's image processor.

    Returns:
        float32 of shape (batch, 3, height, width), channels last in memory.
    """
    mean, std, factor = torch.zeros(3), torch.ones(3), 1.0
    if processor.do_normalize:
        # A processor may have one number for all channels.
        mean = torch.tensor(processor.image_mean).expand(3)
        std = torch.tensor(processor.image_std).expand(3)
    if processor.do_rescale:
        factor = processor.rescale_factor
    # Whole lines of pixels at a time are several times as fast as three channels.
    width = pixels.shape[2]
    scale, shift = ((x / std).repeat(width).to(pixels.device) for x in (factor, mean))
    values = pixels.flatten(2).float().mul_(scale).sub_(shift)
    return values.view(pixels.shape).permute(0, 3, 1, 2)


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


def raise_errors(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """
    Raises in the main process what a loader's worker hands over as `{"error": text}`.

    Args:
        batches: What a loader of `batch_loader` gives.

    Yields:
        The same batches.

    Raises:
        UserError: If a worker could not make one.
    """
    for batch in batches:
        if "error" in batch:
            raise UserError(batch["error"])
        yield batch


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
