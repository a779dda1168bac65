"""The training loop: from a recipe to a model folder, on any number of processes."""

import argparse
import contextlib
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
import pandas
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from safetensors import SafetensorError
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup
from transformers.utils import logging

from label2label.data.augmentation import Augmentation, draw_uniform
from label2label.data.loading import normalize_pixels
from label2label.errors import UserError, join_lines
from label2label.files import hold_lock, prepare_output, replace_folder, write_whole
from label2label.models import Label2LabelForImageClassification
from label2label.prediction.backends import without_accelerator
from label2label.training.data import TrainingData
from label2label.training.model_building import build_model, prepare_layers
from label2label.training.objective import training_inputs, weighted_loss
from label2label.training.recipe import Recipe, load_recipe

# Smaller groups have noisy accuracies, and count as worst only if no group is larger.
MINIMUM_IMAGES = 30
# Fields that may differ when a run is resumed.
CHANGEABLE = ("epochs", "workers", "cache_pixels", "checkpoint_every")
MAX_GRADIENT_NORM = 1.0


def train_command(args: argparse.Namespace) -> int:
    """Run `label2label train`; return 0, or 130 if the run was interrupted and saved."""
    logging.disable_progress_bar()  # of each saving, between the epochs' own
    recipe = load_recipe(args.config, args.set)
    if args.vocabulary:
        recipe = dataclasses.replace(recipe, vocabulary=args.vocabulary)
    if args.data:
        source, *others = recipe.sources
        if others:
            raise UserError(
                f"the recipe reads {1 + len(others)} datasets: replace one of them with "
                f"--set data.0.path={args.data}"
            )
        recipe = dataclasses.replace(recipe, data=[dataclasses.replace(source, path=args.data)])
    with lock_output(Path(args.output)):
        # Before the data are decoded, which may take long.
        if args.resume:
            state_to_resume(recipe, Path(args.output))
        elif latest_state(Path(args.output) / "state"):
            raise UserError(
                f"{args.output}: holds a run; continue it with --resume or choose another folder"
            )
        trainer = Trainer(recipe, args.output)
        if args.resume:
            trainer.resume()

        def interrupt(signum: int, frame: Any) -> None:
            trainer.interrupted = True
            # A second signal ends the process at once.
            signal.signal(signum, signal.default_int_handler)

        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, interrupt)
        result = trainer.train()
    text = f"stopped and saved at step {result['step']}; continue with --resume"
    if result["finished"]:
        best = trainer.output / "best"
        text = f"best validation accuracy {result['best_accuracy']:.4f}; model in {best}"
    trainer.accelerator.print(text)
    return 0 if result["finished"] else 130


def lock_output(output: Path) -> contextlib.AbstractContextManager[None]:
    """Create a run's folder and lock it against other runs; the first process holds the lock."""
    if os.environ.get("RANK", "0") != "0":
        return contextlib.nullcontext()
    prepare_output(output / ".lock")
    message = f"{output}: another training runs in this folder; wait for it or choose another"
    return hold_lock(output / ".lock", message)


class Trainer:
    """Train one recipe.

    `output` receives `best/`, the averaged model with the best validation accuracy, and `last/`,
    the one of the last epoch, both loadable by `from_pretrained`; `state/`, to resume from;
    `history.json`, `recipe.yaml` and TensorBoard's `logs/`.

    Raises:
        UserError: If the data, the backbone or the output folder cannot be used.
    """

    def __init__(self, recipe: Recipe, output: str | Path):
        self.recipe = recipe
        self.output = Path(output)
        self.accelerator = Accelerator(
            cpu=without_accelerator(),
            mixed_precision=recipe.mixed_precision,
            log_with="tensorboard",
            project_dir=str(self.output),
            step_scheduler_with_optimizer=False,
            # What is frozen for some epochs has no gradients then.
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=bool(recipe.frozen_stages))
            ],
        )
        self.interrupted = False
        self.augmentation = Augmentation(
            **{f.name: getattr(recipe, f.name) for f in dataclasses.fields(Augmentation)}
        )
        torch.manual_seed(recipe.seed)
        self.data = TrainingData(recipe, self.accelerator)
        self.model, self.processor = build_model(recipe, self.data.attributes, self.data.labels)
        self.data.prepare(self.processor, self.output)
        self._prepare_optimization()

    def _prepare_optimization(self) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        if recipe.freeze_backbone:
            self.model.label2label.backbone.requires_grad_(False)
        prepare_layers(self.model, accelerator.num_processes)
        self.model = self.model.to(memory_format=torch.channels_last)  # faster on most devices
        optimizer = torch.optim.AdamW(parameter_groups(self.model, recipe))  # arXiv:1711.05101
        steps = self.data.batches_per_epoch * recipe.epochs
        self.schedule = get_cosine_schedule_with_warmup(
            optimizer, round(recipe.warmup * steps), steps
        )
        self.model, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.progress = Progress(processes=accelerator.num_processes)
        accelerator.register_for_checkpointing(self.schedule, self.progress)
        if self.data.stream is not None:
            accelerator.register_for_checkpointing(self.data.stream)
        self.average = build_average(self._plain_model(), recipe)
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)

    def _plain_model(self) -> Label2LabelForImageClassification:
        return self.accelerator.unwrap_model(self.model)

    @property
    def averaged_model(self) -> Label2LabelForImageClassification:
        """The model to validate and save: the moving average, if the recipe has one."""
        if self.average is not None and self.average.n_averaged > 0:
            return cast(Label2LabelForImageClassification, self.average.module)
        return self._plain_model()

    def resume(self) -> None:
        """Load the latest state in `output`; the recipe may have more epochs than before.

        Raises:
            UserError: If there is no state, or it belongs to another recipe or number of processes.
        """
        state = state_to_resume(self.recipe, self.output)
        try:
            self.accelerator.load_state(str(state))
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise UserError(f"{state}: does not fit this recipe: {join_lines(error)}") from error

    def train(self) -> dict[str, Any]:
        """Train to the recipe's last epoch, or until interrupted.

        Returns:
            `{"finished", "step", "best_accuracy", "history"}`.

        Raises:
            UserError: If an image cannot be read, a loss is not finite, or a checkpoint cannot be
                written; earlier ones stay.
        """
        self._start_output()
        progress = self.progress
        finished = all(self._train_epoch() for _ in range(progress.epoch, self.recipe.epochs))
        self.accelerator.end_training()
        return {
            "finished": finished,
            "step": progress.step,
            "best_accuracy": progress.best_accuracy,
            "history": progress.history,
        }

    def _train_epoch(self) -> bool:
        """Train the rest of an epoch; return False if interrupted."""
        progress, every = self.progress, self.recipe.checkpoint_every
        started = time.monotonic() - progress.seconds
        for batch in self.batches():
            progress.loss_sum += self.step(batch)
            progress.seconds = time.monotonic() - started
            stop = any(gather_object([self.interrupted]))
            if stop or (every and progress.step % every == 0):
                save_state(self.accelerator, self.output / "state", progress.step)
            if stop:
                return False
        self._end_epoch()
        return True

    def _start_output(self) -> None:
        if self.accelerator.is_main_process:
            try:
                text = yaml.safe_dump(dataclasses.asdict(self.recipe), sort_keys=False)
                # Atomically, as another resuming process may still be reading it.
                write_whole(self.output / "recipe.yaml", text)
            except OSError as error:
                raise UserError(f"{self.output}: cannot be written: {error.strerror}") from error
        self.accelerator.wait_for_everyone()
        self.accelerator.init_trackers("logs")

    def batches(self) -> Iterator[dict[str, Any]]:
        """Load the rest of the epoch, as `TrainingData.batches`, with a progress bar."""
        progress = self.progress
        self.bar = tqdm(
            total=self.data.batches_per_epoch,
            initial=progress.step_in_epoch,
            desc=f"epoch {progress.epoch + 1}/{self.recipe.epochs}",
            unit="batch",
            disable=not self.accelerator.is_local_main_process,
        )
        with self.bar:
            yield from self.data.batches(progress.epoch, progress.step_in_epoch)

    def step(self, batch: dict[str, Any]) -> float:
        """Take one step on a batch of `batches`; return this process's loss."""
        recipe, progress, accelerator = self.recipe, self.progress, self.accelerator
        # Randomness is a function of seed, batch and process: resuming changes no draw.
        position = progress.epoch * self.data.batches_per_epoch + progress.step_in_epoch
        rng = np.random.default_rng((recipe.seed, position, accelerator.process_index))
        torch.manual_seed(int(rng.integers(2**62)))

        self.model.train()
        freeze(self._plain_model(), recipe, progress.epoch)
        inputs, weights = self._inputs(batch, rng)
        with accelerator.autocast():
            outputs = self.model(**inputs)
        loss = outputs.loss
        if weights is not None:
            loss = weighted_loss(self._plain_model(), outputs, inputs, weights, accelerator)
        self._refuse_nan(loss, batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self._plain_model())
        progress.step += 1
        progress.step_in_epoch += 1
        if self.data.stream is not None:
            self.data.stream.state = batch["state"]

        value = loss.item()
        self.bar.update()
        if progress.step % 10 == 0:
            known = batch["labels"] >= 0
            hits = ((outputs.logits > 0) == (batch["labels"] > 0))[known].float().mean().item()
            self.bar.set_postfix(loss=f"{value:.3f}", accuracy=f"{hits:.3f}", refresh=False)
            accelerator.log({"train/loss": value, "train/accuracy": hits}, step=progress.step)
        return value

    def _inputs(
        self, batch: dict[str, Any], rng: np.random.Generator
    ) -> tuple[dict[str, Any], torch.Tensor | None]:
        """Augment and normalise a batch on the device, then call `training_inputs`."""
        recipe, epoch = self.recipe, self.progress.epoch
        draws = draw_uniform(recipe.seed, epoch, batch["rows"], batch["occurrences"])
        crop_size = self.processor.crop_size["height"]
        pixels = self.augmentation(batch["pixels"], crop_size, draws)
        pixels = normalize_pixels(pixels, self.processor)
        sizes = recipe.image_sizes or [crop_size]
        size = recipe.at_epoch(sizes, epoch)
        if size != crop_size:  # progressive resizing
            pixels = nn.functional.interpolate(
                pixels, (size, size), mode="bilinear", antialias=True
            )
        inputs, weights = training_inputs({**batch, "pixel_values": pixels}, recipe, rng)
        pixels = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
        return {**inputs, "pixel_values": pixels}, weights

    def _refuse_nan(self, loss: torch.Tensor, batch: dict[str, Any]) -> None:
        """Stop all processes if the loss of one is not finite, before weights change."""
        finite = bool(torch.isfinite(loss.detach()))
        if blamed := gather_object([] if finite else self.data.names(batch)):
            kept = latest_state(self.output / "state")
            rest = f"the last good state is {kept}" if kept else "no state was saved before"
            raise UserError(
                f"the loss of step {self.progress.step + 1} is not a finite number; {rest}; lower "
                f"the learning rates, or look at the batch's images: {', '.join(blamed)}"
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
        """Score the averaged model on the validation split.

        Returns:
            `accuracy` of the final logits and `query_accuracy` of the query network's (the same for
            heads without one), over all known labels. With several sources, both are means over
            `sources`, which has each source's own. With groups, also `groups` and
            `worst_group_accuracy`: the lowest among groups of at least 30 labelled images, or among
            all groups if none has as many. Accuracies without a known label are `None` and left out
            of means.
        """
        model = self.averaged_model.eval()
        counts = np.zeros((len(self.data.validation_labels), 3), int)
        own = []
        for rows, pixels, labels in self.data.validation_batches():
            pixel_values = normalize_pixels(pixels, self.processor)
            outputs = model(pixel_values.contiguous(memory_format=torch.channels_last))
            query_logits = outputs.logits if outputs.query_logits is None else outputs.query_logits
            present, known = labels > 0, labels >= 0
            hits = ((outputs.logits > 0) == present) & known
            query_hits = ((query_logits > 0) == present) & known
            sums = [value.sum(dim=1) for value in (hits, query_hits, known)]
            own.append((rows, torch.stack(sums, dim=1).cpu().numpy()))
        for rows, sums in gather_object(own):
            counts[rows] = sums
        return score_parts(counts, self.data.validation_sources, self.data.validation_groups)

    def _save_model(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        try:
            with replace_folder(self.output / name) as folder:
                self.averaged_model.save_pretrained(folder)
                self.processor.save_pretrained(folder)
            text = json.dumps(self.progress.history, indent=1)
            write_whole(self.output / "history.json", text + "\n")
        except Exception as error:
            raise UserError(f"{self.output / name}: cannot be written: {error}") from error


def score_parts(
    counts: np.ndarray,  # (images, 3): correct answers, the query network's, known labels
    sources: np.ndarray,  # (images,), names
    groups: np.ndarray | None,  # (images,), names, or `None` for images without one
) -> dict[str, Any]:
    """Compute accuracies of sources and groups from counts per image, as `Trainer.validate`."""
    table = pandas.DataFrame(counts, columns=["final", "query", "known"])

    def accuracy_by(names: np.ndarray) -> pandas.DataFrame:
        sums = table.groupby(names, sort=False).sum()
        return sums[["final", "query"]].div(sums["known"].where(sums["known"] > 0), axis=0)

    def as_dict(accuracies: pandas.Series) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in accuracies.items()}

    by_source = accuracy_by(sources)
    accuracy, query_accuracy = by_source.mean()  # without NaN
    scores: dict[str, Any] = {"accuracy": float(accuracy), "query_accuracy": float(query_accuracy)}
    if len(by_source) > 1:
        scores["sources"] = as_dict(by_source["final"])
    if groups is not None:
        by_group = accuracy_by(groups)["final"]
        sizes = (table["known"] > 0).groupby(groups, sort=False).sum()
        large = by_group[sizes >= MINIMUM_IMAGES]
        worst = float((large if len(large) else by_group).min())
        scores["groups"] = as_dict(by_group)
        scores["worst_group_accuracy"] = None if math.isnan(worst) else worst
    return scores


def build_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """Build the exponential moving average of weights and BatchNorm statistics, if `ema` is not 0.

    The decay after n steps is (1 + n) / (10 + n), at most `ema`, so that the initial weights do not
    dominate the average of a short run.
    """
    if not recipe.ema:
        return None

    def average(averaged: Any, current: Any, steps: torch.Tensor | int) -> None:
        decay = min(float(recipe.ema), (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(decay)(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay: matrices decay, vectors do not."""
    rates = {
        "backbone": recipe.backbone_learning_rate,
        "head": recipe.head_learning_rate,
        # The last BatchNorm sets the scale of the logits, which starts far below its final value.
        "normalization": 10 * recipe.head_learning_rate,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.removeprefix("label2label.").split(".")[0]
        key = (part if part in rates else "head", parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": group, "lr": rates[part], "weight_decay": decays * float(recipe.weight_decay)}
        for (part, decays), group in groups.items()
    ]


def freeze(model: Label2LabelForImageClassification, recipe: Recipe, epoch: int) -> None:
    """Freeze what the recipe says for an epoch, from 0; call this after each `model.train()`.

    `freeze_statistics` freezes the running statistics of all BatchNorms, and `freeze_backbone`
    those of the backbone; `frozen_stages` freezes weights and statistics of its first parts.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            recipe.freeze_statistics or (recipe.freeze_backbone and "backbone" in name.split("."))
        ):
            module.eval()
    if recipe.frozen_stages and not recipe.freeze_backbone:
        encoder = model.label2label.backbone.encoder
        frozen = recipe.at_epoch(recipe.frozen_stages, epoch)
        for number, part in enumerate((encoder.stem, *encoder.stages)):
            part.requires_grad_(number >= frozen)
            if number < frozen:
                part.eval()


@dataclasses.dataclass
class Progress:
    """Progress of a run: the state to resume from, beside weights and optimizer."""

    processes: int = 1  # that share each epoch
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of the epoch so far
    seconds: float = 0.0  # of the epoch so far
    best_accuracy: float = -1.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return the fields, for Accelerate. All processes call it.

        Accelerate saves one process's fields, so the loss is the mean over all processes.
        """
        mean = float(np.mean(gather_object([self.loss_sum])))
        return dataclasses.asdict(self) | {"loss_sum": mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the fields from `state_dict`.

        For another number of processes, a position in the epoch would mean other images.
        """
        saved = state.get("processes", self.processes)
        if saved != self.processes:
            raise ValueError(
                f"it was saved by a run of {saved} processes, not {self.processes}: resume with "
                "the same number"
            )
        for name, value in state.items():
            setattr(self, name, value)


def latest_state(folder: Path) -> Path | None:
    """Return the complete state `folder/step-N` with the highest N, or `None`."""
    return max(folder.glob("step-*"), default=None)


def state_to_resume(recipe: Recipe, output: Path) -> Path:
    """Return a run's latest state; raise UserError if there is none, or one of another recipe."""
    state = latest_state(output / "state")
    if state is None:
        raise UserError(f"{output}: no state to resume from; run without --resume")
    begun = vars(load_recipe(output / "recipe.yaml"))
    different = [name for name, value in vars(recipe).items() if value != begun[name]]
    if changed := [name for name in different if name not in CHANGEABLE]:
        raise UserError(
            f"{output}: was started with a different {', '.join(changed)}; resume with its "
            "recipe.yaml, or choose another folder"
        )
    return state


def save_state(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Save model, optimizer, schedule, average and progress to `folder/step-N`, atomically.

    The previous state is then deleted; it stays if the disk is full. All processes call this.
    """
    path = folder / f"step-{step:08d}"
    draft = folder / f".{path.name}"
    try:
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
        accelerator.save_state(str(draft))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process and not path.exists():
            os.replace(draft, path)
    # torch.save wraps a failed write in a RuntimeError.
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        kept = latest_state(folder)
        rest = f"resume from {kept} with --resume" if kept else "no state was saved before"
        raise UserError(f"{path}: cannot be written: {join_lines(error)}; {rest}") from error
    if accelerator.is_main_process:
        for other in {draft, *folder.glob("step-*")} - {path}:
            shutil.rmtree(other, ignore_errors=True)
    accelerator.wait_for_everyone()
