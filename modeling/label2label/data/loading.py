"""Read prepared datasets: splits, label arrays, face crops and the sampling of epochs."""

import argparse
import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.exceptions import DatasetGenerationError
from PIL import Image
from tqdm.auto import tqdm

from label2label.data.images import load_image
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES, Vocabulary, derive_labels
from label2label.errors import UserError, join_lines
from label2label.files import replace_folder

# A training crop's width and height, as multiples of the model's crop: a margin for augmentation
# within the portrait format of CelebA's aligned images.
CROP_FORMAT = (1.25, 1.5)
CACHED_AT_ONCE = 256
PACKED_QUALITY = 95  # JPEG quality
PART_BYTES = 50_000_000  # of images; a part with its labels is then below 60 MB


def load_split(path: str | Path, split: str, streaming: bool = False, alone: bool = False) -> Any:
    """Open one split of a prepared dataset.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        split: `"train"`, `"validation"` or `"test"`.
        streaming: Whether to read it sequentially, without downloading or caching it.
        alone: Whether to read only this split; else datasets downloads and caches all splits.

    Returns:
        The split as a memory-mapped `datasets.Dataset`, or as a `datasets.IterableDataset`, with
        the project's dataset schema.

    Raises:
        UserError: If the folder or the split is missing, cannot be read, or has no images.
    """
    if not streaming:
        check_cache()
    splits = split_names(path)
    if split not in splits:
        raise UserError(f"{path} has no split {split!r}: it has {', '.join(splits)}")
    with _explain_reading(path):
        name, options = str(path), {}
        if alone:
            builder = datasets.load_dataset_builder(name)
            name, options["features"] = builder.name, builder.info.features
            options["data_files"] = {split: builder.config.data_files[split]}
        dataset = datasets.load_dataset(name, split=split, streaming=streaming, **options)
    # None for a stream whose files do not list their columns.
    if "image" not in (dataset.column_names or []):
        raise UserError(f"{path}: the {split} split has no column 'image'")
    if not streaming and len(dataset) == 0:
        raise UserError(f"{path}: the {split} split is empty")
    kind = dataset.features["image"]
    if isinstance(kind, datasets.Image):
        return dataset
    try:
        return dataset.cast_column("image", datasets.Image())
    except (TypeError, ValueError, pa.ArrowException) as error:
        text = f"{path}: the column 'image' holds no images or paths: it is {kind}"
        raise UserError(text) from error


def split_names(path: str | Path) -> list[str]:
    """List the splits of a prepared dataset; raise UserError if there is none at the path."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{path} is a file: give the folder that a script of datasets_scripts/ wrote"
        )
    if not folder.exists() and (folder.is_absolute() or str(path).count("/") != 1):
        raise UserError(
            f"{path}: no such folder or file; prepare a dataset with datasets_scripts/ first"
        )
    with _explain_reading(path):
        return datasets.get_dataset_split_names(str(path))


@contextlib.contextmanager
def _explain_reading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetGenerationError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is not a prepared dataset ({join_lines(error)}): "
            "make one with a script of datasets_scripts/"
        ) from error


def check_cache() -> None:
    """Raise UserError if the cache folder of `datasets` cannot be written."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        writable = os.access(cache, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(
            f"{cache}: the cache of datasets cannot be written; set HF_HOME to a writable folder"
        )


def column_values(dataset: datasets.Dataset, column: str, title: str) -> list[Any]:
    """Read a column other than the images; raise UserError if the dataset `title` has none."""
    if column not in dataset.column_names or column == "image":
        raise UserError(f"{title}: no column {column!r}; it has {', '.join(dataset.column_names)}")
    return list(dataset.select_columns([column])[:][column])


def label_array(
    dataset: datasets.Dataset | Mapping[str, Sequence[Any]], attributes: Sequence[str]
) -> np.ndarray:
    """Read attribute columns as one array.

    Args:
        dataset: A split of a prepared dataset, or some of its rows as lists by column.
        attributes: Columns to read, in order; each nullable bool, or numbers that are 1 or 0. An
            attribute is derived if the dataset has its negation (`Beard` = not `No_Beard`).

    Returns:
        An int8 array of shape (images, attributes), 1 present, 0 absent, -100 unknown. Attributes
        that the dataset does not have are -100 throughout.

    Raises:
        UserError: If a column holds other values, such as -1 or -100.
    """
    vocabulary = Vocabulary("asked", tuple(attributes), VOCABULARIES["union"].opposites)
    wanted = {*attributes, *(vocabulary.opposites.get(name) for name in attributes)}
    if isinstance(dataset, datasets.Dataset):
        columns = [name for name in dataset.column_names if name in wanted]
        table, count = dataset.with_format("arrow"), len(dataset)
        values = {name: table[name].combine_chunks() for name in columns}
    else:
        columns = [name for name in dataset if name in wanted]
        values = {name: pa.array(dataset[name]) for name in columns}
        count = len(next(iter(dataset.values())))
    labels = np.full((count, len(columns)), IGNORE_INDEX, np.int8)
    for column, name in enumerate(columns):
        known = values[name].is_valid().to_numpy(zero_copy_only=False)
        present = _booleans(values[name], name).to_numpy(zero_copy_only=False)
        labels[known, column] = present[known]
    return derive_labels(labels, columns, vocabulary)


def _booleans(values: pa.Array, name: str) -> pa.Array:
    """Convert a column to booleans, with null as false."""
    kind = values.type
    if pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64()):
        numbers = values.drop_null().to_numpy(zero_copy_only=False)
        if len(others := numbers[(numbers != 0) & (numbers != 1)]):
            raise UserError(
                f"column {name!r} must hold booleans, or 1 and 0, and null where unknown: it holds "
                f"{others[0]}"
            )
    elif not (pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise UserError(f"column {name!r} must hold booleans and nulls: it is of type {kind}")
    return values.cast("bool").fill_null(False)


def attribute_frequencies(labels: np.ndarray) -> np.ndarray:
    """Estimate how often each attribute is present, by Laplace's rule of succession: (attributes,).

    `labels` are (images, attributes); 1, 0 or -100. Without a known label, it is one half.
    """
    return ((labels == 1).sum(axis=0) + 1) / ((labels != IGNORE_INDEX).sum(axis=0) + 2)


class FaceCrops:
    """The faces of a dataset as uint8 crops of one size.

    Args:
        dataset: With a column `image`.
        processor: The model's image processor.
        augmented: Whether to make crops with a margin, for an `Augmentation`, or the model's own.
        cache: Whether to decode all images now, and to cache the crops for later runs in one
            memory-mapped file beside the cache of `datasets`.
        threads: Number of threads that decode images.

    Attributes:
        pixels: uint8, (images, height, width, 3), if the crops are cached, else `None`.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        processor: Any,
        augmented: bool = False,
        cache: bool = False,
        threads: int = 1,
    ):
        # Undecoded, so that decoding fails here, where the row of a bad image is known.
        self.dataset = dataset.select_columns(["image"]).cast_column(
            "image", datasets.Image(decode=False)
        )
        self.make, self.shape = crop_maker(processor, augmented)
        self.pool = ThreadPoolExecutor(max(threads, 1))
        self.pixels: torch.Tensor | None = None
        if cache:
            settings = [processor.to_dict()[name] for name in ("size", "crop_size", "resample")]
            text = repr((self.shape, None if augmented else settings))
            kind = hashlib.sha256(text.encode()).hexdigest()[:8]
            folder = Path(datasets.config.HF_DATASETS_CACHE) / "label2label"
            file = folder / f"{dataset._fingerprint}-{kind}.npy"
            if not file.exists():
                self._write_cache(file)
            # Copy on write: torch warns about read-only memory.
            self.pixels = torch.from_numpy(np.load(file, mmap_mode="c"))

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        """Return the crops of these rows, uint8, (batch, height, width, 3), on `pixels`' device."""
        if self.pixels is not None:
            return self.pixels[torch.from_numpy(rows).to(self.pixels.device)]
        encoded = self.dataset[rows.tolist()]["image"]
        names = [_name(image, row) for image, row in zip(encoded, rows.tolist(), strict=True)]
        return decode_crops(encoded, names, self.make, self.pool)

    def move(self, device: torch.device) -> None:
        """Move cached crops to an accelerator if they fit into half of its free memory."""
        if self.pixels is not None and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self.pixels.numel() < free / 2:
                self.pixels = self.pixels.to(device)

    def name(self, row: int) -> str:
        """Return an image's name for messages: its file name, if it has one, and its row."""
        return _name(self.dataset[row]["image"], row)

    def _write_cache(self, file: Path) -> None:
        temporary = file.with_name(f".{file.name}-{os.getpid()}")
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), *self.shape, 3)}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with (
                open(temporary, "wb") as out,
                tqdm(total=len(self), desc="decode images", unit="image") as bar,
            ):
                np.lib.format.write_array_header_1_0(out, header)
                for start in range(0, len(self), CACHED_AT_ONCE):
                    rows = np.arange(start, min(start + CACHED_AT_ONCE, len(self)))
                    out.write(self.batch(rows).numpy().data)
                    bar.update(len(rows))
            os.replace(temporary, file)
        except OSError as error:
            raise UserError(
                f"{file}: cannot cache the decoded images ({error.strerror or error}); free space, "
                "set HF_HOME to another disk, or train with --set cache_pixels=false"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def decode_crops(
    encoded: Sequence[Any],  # `{"bytes", "path"}` each, as from `datasets.Image(decode=False)`
    names: Sequence[str],  # in error messages
    make: Callable[[np.ndarray], np.ndarray],  # from `crop_maker`
    pool: ThreadPoolExecutor,
) -> torch.Tensor:
    """Decode images to crops in the pool's threads: uint8, (batch, height, width, 3)."""

    def crop(image: Any, name: str) -> np.ndarray:
        try:
            return make(read_encoded(image))
        except UserError as error:
            raise UserError(f"the image in {name} cannot be read: {error}") from error

    return torch.from_numpy(np.stack(list(pool.map(crop, encoded, names))))


def _name(image: Any, row: int) -> str:
    name = image_name(image)
    return f"{name} (row {row})" if name else f"row {row}"


def read_encoded(image: Any) -> np.ndarray:
    """Read an undecoded image of a dataset as RGB, uint8, (height, width, 3)."""
    source = (image or {}).get("bytes") or (image or {}).get("path")
    if not source:
        raise UserError("it is null")
    return load_image(source).pixels


def image_name(image: Any) -> str:
    """Return the file name of a dataset's image, or an empty string."""
    return os.path.basename((image or {}).get("path") or "")


def crop_maker(
    processor: Any, augmented: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, int]]:
    """Return the function from an RGB image to its crop, and the crops' height and width."""
    size = processor.crop_size["height"]
    if augmented:
        width, height = (round(ratio * size) for ratio in CROP_FORMAT)
        return lambda image: crop_with_margin(image, width, height), (height, width)

    def crop(image: np.ndarray) -> np.ndarray:
        done = processor(
            image, do_rescale=False, do_normalize=False, input_data_format="channels_last"
        )
        return np.asarray(done["pixel_values"][0]).transpose(1, 2, 0)

    return crop, (size, size)


def crop_with_margin(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image's short side to `width` and crop its centre to (height, width).

    Where the crop is larger than the image, the edges are repeated.
    """
    ratio = width / min(image.shape[:2])
    shape = [max(width, round(ratio * side)) for side in image.shape[1::-1]]
    # A warp alone would alias.
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, shape, interpolation=method)
    spare = [image.shape[0] - height, image.shape[1] - width]
    top, left = (max(n, 0) // 2 for n in spare)
    image = image[top : top + height, left : left + width]
    above, beside = (max(-n, 0) for n in spare)
    borders = above // 2, above - above // 2, beside // 2, beside - beside // 2
    return cv2.copyMakeBorder(image, *borders, cv2.BORDER_REPLICATE)


def normalize_pixels(pixels: torch.Tensor, processor: Any) -> torch.Tensor:
    """Rescale and normalise a batch, like the image processor's last two steps.

    Args:
        pixels: uint8, (batch, height, width, 3), or float32, (batch, 3, height, width), 0..255.
        processor: The model's image processor.
    """
    if pixels.dtype == torch.uint8:
        pixels = pixels.permute(0, 3, 1, 2).contiguous().float()
    scale, shift = torch.ones(3), torch.zeros(3)
    if processor.do_rescale:
        scale = scale * processor.rescale_factor
    if processor.do_normalize:
        # A processor may have a single number for all channels.
        std = torch.tensor(processor.image_std)
        scale, shift = scale / std, (torch.tensor(processor.image_mean) / std).expand(3)
    scale, shift = (value.view(3, 1, 1).to(pixels.device) for value in (scale, shift))
    return pixels * scale - shift


def draw_epoch(
    num_images: int, seed: int, epoch: int, probabilities: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images of one epoch, in an order that depends only on `seed` and `epoch`.

    Without probabilities, each image is drawn once. With them, an image of probability p is drawn
    floor(n p) or ceil(n p) times in an epoch of n images (systematic resampling, Kitagawa 1996), so
    that the groups' shares do not vary at random.

    Args:
        num_images: Number of images in the dataset and in the epoch.
        seed, epoch: Not negative.
        probabilities: (num_images,), with sum 1; `None` to draw each image once.

    Returns:
        Rows, and how often the epoch drew each of them before, so that augmentation can differ each
        time; both int64, (num_images,).
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(num_images)
    if probabilities is None:
        return order, np.zeros_like(order)
    ends = num_images * np.cumsum(probabilities[order])
    ends[-1] = num_images
    points = rng.random() + np.arange(num_images)
    rows = rng.permutation(order[np.searchsorted(ends, points, side="right")])
    by_row = np.argsort(rows, kind="stable")
    _, starts, counts = np.unique(rows[by_row], return_index=True, return_counts=True)
    occurrences = np.empty_like(rows)
    occurrences[by_row] = np.arange(num_images) - np.repeat(starts, counts)
    return rows, occurrences


def draw_probabilities(
    source_of: np.ndarray, shares: list[float | None], group_of: np.ndarray | None = None
) -> np.ndarray | None:
    """Compute probabilities from the sources' shares, with groups drawn equally often.

    Args:
        source_of: (images,), index of each image's source.
        shares: Each source's share of the drawn images, 0..1. Sources with `None` divide the rest
            in proportion to their images.
        group_of: (images,), index of each image's group, -1 for none; `None` not to balance groups.

    Returns:
        (images,), with sum 1, or `None` if all images have equal probability.

    Raises:
        ValueError: If the shares leave nothing for the other sources, or do not sum to 1.
    """
    if all(share is None for share in shares) and group_of is None:
        return None
    sizes = np.bincount(source_of, minlength=len(shares)).astype(float)
    given = np.array([np.nan if share is None else share for share in shares])
    open_sources = np.isnan(given)
    left = 1 - np.nansum(given)
    if open_sources.any() != (left > 1e-9) or left < -1e-9:
        raise ValueError(f"the shares of the sources add up to {np.nansum(given):g}, not to 1")
    given[open_sources] = left * sizes[open_sources] / max(sizes[open_sources].sum(), 1)
    probabilities = (given / sizes)[source_of]
    if group_of is not None:
        grouped = group_of >= 0
        mass = np.bincount(group_of[grouped], probabilities[grouped])
        target = mass.sum() / np.count_nonzero(mass)
        # A group that is only in sources of share 0 stays at 0.
        scale = np.divide(target, mass, out=np.zeros_like(mass), where=mass > 0)
        probabilities[grouped] *= scale[group_of[grouped]]
    return probabilities / probabilities.sum()


def pack_command(args: argparse.Namespace) -> int:
    """Run `label2label pack`; return 0."""
    count = pack_dataset(args.data, args.output, args.size, args.workers)
    print(f"{args.output}: {count:,} images; train on it with --data {args.output}")
    return 0


def pack_dataset(path: str | Path, output: str | Path, size: int, threads: int = 1) -> int:
    """Write a copy of a dataset with images reduced to training crops, in parts easy to copy.

    Training on the copy uses the same crops as on the original, except for JPEG compression.

    Args:
        path: Folder or Hub id of a prepared dataset.
        output: Folder to write; must be missing or empty.
        size: Side of the model's crop, in pixels.
        threads: Number of threads that decode and encode.

    Returns:
        The number of images.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not empty: choose another output")
    width, height = (round(ratio * size) for ratio in CROP_FORMAT)

    def pack(row: dict[str, Any]) -> dict[str, Any]:
        name = image_name(row["image"])
        try:
            crop = crop_with_margin(read_encoded(row["image"]), width, height)
        except UserError as error:
            raise UserError(f"the image {name or 'without a name'}: {error}") from error
        encoded = io.BytesIO()
        Image.fromarray(crop).save(encoded, "JPEG", quality=PACKED_QUALITY)
        return {**row, "image": {"bytes": encoded.getvalue(), "path": name or None}}

    parts = {split: load_split(path, split) for split in split_names(path)}
    try:
        with replace_folder(output) as folder:
            (folder / "data").mkdir(parents=True)
            for split, dataset in parts.items():
                _write_parts(dataset, pack, folder / "data" / split, threads)
            if (card := Path(path) / "README.md").is_file():  # the terms of the data go with them
                shutil.copy(card, folder)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    return sum(map(len, parts.values()))


def _write_parts(dataset: datasets.Dataset, pack: Callable, stem: Path, threads: int) -> None:
    rows = dataset.cast_column("image", datasets.Image(decode=False))
    schema = dataset.features.arrow_schema
    part: list[dict[str, Any]] = []
    part_bytes = number = 0
    with (
        ThreadPoolExecutor(max(threads, 1)) as pool,
        tqdm(total=len(rows), desc=stem.name, unit="image") as bar,
    ):
        for start in range(0, len(rows), CACHED_AT_ONCE):
            indices = range(start, min(start + CACHED_AT_ONCE, len(rows)))
            part += pool.map(pack, (rows[index] for index in indices))
            part_bytes += sum(len(row["image"]["bytes"]) for row in part[-len(indices) :])
            bar.update(len(indices))
            if part_bytes > PART_BYTES or indices.stop == len(rows):
                table = pa.Table.from_pylist(part, schema=schema)
                pq.write_table(table, f"{stem}-{number:05d}.parquet")
                part, part_bytes, number = [], 0, number + 1
