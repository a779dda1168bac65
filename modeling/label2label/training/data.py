"""A recipe's data: training rows with their sources, groups and teachers, and validation rows."""

import atexit
import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader

from label2label.checkpoints import find_checkpoint
from label2label.data.augmentation import Augmentation
from label2label.data.batching import AttributeDataset, batch_loader, load_split
from label2label.data.sampling import EpochSampler, draw_probabilities
from label2label.errors import UserError
from label2label.files import sha256, write_whole
from label2label.training.distillation import teach
from label2label.training.recipe import Recipe
from label2label.training.sources import group_rows, open_sources
from label2label.training.streaming import ImageStream


class TrainingData:
    """
    Everything that a recipe reads. What a batch does not carry is looked up by its `row`.

    Attributes:
        train, validation: Images and labels.
        sampler: Of the training rows.
        stream: What stands in for `train` and `sampler` where the recipe streams, else `None`.
        labels: int8 of shape (rows, attributes), of the training rows, or of some of a stream.
        batches_per_epoch: Of this process.
        group_names, group_of: Groups, and the index of each training row's, -1 for none; no groups
            where the recipe names no columns.
        distillation: The teachers' share of each training row's soft labels, (rows, 1).
        validation_parts: Validation rows by what they are reported by, `{"source": {path: bool
            (rows,)}, "group": {...}}`.

    Args:
        recipe: Names the data.
        attributes: To learn, in the model's order.
        processor: The model's image processor.
        accelerator: Of the process.
        output: The run's folder; the teachers' answers are kept there.

    Raises:
        UserError: If the data cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        attributes: Sequence[str],
        processor: Any,
        accelerator: Accelerator,
        output: Path,
    ):
        self.recipe, self.accelerator, self.output = recipe, accelerator, output
        augmentation = Augmentation(
            **{f.name: getattr(recipe, f.name) for f in dataclasses.fields(Augmentation)}
        )
        self.group_names: list[str] = []
        self.stream: ImageStream | None = None
        title = ", ".join(source.path for source in recipe.sources)
        if recipe.streaming:
            self.stream = ImageStream(
                title, attributes, processor, augmentation, recipe, accelerator
            )
            # Read by one process, so that all start from the same model.
            labels = [self.stream.first_labels() if accelerator.is_main_process else None]
            self.labels = broadcast_object_list(labels)[0]
            self.batches_per_epoch = self.stream.batches_per_epoch
        else:
            self._open_train(attributes, processor, augmentation, title)
        if not recipe.teachers and not (self.labels >= 0).any():
            raise UserError(f"{title}: no label of the training split is known: nothing to learn")
        self._open_validation(attributes, processor, title)

    def _open_train(
        self,
        attributes: Sequence[str],
        processor: Any,
        augmentation: Augmentation,
        title: str,
    ) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        rows, source_of = open_sources(recipe.sources, "train", recipe.seed)
        # One process decodes, the others read what it kept.
        with accelerator.main_process_first():
            self.train = AttributeDataset(
                rows,
                attributes,
                processor,
                augmentation,
                recipe.seed,
                keep_decoded=recipe.keep_decoded,
            )
        self.labels = self.train.labels
        self.group_of = np.full(len(rows), -1)
        if recipe.groups:
            self.group_names, self.group_of = group_rows(rows, recipe.groups, title)
        balanced = self.group_of if recipe.sampling == "group-balanced" else None
        try:
            shares = [source.share for source in recipe.sources]
            probabilities = draw_probabilities(source_of, shares, balanced)
        except ValueError as error:
            raise UserError(f"data: {error}") from error
        self.sampler = EpochSampler(len(rows), recipe.seed, probabilities)
        self.batches_per_epoch = len(rows) // (recipe.batch_size * accelerator.num_processes)
        if self.batches_per_epoch == 0:
            raise UserError(
                f"{title}: {len(rows)} training images do not fill one batch of "
                f"{recipe.batch_size} on each of {accelerator.num_processes} processes"
            )
        own = [source.distillation for source in recipe.sources]
        taught = np.array([recipe.distillation if share is None else share for share in own])
        self.distillation = taught[source_of, None].astype(np.float32)
        if recipe.teachers:
            self.train.teacher = self._teach(recipe.teachers)

    def _open_validation(self, attributes: Sequence[str], processor: Any, title: str) -> None:
        recipe = self.recipe
        if self.stream is None:
            rows, source_of = open_sources(recipe.sources, "validation", recipe.seed)
        else:
            rows = load_split(title, "validation", alone=True)
            source_of = np.zeros(len(rows), int)
        with self.accelerator.main_process_first():
            self.validation = AttributeDataset(
                rows, attributes, processor, keep_decoded=recipe.keep_decoded
            )
        if not (self.validation.labels >= 0).any():
            raise UserError(f"{title}: no label of the validation split is known")
        self.validation_parts = {
            "source": {
                f"{source.path} {source.condition}".strip(): source_of == i
                for i, source in enumerate(recipe.sources)
            },
            "group": {},
        }
        if recipe.groups:
            names, group_of = group_rows(rows, recipe.groups, title)
            self.validation_parts["group"] = {name: group_of == i for i, name in enumerate(names)}

    def loaders(self) -> tuple[DataLoader, DataLoader]:
        """Loaders of training and of validation batches, prepared by Accelerate."""
        options: dict[str, Any] = {
            "num_workers": self.recipe.workers,
            "worker_init_fn": leave_signals_to_the_trainer,
        }
        atexit.register(end_workers)
        size, prepare = self.recipe.batch_size, self.accelerator.prepare
        validation = prepare(batch_loader(self.validation, size, **options))
        if self.stream is None:
            train = batch_loader(self.train, size, sampler=self.sampler, drop_last=True, **options)
            return prepare(train), validation
        # The stream is this process's share already: Accelerate would have one process read it all.
        train = prepare_data_loader(
            batch_loader(self.stream, None, **options),
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
        )
        return train, validation

    def start_at(self, epoch: int, batch: int) -> None:
        """
        Says what the training loader gives next.

        Args:
            epoch: Counts from 0.
            batch: Batches of the epoch that this process took before.
        """
        if self.stream is not None:
            self.stream.start_at(epoch, batch)
            return
        self.train.epoch = self.sampler.epoch = epoch
        self.sampler.start = batch * self.recipe.batch_size * self.accelerator.num_processes

    def names(self, batch: dict[str, Any]) -> list[str]:
        """What the dataset calls the images of a training batch."""
        if self.stream is not None:
            return batch["names"]
        return [self.train.images.name(row) for row in batch["row"].tolist()]

    def _teach(self, teachers: Sequence[str]) -> np.ndarray:
        """
        The teachers' probabilities of the rows that are shown to them, memory-mapped: asked for
        once a run, and anew where the file beside them tells of other teachers or other rows.
        """
        file, told = self.output / "teacher.npy", self.output / "teacher.json"
        shown = np.flatnonzero(self.distillation[:, 0] > 0)
        key = teaching_key(teachers, self.train, shown)
        with self.accelerator.main_process_first():
            if not (file.exists() and told.exists() and told.read_text(encoding="utf-8") == key):
                probabilities = np.full(self.train.labels.shape, -100, np.float32)
                if len(shown):
                    plain = AttributeDataset(
                        self.train.dataset.select(shown),
                        self.train.attributes,
                        self.train.processor,
                    )
                    probabilities[shown] = teach(
                        teachers, plain, plain.attributes, self.accelerator.device
                    )
                try:
                    self.output.mkdir(parents=True, exist_ok=True)
                    np.save(file.with_name(".teacher.npy"), probabilities)
                    # In this order a run that is cut short never leaves a key to other answers.
                    told.unlink(missing_ok=True)
                    os.replace(file.with_name(".teacher.npy"), file)
                    write_whole(told, key)
                except OSError as error:
                    raise UserError(f"{file}: cannot be written: {error.strerror}") from error
            return np.load(file, mmap_mode="r")


def teaching_key(teachers: Sequence[str], data: AttributeDataset, shown: np.ndarray) -> str:
    """
    Says what teachers' answers depend on.

    Args:
        teachers: Folders or Hub ids.
        data: The training split.
        shown: Indices of the rows that are shown to them, (rows,).

    Returns:
        JSON: `teachers` (digests of the config and weights of a folder, else the Hub id),
        `attributes`, `dataset` (its fingerprint), `rows` (their number), and digests of `shown` and
        of the image `processor`.
    """

    def identify(name: str) -> str | dict[str, str]:
        folder = Path(find_checkpoint(name))
        kinds = ("config.json", "*.safetensors", "*.bin")
        files = sorted(path for kind in kinds for path in folder.glob(kind))
        return {path.name: sha256(path) for path in files} or name

    key = {
        "teachers": [identify(name) for name in teachers],
        "attributes": list(data.attributes),
        "dataset": data.dataset._fingerprint,
        "rows": len(data.labels),
        "shown": hashlib.sha256(shown.astype(np.int64).tobytes()).hexdigest(),
        "processor": hashlib.sha256(data.processor.to_json_string().encode()).hexdigest(),
    }
    return json.dumps(key, indent=1) + "\n"


def leave_signals_to_the_trainer(worker: int) -> None:
    """Lets a loader's worker outlive ctrl-C, and computes in one thread: the model has the rest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


def end_workers() -> None:
    """
    Kills the process's daemons: at its end, multiprocessing would send them SIGTERM, which
    `leave_signals_to_the_trainer` has them ignore, and wait for them.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for each of them
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
