"""The training loop: a recipe in, a model folder out, on any number of processes by Accelerate."""

import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from label2label.data.batching import normalize_pixels, raise_errors
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError, first_line
from label2label.files import write_whole
from label2label.models import Label2LabelForImageClassification
from label2label.prediction.processes import without_accelerator
from label2label.training.build import attribute_frequencies, build_model, set_prior
from label2label.training.checkpoint import Progress, latest_state, save_state
from label2label.training.data import TrainingData
from label2label.training.inputs import training_inputs
from label2label.training.objective import GroupDRO, image_mean
from label2label.training.optimization import (
    build_average,
    build_optimizer,
    build_schedule,
    freeze_statistics,
)
from label2label.training.recipe import Recipe, load_recipe
from label2label.training.sharding import ShardedTraining
from label2label.training.strided_depthwise import speed_up_strided_depthwise
from label2label.training.synchronization import synchronize_batch_norm

# Accuracies of smaller groups say little, and are not called the worst while there are larger ones.
MINIMUM_IMAGES = 30
# What a run may go on with otherwise than it began.
CHANGEABLE = ("epochs", "workers", "keep_decoded", "checkpoint_every")


class Trainer:
    """
    Trains one recipe.

    `output` receives `best/`, the averaged model of the best validation accuracy, and `last/`, that
    of the last epoch, both as folders that `from_pretrained` loads; `state/`, to resume from;
    `history.json`, `recipe.yaml` and TensorBoard's `logs/`.

    Args:
        recipe: What to do.
        output: Folder for all of it.

    Raises:
        UserError: If the data, the backbone or the output folder cannot be used.
    """

    def __init__(self, recipe: Recipe, output: str | Path):
        self.recipe = recipe
        self.output = Path(output)
        self.accelerator = Accelerator(
            cpu=without_accelerator(),
            mixed_precision=recipe.mixed_precision,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            log_with="tensorboard",
            project_dir=str(self.output),
            step_scheduler_with_optimizer=False,
        )
        self.interrupted = False
        torch.manual_seed(recipe.seed)
        attributes = get_vocabulary(recipe.vocabulary).attributes
        self.model, self.processor = build_model(recipe, attributes)
        self.data = TrainingData(recipe, attributes, self.processor, self.accelerator, self.output)
        self.batches_per_epoch = self.data.batches_per_epoch
        self.train_loader, self.validation_loader = self.data.loaders()
        if recipe.init_from is None:
            set_prior(self.model, attribute_frequencies(self.data.labels))
        self._prepare_optimization()

    def _prepare_optimization(self) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        if accelerator.num_processes > 1:
            synchronize_batch_norm(self.model)
        if recipe.freeze_backbone:
            self.model.label2label.backbone.requires_grad_(False)
        speed_up_strided_depthwise(self.model)
        if recipe.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.sharded = None
        if recipe.fully_sharded:
            if accelerator.num_processes == 1:
                raise UserError("fully_sharded needs several processes: use accelerate launch")
            self.sharded = ShardedTraining(self.model, accelerator.device)
        optimizer = build_optimizer(self.model, recipe)
        steps = math.ceil(self.batches_per_epoch / recipe.gradient_accumulation) * recipe.epochs
        self.schedule = build_schedule(optimizer, recipe, steps)
        self.optimizer: Any = optimizer
        if self.sharded is None:
            self.model, self.optimizer = accelerator.prepare(self.model, optimizer)
        else:
            # Accelerate shards on accelerators only: here the model is not wrapped by it.
            self.sharded.optimizer = optimizer
            accelerator.register_for_checkpointing(self.sharded)
        self.progress = Progress(processes=accelerator.num_processes)
        accelerator.register_for_checkpointing(self.schedule, self.progress)
        if self.data.stream is not None:
            accelerator.register_for_checkpointing(self.data.stream)
        self.group_dro = None
        if recipe.objective == "group-dro":
            self.group_dro = GroupDRO(len(self.data.group_names), recipe.group_step_size)
            accelerator.register_for_checkpointing(self.group_dro)
        self.average = build_average(self._plain_model(), recipe)
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)

    def _plain_model(self) -> Label2LabelForImageClassification:
        """The model as it is saved, with all of its weights; up to date after a gathering."""
        if self.sharded is not None:
            return self.sharded.whole
        return self.accelerator.unwrap_model(self.model)

    @property
    def averaged_model(self) -> Label2LabelForImageClassification:
        """The model to validate and save: the moving average where the recipe has one."""
        if self.average is not None and self.average.n_averaged > 0:
            return cast(Label2LabelForImageClassification, self.average.module)
        return self._plain_model()

    def resume(self) -> None:
        """
        Goes on from the newest state of `output`, perhaps for more epochs.

        Raises:
            UserError: If there is none, or it was made by another recipe, or by another number of
                processes.
        """
        state = latest_state(self.output / "state")
        if state is None:
            raise UserError(f"{self.output}: no state to resume from; run without --resume")
        begun = load_recipe(self.output / "recipe.yaml").differences(self.recipe)
        if changed := [name for name in begun if name not in CHANGEABLE]:
            raise UserError(
                f"{self.output}: was begun with another {', '.join(changed)}; resume with its "
                "recipe.yaml, or choose another folder"
            )
        try:
            self.accelerator.load_state(str(state))
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise UserError(f"{state}: does not fit this recipe: {first_line(error)}") from error

    def train(self) -> dict[str, Any]:
        """
        Runs to the recipe's last epoch, or until interrupted.

        Returns:
            `{"finished", "step", "best_accuracy", "history"}`.

        Raises:
            UserError: If a checkpoint cannot be written; what was saved before stays.
        """
        self._start_output()
        progress, recipe = self.progress, self.recipe
        while progress.epoch < recipe.epochs:
            started = time.monotonic() - progress.seconds
            for batch in self.batches():
                progress.loss_sum += self.step(batch)
                progress.seconds = time.monotonic() - started
                if not self.accelerator.sync_gradients:
                    continue  # half a step cannot be saved
                if self._stop_requested():
                    save_state(self.accelerator, self.output / "state", progress.step)
                    self.accelerator.end_training()
                    return self._result(finished=False)
                every = recipe.checkpoint_every
                if every and progress.step % every == 0:
                    save_state(self.accelerator, self.output / "state", progress.step)
            self._end_epoch()
        self.accelerator.end_training()
        return self._result(finished=True)

    def _start_output(self) -> None:
        if self.accelerator.is_main_process:
            try:
                text = yaml.safe_dump(dataclasses.asdict(self.recipe), sort_keys=False)
                # Whole, as another process that resumes may still be reading it.
                write_whole(self.output / "recipe.yaml", text)
            except OSError as error:
                raise UserError(f"{self.output}: cannot be written: {error.strerror}") from error
        self.accelerator.wait_for_everyone()
        self.accelerator.init_trackers("logs")

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """
        Loads the rest of the epoch, with a progress bar.

        Yields:
            Batches as `AttributeDataset` makes them, on the process's device.
        """
        progress, stream = self.progress, self.data.stream
        self.data.start_at(progress.epoch, progress.step_in_epoch)
        self.bar = tqdm(
            total=self.batches_per_epoch,
            initial=progress.step_in_epoch,
            desc=f"epoch {progress.epoch + 1}/{self.recipe.epochs}",
            unit="batch",
            disable=not self.accelerator.is_local_main_process,
        )
        with self.bar:
            follow = raise_errors if stream is None else stream.follow
            yield from follow(self.train_loader)

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """
        Takes one step, or a part of one where the recipe accumulates gradients.

        Args:
            batch: One that `batches` gave.

        Returns:
            This process's loss.

        Raises:
            UserError: If the loss is not a finite number.
        """
        recipe, progress, accelerator = self.recipe, self.progress, self.accelerator
        # Randomness is a function of seed, batch and process: resuming changes no draw.
        position = progress.epoch * self.batches_per_epoch + progress.step_in_epoch
        rng = np.random.default_rng((recipe.seed, position, accelerator.process_index))
        torch.manual_seed(int(rng.integers(2**62)))

        rows = batch["row"].cpu().numpy()
        share: torch.Tensor | float = 0.0
        if "teacher" in batch:
            share = torch.from_numpy(self.data.distillation[rows]).to(accelerator.device)
        pixel_values = normalize_pixels(batch["pixels"], self.processor)
        inputs = training_inputs({**batch, "pixel_values": pixel_values}, recipe, rng, share)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        inputs["pixel_values"] = inputs["pixel_values"].contiguous(memory_format=layout)
        self.model.train()
        freeze_statistics(self.model, recipe)
        with accelerator.accumulate(self.model):
            with accelerator.autocast():
                outputs = self.model(**inputs)
            loss = self._loss(outputs, inputs, rows)
            self._refuse_nan(loss, batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients and recipe.max_gradient_norm:
                accelerator.clip_grad_norm_(self.model.parameters(), recipe.max_gradient_norm)
            if accelerator.sync_gradients:
                self.optimizer.step()
                self.optimizer.zero_grad()
        if accelerator.sync_gradients:
            self.schedule.step()
            progress.step += 1
            if self.average is not None:
                if self.sharded is not None:
                    self.sharded.gather()
                self.average.update_parameters(self._plain_model())
        progress.step_in_epoch += 1

        known = batch["labels"] >= 0
        hits = ((outputs.logits > 0) == (batch["labels"] > 0))[known].float().mean().item()
        self.bar.set_postfix(
            loss=f"{(value := loss.item()):.3f}", accuracy=f"{hits:.3f}", refresh=False
        )
        self.bar.update()
        if progress.step % 10 == 0:
            accelerator.log({"train/loss": value, "train/accuracy": hits}, step=progress.step)
        return value

    def _loss(self, outputs: Any, inputs: dict[str, Any], rows: np.ndarray) -> torch.Tensor:
        if self.recipe.objective == "mean":
            return outputs.loss
        losses, counted = self._plain_model().compute_loss(
            outputs.logits,
            inputs["labels"],
            outputs.query_logits,
            outputs.masked_words,
            inputs.get("known_labels"),
            inputs.get("mixup"),
            reduction="image",
        )
        if self.group_dro is not None:
            groups = torch.from_numpy(self.data.group_of[rows]).to(losses.device)
            return self.group_dro(losses, counted, groups, self.accelerator)
        return image_mean(losses, counted)

    def _refuse_nan(self, loss: torch.Tensor, batch: dict[str, Any]) -> None:
        """Ends all processes where one has no loss, before it reaches the weights."""
        finite = torch.isfinite(loss.detach()).float()
        if self.accelerator.num_processes > 1:
            finite = self.accelerator.reduce(finite, "sum") == self.accelerator.num_processes
        if finite:
            return
        own = [] if torch.isfinite(loss.detach()) else self.data.names(batch)
        blamed = gather_object(own)
        kept = latest_state(self.output / "state")
        rest = f"the last good state is {kept}" if kept else "no state was saved before"
        raise UserError(
            f"the loss of step {self.progress.step + 1} is not a finite number; {rest}; lower the "
            f"learning rates, or look at the batch's images: {', '.join(blamed)}"
        )

    def _end_epoch(self) -> None:
        progress, accelerator = self.progress, self.accelerator
        loss = torch.tensor(progress.loss_sum / progress.step_in_epoch, device=accelerator.device)
        entry: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train_loss": float(accelerator.reduce(loss, "mean")),
            "seconds": round(progress.seconds, 1),
            **self.validate(),
        }
        progress.history.append(entry)
        figures = {f"validation/{k}": v for k, v in entry.items() if isinstance(v, int | float)}
        accelerator.log(figures, step=progress.step)
        accelerator.print(
            f"epoch {entry['epoch']}: loss {entry['train_loss']:.4f}, validation accuracy "
            f"{entry['accuracy']:.4f} (queries alone {entry['query_accuracy']:.4f})"
        )
        if entry["accuracy"] > progress.best_accuracy:
            progress.best_accuracy = entry["accuracy"]
            self._save_model("best")
        self._save_model("last")
        progress.epoch += 1
        progress.step_in_epoch = 0
        progress.loss_sum = progress.seconds = 0.0
        save_state(accelerator, self.output / "state", progress.step)

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """
        Scores the averaged model on the validation split.

        Returns:
            `accuracy` of the final logits and `query_accuracy` of the query network's (the same
            where the head has none), over all known labels; means over the sources where the recipe
            has several, whose own are in `sources`. With groups, `groups` and
            `worst_group_accuracy` too: the least of the groups of 30 and more labelled images, or
            of all where none has as many. `None` stands for what has no known label; it does not
            count in the means.
        """
        if self.sharded is not None:
            self.sharded.gather()
        model = self.averaged_model.eval()
        counts = []
        for batch in raise_errors(self.validation_loader):
            outputs = model(pixel_values=normalize_pixels(batch["pixels"], self.processor))
            query_logits = outputs.logits if outputs.query_logits is None else outputs.query_logits
            present, known = batch["labels"] > 0, batch["labels"] >= 0
            hits = ((outputs.logits > 0) == present) & known
            query_hits = ((query_logits > 0) == present) & known
            sums = [value.sum(dim=1) for value in (hits, query_hits, known)]
            rows = torch.stack([batch["row"], *sums], dim=1)
            counts.append(self.accelerator.gather_for_metrics(rows).cpu().numpy())
        table = np.concatenate(counts)
        table = table[table[:, 0].argsort(), 1:]  # (rows, 3)
        return score_parts(table, self.data.validation_parts)

    def _save_model(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        path = self.output / name
        temporary = self.output / f".{name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            self.averaged_model.save_pretrained(temporary)
            self.processor.save_pretrained(temporary)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
            text = json.dumps(self.progress.history, indent=1)
            (self.output / "history.json").write_text(text + "\n", encoding="utf-8")
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{path}: could not write the model: {error}") from error

    def _stop_requested(self) -> bool:
        return any(gather_object([self.interrupted]))

    def _result(self, finished: bool) -> dict[str, Any]:
        progress = self.progress
        return {
            "finished": finished,
            "step": progress.step,
            "best_accuracy": progress.best_accuracy,
            "history": progress.history,
        }


def score_parts(
    counts: np.ndarray, parts: dict[str, dict[str, np.ndarray]]
) -> dict[str, float | dict[str, float | None] | None]:
    """
    Turns counts of every image into accuracies of sources and groups.

    Args:
        counts: (images, 3): right answers, right answers of the query network, known labels.
        parts: As `TrainingData.validation_parts`.

    Returns:
        As `Trainer.validate`.
    """

    def accuracies(part: str) -> dict[str, np.ndarray | None]:
        sums = {name: counts[rows].sum(axis=0) for name, rows in parts[part].items()}
        return {name: total[:2] / total[2] if total[2] else None for name, total in sums.items()}

    def final(values: dict[str, np.ndarray | None]) -> dict[str, float | None]:
        return {name: None if value is None else float(value[0]) for name, value in values.items()}

    sources = accuracies("source")
    mean = np.mean([value for value in sources.values() if value is not None], axis=0)
    scores: dict[str, Any] = {"accuracy": float(mean[0]), "query_accuracy": float(mean[1])}
    if len(sources) > 1:
        scores["sources"] = final(sources)
    if parts["group"]:
        scores["groups"] = final(accuracies("group"))
        known = {name: value for name, value in scores["groups"].items() if value is not None}
        labelled = counts[:, 2] > 0
        sizes = {name: (parts["group"][name] & labelled).sum() for name in known}
        large = [value for name, value in known.items() if sizes[name] >= MINIMUM_IMAGES]
        scores["worst_group_accuracy"] = min(large or known.values(), default=None)
    return scores
