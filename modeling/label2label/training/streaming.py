"""Training images read as a stream: each once an epoch, by one process, and never all of them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets.distributed import split_dataset_by_node

from label2label.data.augmentation import Augmentation
from label2label.data.batching import AttributeDataset, raise_errors, stream_split
from label2label.errors import UserError, first_line
from label2label.training.recipe import Recipe


class ImageStream(torch.utils.data.IterableDataset):
    """
    One process's batches of an epoch, as `AttributeDataset` makes them, of rows that are read from
    front to back.

    Every worker of every process is a reader. Readers share the files among themselves, or the
    files' row groups where the files cannot be shared evenly, in an order that is drawn anew for
    every epoch. A reader holds one block of `shuffle_buffer` images, still encoded, and takes its
    batches from it in random order before it reads the next. All processes take
    `batches_per_epoch` batches: a reader whose share has come to its end before goes through it
    once more, and what is left of a larger share is not seen in that epoch.

    Beside tensors, a batch holds `names`, what the files call its images, and `place`, where its
    reader goes on after it: `follow` takes note of it for states to resume from.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        attributes: Attribute columns, in the model's order.
        processor: The model's image processor.
        augmentation: Changes the faces.
        recipe: Gives `batch_size`, `batches_per_epoch`, `seed`, `shuffle_buffer` and `workers`.
        accelerator: Of the process.

    Attributes:
        batches_per_epoch: Of this process, the same on all.

    Raises:
        UserError: If the dataset cannot be read, is too small for so many readers, or does not tell
            the number of its images where the recipe leaves the number of batches open.
    """

    def __init__(
        self,
        path: str,
        attributes: Sequence[str],
        processor: Any,
        augmentation: Augmentation,
        recipe: Recipe,
        accelerator: Accelerator,
    ):
        self.path, self.attributes, self.processor = path, attributes, processor
        self.augmentation, self.seed, self.batch_size = augmentation, recipe.seed, recipe.batch_size
        self.block_size = max(recipe.shuffle_buffer // self.batch_size, 1) * self.batch_size
        self.process, self.processes = accelerator.process_index, accelerator.num_processes
        self.readers = max(recipe.workers, 1)
        self.epoch = self.start = 0
        self.places: dict[int, dict[str, Any]] = {}
        readers = self.processes * self.readers
        self.dataset = stream_split(path, "train").with_format("arrow")
        if self.dataset.num_shards % readers:
            self.dataset = self.dataset.reshard()
        if self.dataset.num_shards < readers:
            raise UserError(
                f"{path}: the train split's {self.dataset.num_shards} row groups are too few for "
                f"{self.processes} processes with {self.readers} readers each: lower workers"
            )
        self.batches_per_epoch = recipe.batches_per_epoch or self._count_batches()

    def _count_batches(self) -> int:
        splits = self.dataset.info.splits or {}
        if "train" not in splits or not splits["train"].num_examples:
            raise UserError(
                f"{self.path}: its card does not tell the number of training images: "
                "set batches_per_epoch"
            )
        images = splits["train"].num_examples
        # As many of each reader, so that no share of the usual size is gone through twice.
        batches = images // (self.batch_size * self.processes * self.readers) * self.readers
        if batches == 0:
            raise UserError(
                f"{self.path}: {images} training images do not fill one batch of {self.batch_size} "
                f"of each of {self.readers} readers on each of {self.processes} processes"
            )
        return batches

    def first_labels(self) -> np.ndarray:
        """
        Reads the labels of one block, which says roughly how often attributes are present.

        Returns:
            int8 of shape (images, attributes): 1, 0 or -100.

        Raises:
            UserError: If it cannot be read, or has no column for an attribute.
        """
        self.dataset.set_epoch(self._draw_seed())
        for table in self._tables(self.dataset):
            return self._block(table, 0).labels
        raise UserError(f"{self.path}: the train split is empty")

    def start_at(self, epoch: int, batch: int) -> None:
        """
        Says what the next iteration gives.

        Args:
            epoch: Counts from 0.
            batch: Batches of the epoch that were taken before; places are forgotten where there
                are none.
        """
        self.epoch, self.start = epoch, batch
        if batch == 0:
            self.places = {}

    def follow(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """
        Takes note of how far the readers have come.

        Args:
            batches: What a loader gives of this stream, on however many workers.

        Yields:
            The same batches, without `place`.

        Raises:
            UserError: If a reader could not go on.
        """
        for batch in raise_errors(batches):
            place = batch.pop("place")
            self.places[place["reader"]] = place
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The places of all processes' readers, for Accelerate. All processes call it."""
        return {"readers": self.readers, "places": gather_object([self.places])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Takes this process's places of what `state_dict` gave.

        Raises:
            ValueError: If there were not as many processes and readers.
        """
        saved = len(state["places"]), state["readers"]
        if saved != (self.processes, self.readers):
            raise ValueError(
                "the stream was shared by {} processes with {} readers each".format(*saved)
            )
        self.places = state["places"][self.process]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        first = self.start + (worker.id if worker else 0)
        batches = self._read(first % self.readers)
        try:
            for _ in range(first, self.batches_per_epoch, self.readers):
                yield next(batches)
        except UserError as error:
            # Raised here, it would reach the main process with a worker's traceback in its text.
            yield {"error": str(error)}

    def _read(self, reader: int) -> Iterator[dict[str, Any]]:
        """A reader's batches without end, from its place on."""
        place: dict[str, Any] = {"reader": reader, "turn": 0, "block": 0, "state": None, "taken": 0}
        place |= self.places.get(reader, {})
        whole = 0
        number = self.process * self.readers + reader
        while True:
            share = split_dataset_by_node(
                self.dataset, number, self.processes * self.readers, strategy="shards"
            )
            # The same for every turn of an epoch: with the order, the shares would change too.
            share.set_epoch(self._draw_seed())
            if place["state"] is not None:
                share.load_state_dict(place["state"])
            for table in self._tables(share):
                seed = self._draw_seed(place["turn"], number, place["block"])
                block = self._block(table, seed)
                paths = pc.struct_field(table["image"], "path").to_pylist()
                order = np.random.default_rng(seed).permutation(len(block))
                whole = len(order) - len(order) % self.batch_size
                for start in range(place["taken"], whole, self.batch_size):
                    rows = order[start : start + self.batch_size].tolist()
                    place = {**place, "taken": start + self.batch_size}
                    names = [os.path.basename(paths[row] or "an unnamed image") for row in rows]
                    yield {**block.__getitems__(rows), "names": names, "place": place}
                place = {**place, "block": place["block"] + 1, "state": share.state_dict()}
                place["taken"] = 0
            if whole == 0 and place["block"] <= 1:
                raise UserError(
                    f"{self.path}: one of {self.processes * self.readers} readers has not the "
                    f"{self.batch_size} images of a batch: lower workers or batch_size"
                )
            place = {**place, "turn": place["turn"] + 1, "block": 0, "state": None}

    def _tables(self, dataset: datasets.IterableDataset) -> Iterator[pa.Table]:
        try:
            # Not iter(dataset), which would share among a loader's workers what is shared already.
            yield from dataset.iter(batch_size=self.block_size)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.path}: the stream broke off: {first_line(error)}") from error

    def _block(self, table: pa.Table, seed: int) -> AttributeDataset:
        # With a fingerprint given, datasets does not compute one from all of the bytes.
        rows = datasets.Dataset(table, info=self.dataset.info, fingerprint=f"block-{seed}")
        return AttributeDataset(rows, self.attributes, self.processor, self.augmentation, seed=seed)

    def _draw_seed(self, *numbers: int) -> int:
        """A seed of seed, epoch and what else is given; above 0, where datasets draws no order."""
        sequence = np.random.SeedSequence((self.seed, self.epoch, *numbers))
        return int(sequence.generate_state(1)[0]) + 1
