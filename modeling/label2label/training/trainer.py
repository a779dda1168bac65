"""The training loop: a recipe in, a model folder out, on any number of processes by Accelerate."""

import copy
import dataclasses
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from label2label.data.augmentation import Augmentation
from label2label.data.batching import AttributeDataset, EpochSampler, load_split
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.training.build import attribute_frequencies, build_model
from label2label.training.checkpoint import Progress, latest_state, save_state
from label2label.training.distillation import teach
from label2label.training.inputs import training_inputs
from label2label.training.optimization import build_average, build_optimizer, build_schedule
from label2label.training.recipe import Recipe


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
            mixed_precision=recipe.mixed_precision,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            log_with="tensorboard",
            project_dir=str(self.output),
            step_scheduler_with_optimizer=False,
        )
        self.interrupted = False
        torch.manual_seed(recipe.seed)
        attributes = get_vocabulary(recipe.vocabulary).attributes
        self.model = build_model(recipe, attributes)
        self.processor = Label2LabelImageProcessor()
        self._prepare_data(attributes)
        if recipe.init_from is None:
            self.model.set_prior(attribute_frequencies(self.train_data.labels))
        self._prepare_optimization()

    def _prepare_data(self, attributes: tuple[str, ...]) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        augmentation = Augmentation(
            **{f.name: getattr(recipe, f.name) for f in dataclasses.fields(Augmentation)}
        )
        self.train_data = AttributeDataset(
            load_split(recipe.data, "train"), attributes, self.processor, augmentation, recipe.seed
        )
        validation_data = AttributeDataset(
            load_split(recipe.data, "validation"), attributes, self.processor
        )
        self.train_data.teacher = self._teach(attributes)
        self.sampler = EpochSampler(len(self.train_data), recipe.seed)
        batches = len(self.train_data) // (recipe.batch_size * accelerator.num_processes)
        if batches == 0:
            raise UserError(
                f"{recipe.data}: {len(self.train_data)} training images do not fill one batch of "
                f"{recipe.batch_size} on each of {accelerator.num_processes} processes"
            )
        self.batches_per_epoch = batches
        self.train_loader = accelerator.prepare(
            DataLoader(
                self.train_data,
                batch_size=recipe.batch_size,
                sampler=self.sampler,
                num_workers=recipe.workers,
                worker_init_fn=leave_signals_to_the_trainer,
                drop_last=True,
            )
        )
        self.validation_loader = accelerator.prepare(
            DataLoader(
                validation_data,
                batch_size=recipe.batch_size,
                num_workers=recipe.workers,
                worker_init_fn=leave_signals_to_the_trainer,
            )
        )

    def _teach(self, attributes: tuple[str, ...]) -> np.ndarray | None:
        """The teachers' probabilities of the training split, asked for once a run."""
        if not self.recipe.teachers:
            return None
        file = self.output / "teacher.npy"
        with self.accelerator.main_process_first():
            if not file.exists():
                plain = copy.copy(self.train_data)
                plain.augmentation = None
                device = self.accelerator.device
                probabilities = teach(self.recipe.teachers, plain, attributes, device)
                try:
                    self.output.mkdir(parents=True, exist_ok=True)
                    np.save(file.with_name(".teacher.npy"), probabilities)
                    os.replace(file.with_name(".teacher.npy"), file)
                except OSError as error:
                    raise UserError(f"{file}: cannot be written: {error.strerror}") from error
            return np.load(file)

    def _prepare_optimization(self) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        if recipe.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(self.model, recipe)
        steps = math.ceil(self.batches_per_epoch / recipe.gradient_accumulation) * recipe.epochs
        self.schedule = build_schedule(optimizer, recipe, steps)
        self.model, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.progress = Progress()
        accelerator.register_for_checkpointing(self.schedule, self.progress)
        self.average = build_average(accelerator.unwrap_model(self.model), recipe)
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)

    @property
    def averaged_model(self) -> Label2LabelForImageClassification:
        """The model to validate and save: the moving average where the recipe has one."""
        if self.average is not None and self.average.n_averaged > 0:
            return cast(Label2LabelForImageClassification, self.average.module)
        return self.accelerator.unwrap_model(self.model)

    def resume(self) -> None:
        """
        Goes on from the newest state of `output`.

        Raises:
            UserError: If there is none, or it was made by another recipe.
        """
        state = latest_state(self.output / "state")
        if state is None:
            raise UserError(f"{self.output}: no state to resume from; run without --resume")
        try:
            self.accelerator.load_state(str(state))
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{state}: does not fit this recipe: {first}") from error

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
            losses, started = [], time.monotonic()
            for batch in self._batches():
                losses.append(self._step(batch))
                if not self.accelerator.sync_gradients:
                    continue  # half a step cannot be saved
                if self._stop_requested():
                    save_state(self.accelerator, self.output / "state", progress.step)
                    return self._result(finished=False)
                every = recipe.checkpoint_every
                if every and progress.step_in_epoch % every == 0:
                    save_state(self.accelerator, self.output / "state", progress.step)
            self._end_epoch(losses, time.monotonic() - started)
        self.accelerator.end_training()
        return self._result(finished=True)

    def _start_output(self) -> None:
        if self.accelerator.is_main_process:
            try:
                self.output.mkdir(parents=True, exist_ok=True)
                text = yaml.safe_dump(dataclasses.asdict(self.recipe), sort_keys=False)
                (self.output / "recipe.yaml").write_text(text, encoding="utf-8")
            except OSError as error:
                raise UserError(f"{self.output}: cannot be written: {error.strerror}") from error
        self.accelerator.wait_for_everyone()
        self.accelerator.init_trackers("logs")

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """The rest of the epoch, with a progress bar."""
        progress = self.progress
        self.train_data.epoch = self.sampler.epoch = progress.epoch
        per_step = self.recipe.batch_size * self.accelerator.num_processes
        self.sampler.start = progress.step_in_epoch * per_step
        self.bar = tqdm(
            total=self.batches_per_epoch,
            initial=progress.step_in_epoch,
            desc=f"epoch {progress.epoch + 1}/{self.recipe.epochs}",
            unit="batch",
            disable=not self.accelerator.is_local_main_process,
        )
        with self.bar:
            yield from self.train_loader

    def _step(self, batch: dict[str, torch.Tensor]) -> float:
        recipe, progress, accelerator = self.recipe, self.progress, self.accelerator
        # Randomness is a function of seed, batch and process: resuming changes no draw.
        position = progress.epoch * self.batches_per_epoch + progress.step_in_epoch
        rng = np.random.default_rng((recipe.seed, position, accelerator.process_index))
        torch.manual_seed(int(rng.integers(2**62)))

        inputs = training_inputs(batch, recipe, rng)
        if recipe.channels_last:
            pixels = inputs["pixel_values"]
            inputs["pixel_values"] = pixels.contiguous(memory_format=torch.channels_last)
        self.model.train()
        with accelerator.accumulate(self.model):
            outputs = self.model(**inputs)
            accelerator.backward(outputs.loss)
            if accelerator.sync_gradients and recipe.max_gradient_norm:
                accelerator.clip_grad_norm_(self.model.parameters(), recipe.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        if accelerator.sync_gradients:
            self.schedule.step()
            progress.step += 1
            if self.average is not None:
                self.average.update_parameters(accelerator.unwrap_model(self.model))
        progress.step_in_epoch += 1

        loss = outputs.loss.item()
        known = batch["labels"] >= 0
        hits = ((outputs.logits > 0) == (batch["labels"] > 0))[known].float().mean().item()
        self.bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{hits:.3f}", refresh=False)
        self.bar.update()
        if progress.step % 10 == 0:
            accelerator.log({"train/loss": loss, "train/accuracy": hits}, step=progress.step)
        return loss

    def _end_epoch(self, losses: list[float], seconds: float) -> None:
        progress, accelerator = self.progress, self.accelerator
        entry = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train_loss": float(np.mean(losses)),
            "seconds": round(seconds, 1),
            **self.validate(),
        }
        progress.history.append(entry)
        accelerator.log({f"validation/{k}": v for k, v in entry.items()}, step=progress.step)
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
        save_state(accelerator, self.output / "state", progress.step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """
        Scores the averaged model on the validation split.

        Returns:
            `accuracy` of the final logits and `query_accuracy` of the query network's (the same
            where the head has none), over all labels that are known.
        """
        model = self.averaged_model.eval()
        hits = np.zeros(2)
        known = 0
        for batch in self.validation_loader:
            outputs = model(pixel_values=batch["pixel_values"])
            query_logits = outputs.logits if outputs.query_logits is None else outputs.query_logits
            logits, query_logits, labels = self.accelerator.gather_for_metrics(
                (outputs.logits, query_logits, batch["labels"])
            )
            valid = labels >= 0
            known += int(valid.sum())
            for i, scores in enumerate((logits, query_logits)):
                hits[i] += int((((scores > 0) == (labels > 0)) & valid).sum())
        accuracy, query_accuracy = hits / max(known, 1)
        return {"accuracy": float(accuracy), "query_accuracy": float(query_accuracy)}

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


def leave_signals_to_the_trainer(worker: int) -> None:
    """Lets a loader's worker outlive ctrl-C, which reaches the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
