"""A recipe's data: rows, groups, teachers' labels and batches."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets.distributed import split_dataset_by_node
from datasets.fingerprint import Hasher

from label2label.checkpoints import find_checkpoint
from label2label.data.loading import (
    FaceCrops,
    column_values,
    crop_maker,
    decode_crops,
    draw_epoch,
    draw_probabilities,
    image_name,
    label_array,
    load_split,
)
from label2label.data.schema import GROUP_COLUMNS
from label2label.data.vocabulary import VOCABULARIES, get_vocabulary
from label2label.errors import UserError, join_lines
from label2label.files import replace_file, sha256
from label2label.training.distillation import teach
from label2label.training.recipe import Recipe, Source

OWN_COLUMNS = "columns"
SCHEMA_COLUMNS = {"image", "identity", "source", *GROUP_COLUMNS}
SHUFFLED_AT_ONCE = 4096  # encoded images in a stream's shuffle buffer


class TrainingData:
    """Training and validation data of a recipe.

    Attributes below are indexed by the `rows` of a batch.

    Attributes:
        attributes: Names of the attributes to learn, in the model's order.
        labels: int8, (rows, attributes), of the training rows, or with a stream those of the
            validation split.
        batches_per_epoch: Batches per epoch and process.
        supervision: Arrays indexed by training row that `training_inputs` takes beside the labels:
            `weight`, `teacher` and `distillation`, or only those that the recipe has.
        validation_labels: int8, (rows, attributes).
        validation_sources, validation_groups: Names of each validation row's source and group,
            (rows,); `None` for rows without a group, or instead of the array without groups.
        crops, validation_crops: The faces, after `prepare`.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator):
        self.recipe, self.accelerator = recipe, accelerator
        self.title = ", ".join(source.path for source in recipe.sources)
        self.stream: ImageStream | None = None
        self.supervision: dict[str, np.ndarray] = {}
        self.validation_rows, source_of = open_sources(
            recipe.sources, "validation", recipe.seed, alone=recipe.streaming
        )
        self.attributes = choose_attributes(recipe.vocabulary, self.validation_rows, self.title)
        self.validation_labels = label_array(self.validation_rows, self.attributes)
        if not (self.validation_labels >= 0).any():
            raise UserError(f"{self.title}: no label of the validation split is known")
        names = [f"{source.path} {source.condition}".strip() for source in recipe.sources]
        self.validation_sources = np.array(names)[source_of]
        self.validation_groups = None
        if recipe.groups:
            self.validation_groups = name_groups(self.validation_rows, recipe.groups, self.title)
        if recipe.streaming:
            self.stream = ImageStream(recipe, accelerator)
            self.labels, num_images = self.validation_labels, self.stream.num_images
        else:
            num_images = self._open_train()
        self.batches_per_epoch = num_images // (recipe.batch_size * accelerator.num_processes)
        if self.batches_per_epoch == 0:
            raise UserError(
                f"{self.title}: {num_images} training images do not fill one batch of "
                f"{recipe.batch_size} on each of {accelerator.num_processes} processes"
            )
        if not recipe.teachers and not (self.labels >= 0).any():
            raise UserError(
                f"{self.title}: no label of the training split is known: nothing to learn"
            )

    def _open_train(self) -> int:
        recipe, sources = self.recipe, self.recipe.sources
        self.rows, source_of = open_sources(sources, "train", recipe.seed)
        self.labels = label_array(self.rows, self.attributes)
        group_of = None
        if recipe.sampling == "group-balanced":
            group_of, _ = pandas.factorize(name_groups(self.rows, recipe.groups, self.title))
        shares = [source.share for source in sources]
        try:
            self.probabilities = draw_probabilities(source_of, shares, group_of)
        except ValueError as error:
            raise UserError(f"data: {error}") from error
        if recipe.teachers:
            own = [source.distillation for source in sources]
            taught = [recipe.distillation if share is None else share for share in own]
            self.supervision["distillation"] = np.array(taught, np.float32)[source_of, None]
        if any(source.weight != 1 for source in sources):
            weights = np.array([source.weight for source in sources], np.float32)
            self.supervision["weight"] = weights[source_of]
        return len(self.rows)

    def prepare(self, processor: Any, output: Path) -> None:
        """Decode the images for the model's image processor, and run the teachers.

        The teachers' predictions are cached in the run's folder, `output`.
        """
        recipe = self.recipe
        options: dict[str, Any] = {"cache": recipe.cache_pixels, "threads": recipe.workers}
        # One process decodes, the others read its cache.
        with self.accelerator.main_process_first():
            self.validation_crops = FaceCrops(self.validation_rows, processor, **options)
            if self.stream is None:
                self.crops = FaceCrops(self.rows, processor, augmented=True, **options)
        if self.stream is not None:
            self.stream.make_crop, _ = crop_maker(processor, augmented=True)
            return
        self.crops.move(self.accelerator.device)
        if recipe.teachers:
            self.supervision["teacher"] = self._teach(processor, output)

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Load this process's batches of an epoch, from batch `start` on; both count from 0.

        Yields:
            `pixels`, uint8, (batch, height, width, 3), `labels`, int64, (batch, attributes), and
            the rows' `supervision`, on the process's device; `rows` and `occurrences`, int64
            arrays, (batch,), as in `draw_epoch`; from a stream also `names`, and `state` after the
            batch.
        """
        if self.stream is not None:
            batches = self.stream.batches(self.attributes, self.batches_per_epoch - start)
        else:
            drawn = draw_epoch(len(self.rows), self.recipe.seed, epoch, self.probabilities)
            batches = self._read(*drawn, start)
        device = self.accelerator.device
        for batch in prefetch(batches):
            yield {
                name: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
                for name, value in batch.items()
            }

    def _read(
        self, rows: np.ndarray, occurrences: np.ndarray, start: int
    ) -> Iterator[dict[str, Any]]:
        size, processes = self.recipe.batch_size, self.accelerator.num_processes
        for number in range(start, self.batches_per_epoch):
            first = (number * processes + self.accelerator.process_index) * size
            own = rows[first : first + size]
            yield {
                "pixels": self.crops.batch(own),
                "labels": torch.from_numpy(self.labels[own].astype(np.int64)),
                "rows": own,
                "occurrences": occurrences[first : first + size],
                **{name: torch.from_numpy(of[own]) for name, of in self.supervision.items()},
            }

    def validation_batches(self) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Load this process's part of the validation split: rows, crops and labels of batches."""
        processes, device = self.accelerator.num_processes, self.accelerator.device
        own = np.arange(self.accelerator.process_index, len(self.validation_rows), processes)
        for first in range(0, len(own), self.recipe.batch_size):
            rows = own[first : first + self.recipe.batch_size]
            labels = torch.from_numpy(self.validation_labels[rows].astype(np.int64))
            yield rows, self.validation_crops.batch(rows).to(device), labels.to(device)

    def names(self, batch: dict[str, Any]) -> list[str]:
        """Return the names of a training batch's images in the dataset."""
        if self.stream is not None:
            return batch["names"]
        return [self.crops.name(row) for row in batch["rows"].tolist()]

    def _teach(self, processor: Any, output: Path) -> np.ndarray:
        """Return the teachers' probabilities, memory-mapped from a file in the run's folder.

        Its name has a hash of all that they depend on; without the file, they are computed.
        """
        recipe = self.recipe
        shown = np.flatnonzero(self.supervision["distillation"][:, 0] > 0)
        teachers = [_identify(name) for name in recipe.teachers]
        rows = self.rows._fingerprint, shown.tobytes()
        key = Hasher.hash([teachers, list(self.attributes), *rows, processor.to_json_string()])
        file = output / f"teacher-{key}.npy"
        with self.accelerator.main_process_first():
            if not file.exists():
                probabilities = np.full(self.labels.shape, -100, np.float32)
                if len(shown):
                    crops = FaceCrops(self.rows.select(shown), processor, threads=recipe.workers)
                    with self.accelerator.autocast():
                        probabilities[shown] = teach(
                            recipe.teachers, crops, self.attributes, self.accelerator.device
                        )
                try:
                    output.mkdir(parents=True, exist_ok=True)
                    with replace_file(file) as draft, open(draft, "wb") as out:
                        np.save(out, probabilities)
                except OSError as error:
                    raise UserError(f"{file}: cannot be written: {error.strerror}") from error
            return np.load(file, mmap_mode="r")


def _identify(teacher: str) -> str | list[str]:
    """Return the hashes of a teacher's files, or the id of one on the Hub."""
    files = Path(find_checkpoint(teacher)).glob("*")
    kinds = (".json", ".safetensors", ".bin")
    return [sha256(path) for path in sorted(files) if path.suffix in kinds] or teacher


class ImageStream:
    """Endless passes over a training split that is read sequentially.

    The files' row groups are divided among the processes, in a new order for each pass, and
    `SHUFFLED_AT_ONCE` images are shuffled at a time. An epoch has the same number of batches on
    each process: one with a smaller share starts its next pass early.

    Attributes:
        num_images: Number of training images.
        make_crop: Function from an image to its crop; set before `batches`.
        state: Position after the last batch that was trained on.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator):
        self.path = recipe.sources[0].path
        self.batch_size = recipe.batch_size
        self.process = accelerator.process_index
        dataset = load_split(self.path, "train", streaming=True)
        splits = dataset.info.splits or {}
        self.num_images = splits["train"].num_examples if "train" in splits else 0
        if not self.num_images:
            raise UserError(
                f"{self.path}: its card does not give the number of training images, which "
                "streaming needs"
            )
        if accelerator.num_processes > 1:
            dataset = dataset.reshard()  # row groups are of more equal size than files
        dataset = dataset.cast_column("image", datasets.Image(decode=False))
        dataset = split_dataset_by_node(dataset, self.process, accelerator.num_processes)
        # A buffer of 1 shuffles files only: a state does not save the buffer's content.
        self.source = dataset.shuffle(seed=recipe.seed, buffer_size=1)
        self.seed = recipe.seed
        self.pool = ThreadPoolExecutor(max(recipe.workers, 1))
        self.make_crop: Any = None
        self.state: dict[str, Any] = {"pass": 0, "taken": 0, "dataset": None}

    def batches(self, attributes: Sequence[str], count: int) -> Iterator[dict[str, Any]]:
        """Read the next `count` batches from `state` on, as `TrainingData.batches`."""
        number, taken = self.state["pass"], self.state["taken"]
        rows = self._open_pass(number, self.state["dataset"])
        while count:
            table = self._next(rows)
            if table is None:
                if taken == 0:
                    raise UserError(
                        f"{self.path}: a process's share has fewer images than a batch of "
                        f"{self.batch_size}"
                    )
                number, taken = number + 1, 0
                rows = self._open_pass(number, None)
                continue
            names = [image_name(image) for image in table["image"]]
            # Not rows of the dataset, but equally good as seeds of random draws.
            place = np.arange(taken, taken + len(names)) + ((self.process << 32) + (number << 44))
            taken += len(names)
            state = {"pass": number, "taken": taken, "dataset": self.dataset.state_dict()}
            shown = [name or "an unnamed image" for name in names]
            yield {
                "pixels": decode_crops(table["image"], shown, self.make_crop, self.pool),
                "labels": torch.from_numpy(label_array(table, attributes).astype(np.int64)),
                "rows": place,
                "occurrences": np.zeros_like(place),
                "names": shown,
                "state": state,
            }
            count -= 1

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all processes, for Accelerate. All processes call it."""
        return {"states": gather_object([self.state])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore this process's state from `state_dict`."""
        self.state = state["states"][self.process]

    def _open_pass(self, number: int, state: dict[str, Any] | None) -> Iterator[Any]:
        self.source.set_epoch(number)
        shuffle = functools.partial(shuffle_rows, seed=(self.seed, number))
        self.dataset = self.source.map(shuffle, batched=True, batch_size=SHUFFLED_AT_ONCE)
        if state is not None:
            self.dataset.load_state_dict(state)
        return self.dataset.iter(self.batch_size, drop_last_batch=True)

    def _next(self, tables: Iterator[Any]) -> Any:
        try:
            return next(tables, None)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.path}: the stream cannot be read: {join_lines(error)}"
            ) from error


def shuffle_rows(rows: dict[str, list[Any]], seed: tuple[int, ...]) -> dict[str, list[Any]]:
    """Shuffle rows, given as columns."""
    order = np.random.default_rng(seed).permutation(len(rows["image"]))
    return {name: [values[i] for i in order] for name, values in rows.items()}


def prefetch(batches: Iterator[Any]) -> Iterator[Any]:
    """Load the next batch in a thread while the current one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def choose_attributes(vocabulary: str, rows: datasets.Dataset, title: str) -> tuple[str, ...]:
    """Return the attributes to learn: a vocabulary's, or with `"columns"` all columns of labels."""
    if vocabulary == OWN_COLUMNS:
        others = [name for name in rows.column_names if name not in SCHEMA_COLUMNS]
        names = tuple(name for name in others if _holds_labels(rows, name))
        if not names:
            raise UserError(
                f"{title}: no column holds labels (booleans, or 1 and 0, and null where unknown); "
                f"it has {', '.join(rows.column_names)}"
            )
        return names
    names, opposites = get_vocabulary(vocabulary).attributes, VOCABULARIES["union"].opposites
    columns = set(rows.column_names)
    missing = [a for a in names if a not in columns and opposites.get(a) not in columns]
    if missing:
        raise UserError(
            f"{title}: the dataset has no column {', '.join(map(repr, missing))}; for its own "
            "attributes, set vocabulary to columns"
        )
    return names


def _holds_labels(rows: datasets.Dataset, name: str) -> bool:
    kind = getattr(rows.features[name], "dtype", "")
    if not (kind == "bool" or kind.startswith(("int", "uint", "float"))):
        return False
    try:
        return bool((label_array(rows, [name]) >= 0).any())
    except UserError:  # numbers other than labels
        return False


def open_sources(
    sources: Sequence[Source], split: str, seed: int, alone: bool = False
) -> tuple[datasets.Dataset, np.ndarray]:
    """Open one split of all sources, one after another; `alone` as in `load_split`.

    Return the rows, with null for columns that a source lacks, and the index of each row's source.
    """
    parts = [_open(source, split, seed, alone) for source in sources]
    source_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if len(parts) == 1:
        return parts[0], source_of
    try:
        return datasets.concatenate_datasets(parts), source_of
    except (ValueError, TypeError) as error:
        paths = ", ".join(source.path for source in sources)
        raise UserError(f"{paths}: their columns have different types: {error}") from error


def _open(source: Source, split: str, seed: int, alone: bool) -> datasets.Dataset:
    dataset = load_split(source.path, split, alone=alone)
    keep = np.ones(len(dataset), bool)
    for column, wanted in source.where.items():
        values = column_values(dataset, column, source.path)
        allowed = wanted if isinstance(wanted, list) else [wanted]
        keep &= np.array([value in allowed for value in values])
        if not keep.any():
            found = ", ".join(sorted({str(value) for value in values})[:8])
            raise UserError(
                f"{source.path}: no row of the {split} split has {source.condition}; "
                f"its values of {column}: {found}"
            )
    rows = np.flatnonzero(keep)
    if source.limit and split == "train":
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[: source.limit])
    return dataset if len(rows) == len(dataset) else dataset.select(rows)


def name_groups(dataset: datasets.Dataset, columns: Sequence[str], path: str) -> np.ndarray:
    """Name each row's group, such as `"Asian, Male"`; `None` if one of the columns is null."""
    rows = zip(*(column_values(dataset, column, path) for column in columns), strict=True)
    names = [None if None in row else ", ".join(map(str, row)) for row in rows]
    if len(groups := set(names) - {None}) < 2:
        raise UserError(
            f"{path}: {' and '.join(columns)} must divide the images into at least two groups; "
            f"found {', '.join(map(str, groups)) or 'none'}"
        )
    return np.array(names, object)
