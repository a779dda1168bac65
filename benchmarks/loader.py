"""Does the loader starve the model? The full training loop beside the bare model step, interleaved.

    python benchmarks/loader.py

Each round trains some batches as `label2label train` does (images loaded, augmented, normalised,
labels softened, mixup, moving average, progress) and then as many bare steps: forward, backward,
clipping and optimizer on one batch of random tensors. The ratio is the median over the rounds of
the two speeds of one round, so that a machine which is busy with other things slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label2label.data.augmentation import draw_uniform
from label2label.errors import UserError
from label2label.files import write_whole
from label2label.training.recipe import load_recipe
from label2label.training.trainer import MAX_GRADIENT_NORM, Trainer
from tqdm.auto import tqdm

GOAL = 0.95


def random_batch(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A batch of noise of the shape, layout and device that the recipe trains on.

    Args:
        trainer: Tells all of them.

    Returns:
        The model's arguments.
    """
    recipe, device = trainer.recipe, trainer.accelerator.device
    size = trainer.processor.crop_size["height"]
    pixels = torch.randn(recipe.batch_size, 3, size, size, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    attributes = trainer.data.labels.shape[1]
    labels = torch.randint(0, 2, (recipe.batch_size, attributes), device=device).float()
    return {"pixel_values": pixels, "labels": labels}


def bare_step(trainer: Trainer, inputs: dict[str, torch.Tensor]) -> None:
    """Forward, backward, clipping, optimizer: what no loop can do without.

    Args:
        trainer: Holds model and optimizer.
        inputs: The model's arguments.
    """
    trainer.model.train()
    trainer.accelerator.backward(trainer.model(**inputs).loss)
    trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), MAX_GRADIENT_NORM)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def measure(trainer: Trainer, rounds: int, batches: int) -> dict[str, Any]:
    """Time the loop and the bare step in turn.

    Args:
        trainer: Of a run that has not begun.
        rounds: How often to time both.
        batches: Of each, a round.

    Returns:
        Medians of the `images_per_second` of the `loop` and of the `bare_step`, of their `ratio`,
        the `goal`, the `loader_cpu_milliseconds_per_image`, and both speeds of all `rounds`.

    Raises:
        UserError: If the training split holds too few batches.
    """
    if rounds * batches + 2 > trainer.data.batches_per_epoch:
        raise UserError(
            f"{rounds} rounds of {batches} batches are more than the "
            f"{trainer.data.batches_per_epoch} of an epoch: ask for fewer"
        )
    trainer.accelerator.init_trackers("logs")
    size = trainer.recipe.batch_size
    inputs, loop = random_batch(trainer), trainer.batches()

    def wait() -> None:
        if trainer.accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):  # warm-up: workers start, kernels are chosen
        trainer.step(next(loop))
        bare_step(trainer, inputs)
    speeds: dict[str, list[float]] = {"loop": [], "bare_step": []}
    for _ in tqdm(range(rounds), desc="rounds"):
        started = time.perf_counter()
        for _ in range(batches):
            trainer.step(next(loop))
        wait()
        speeds["loop"].append(batches * size / (time.perf_counter() - started))
        started = time.perf_counter()
        for _ in range(batches):
            bare_step(trainer, inputs)
        wait()
        speeds["bare_step"].append(batches * size / (time.perf_counter() - started))
    loop.close()
    ratios = [a / b for a, b in zip(speeds["loop"], speeds["bare_step"], strict=True)]
    started = time.process_time()
    rows = np.arange(min(256, len(trainer.data.labels)))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        draws = draw_uniform(0, 0, part, np.zeros_like(part))
        crops = trainer.data.crops.batch(part).to(trainer.accelerator.device)
        trainer.augmentation(crops, trainer.processor.crop_size["height"], draws)
    cpu = time.process_time() - started
    return {
        "images_per_second": {name: statistics.median(values) for name, values in speeds.items()},
        "ratio": statistics.median(ratios),
        "goal": GOAL,
        "loader_cpu_milliseconds_per_image": 1000 * cpu / len(rows),
        "rounds": [
            {"loop": a, "bare_step": b, "ratio": a / b}
            for a, b in zip(speeds["loop"], speeds["bare_step"], strict=True)
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the figures.

    Args:
        arguments: Of the command line; the process's own by default.

    Returns:
        0, or 2 where the recipe or its data cannot be used.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="celeba", metavar="NAME|FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=17)
    parser.add_argument("--batches", type=int, default=12, help="of each kind, a round")
    parser.add_argument("--output", type=Path, default=Path("results/loader.json"))
    args = parser.parse_args(arguments)
    try:
        recipe = load_recipe(args.recipe, args.set)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(recipe, folder)
            result = {
                **measure(trainer, args.rounds, args.batches),
                "recipe": {
                    "name": Path(args.recipe).stem,
                    "batch_size": recipe.batch_size,
                    "mixed_precision": recipe.mixed_precision,
                    "workers": recipe.workers,
                    "cache_pixels": recipe.cache_pixels,
                },
                "machine": {
                    "device": trainer.accelerator.device.type,
                    "cores": os.cpu_count(),
                    "threads": torch.get_num_threads(),
                    "torch": torch.__version__,
                },
            }
        write_whole(args.output, json.dumps(result, indent=1) + "\n")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    speeds = result["images_per_second"]
    print(
        f"loop {speeds['loop']:.1f}, bare step {speeds['bare_step']:.1f} images/s: "
        f"{result['ratio']:.1%} (goal {GOAL:.0%})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
