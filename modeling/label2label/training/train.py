"""The training loop: a recipe in, a model folder out, on any number of processes by Accelerate."""

import argparse
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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from label2label.data.augmentation import Augmentation
from label2label.data.batching import AttributeDataset, EpochSampler, load_split
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.training.build import build_model
from label2label.training.checkpoint import latest_state, save_state
from label2label.training.distillation import soften_labels, teach
from label2label.training.recipe import Recipe, load_recipe


@dataclasses.dataclass
class Progress:
    """Where a run stands: what a resumed run needs beside weights and optimizer."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_accuracy: float = -1.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """The fields, for Accelerate."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the fields that `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)


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
        groups = parameter_groups(self.model, recipe)
        if recipe.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9)
        steps = math.ceil(self.batches_per_epoch / recipe.gradient_accumulation) * recipe.epochs
        self.schedule = get_cosine_schedule_with_warmup(
            optimizer, round(recipe.warmup * steps), steps
        )
        self.model, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.progress = Progress()
        accelerator.register_for_checkpointing(self.schedule, self.progress)
        self.average = None
        if recipe.ema:
            self.average = AveragedModel(
                accelerator.unwrap_model(self.model),
                multi_avg_fn=get_ema_multi_avg_fn(recipe.ema),
                use_buffers=True,
            )
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


def attribute_frequencies(labels: np.ndarray) -> torch.Tensor:
    """
    Measures how often attributes are present.

    Args:
        labels: (images, attributes); 1, 0 or -100.

    Returns:
        float32 of shape (attributes,), in 0..1; one half where no label is known.
    """
    known = (labels >= 0).sum(axis=0)
    present = (labels > 0).sum(axis=0)
    frequencies = np.where(known > 0, present / np.maximum(known, 1), 0.5)
    return torch.from_numpy(frequencies.astype(np.float32))


def parameter_groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """
    Splits parameters by learning rate and by whether they decay.

    Args:
        model: A `Label2LabelForImageClassification`.
        recipe: Gives the rates and the decay of matrices and kernels; vectors have none.

    Returns:
        Groups for an optimizer.
    """
    rates = {
        "backbone": recipe.backbone_learning_rate,
        "head": recipe.head_learning_rate,
        # The last BatchNorm alone sets how large logits are, and starts far below where they end.
        "normalization": 10 * recipe.head_learning_rate,
    }
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = name.removeprefix("label2label.").split(".")[0]
        key = (part if part in rates else "head", parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[part],
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def training_inputs(
    batch: dict[str, torch.Tensor], recipe: Recipe, rng: np.random.Generator
) -> dict[str, Any]:
    """
    Softens a batch's labels, then mixes images up or gives true words away, as the recipe has it.

    Args:
        batch: `pixel_values`, `labels` of shape (batch, attributes), 1, 0 or -100, and `teacher`
            where there is one.
        recipe: Gives `distillation`, `label_smoothing`, `mixup`, `mixup_alpha`, `known_words`.
        rng: Source of all draws.

    Returns:
        The model's arguments.
    """
    labels = batch["labels"]
    soft = soften_labels(labels, batch.get("teacher"), recipe.distillation, recipe.label_smoothing)
    inputs = {"pixel_values": batch["pixel_values"], "labels": soft}
    if rng.random() < recipe.mixup:
        return mix_batch(inputs, recipe.mixup_alpha, rng)
    if recipe.known_words:
        inputs["known_labels"] = draw_known_words(labels, recipe.known_words, rng)
    return inputs


def draw_known_words(
    labels: torch.Tensor, largest_share: float, rng: np.random.Generator
) -> torch.Tensor:
    """
    Chooses the true words that an image's sentence is given: none for every second image, else a
    share drawn evenly from 0 to the largest.

    Args:
        labels: (batch, attributes); 1, 0 or -100.
        largest_share: 0..1.
        rng: Source of the draws.

    Returns:
        (batch, attributes); labels, -100 where not given.
    """
    images, attributes = labels.shape
    share = rng.uniform(0, largest_share, (images, 1)) * (rng.random((images, 1)) < 0.5)
    given = torch.from_numpy(rng.random((images, attributes)) < share).to(labels.device)
    return torch.where(given, labels, -100)


def mix_batch(
    inputs: dict[str, torch.Tensor], alpha: float, rng: np.random.Generator
) -> dict[str, Any]:
    """
    Mixes a batch up with a permutation of itself (arXiv:1710.09412).

    Args:
        inputs: `pixel_values` of shape (batch, 3, height, width) and `labels`.
        alpha: Parameter of the Beta distribution of weights.
        rng: Source of the weight and the permutation.

    Returns:
        The model's arguments: mixed images, `labels`, `mixup_labels` and `mixup_weight`.
    """
    weight = rng.beta(alpha, alpha)
    pixels, labels = inputs["pixel_values"], inputs["labels"]
    order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
    return {
        "pixel_values": weight * pixels + (1 - weight) * pixels[order],
        "labels": labels,
        "mixup_labels": labels[order],
        "mixup_weight": float(weight),
    }


def leave_signals_to_the_trainer(worker: int) -> None:
    """Lets a loader's worker outlive ctrl-C, which reaches the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def train_command(args: argparse.Namespace) -> int:
    """
    Runs `label2label train`.

    Args:
        args: `config`, `set`, `data`, `output`, `resume`.

    Returns:
        Exit status: 0, or 130 where the run was interrupted and saved.

    Raises:
        UserError: If recipe, data or output cannot be used.
    """
    recipe = load_recipe(args.config, args.set)
    if args.data:
        recipe = dataclasses.replace(recipe, data=args.data)
    trainer = Trainer(recipe, args.output)
    if args.resume:
        trainer.resume()
    elif latest_state(Path(args.output) / "state"):
        raise UserError(f"{args.output}: holds a run; go on with --resume or choose another folder")

    def interrupt(signum: int, frame: Any) -> None:
        trainer.interrupted = True
        # A second one ends at once.
        signal.signal(signum, signal.default_int_handler)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
    result = trainer.train()
    if not result["finished"]:
        trainer.accelerator.print(
            f"stopped and saved at step {result['step']}; go on with --resume"
        )
        return 130
    best = trainer.output / "best"
    trainer.accelerator.print(
        f"best validation accuracy {result['best_accuracy']:.4f}; model in {best}"
    )
    return 0
