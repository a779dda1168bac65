"""Measure what makes a training step faster: images per second of variants of one recipe.

    python benchmarks/training_speed.py

Images are synthetic, with CelebA's size, so that no dataset is needed. Each row is the recipe's
training loop with one change, in its own process; the rows run in turn, round by round, so that
other load on the machine slows all of them alike. Ratios are medians over rounds. `loop` compares
the baseline's loop with its bare step: forward, backward, clipping and optimizer on one batch of
noise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from common import describe_machine, finish, write_json
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.errors import UserError, join_lines
from PIL import Image
from tqdm import tqdm

SIZE = (178, 218)  # width and height of CelebA's aligned images
GOAL = 0.95  # the loop's share of the bare step's speed
BASELINE = "baseline"
# By row: title, recipe settings, and an extra change of the model.
ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    BASELINE: ("cached pixels, 112x112, batch 64, float32", {}, ""),
    "decoding": ("images decoded as they come", {"cache_pixels": False}, ""),
    "size-80": ("images of 80x80", {"image_sizes": [80]}, ""),
    "size-96": ("images of 96x96", {"image_sizes": [96]}, ""),
    "batch-32": ("batch 32", {"batch_size": 32}, ""),
    "batch-128": ("batch 128", {"batch_size": 128}, ""),
    "bf16": ("bfloat16", {"mixed_precision": "bf16"}, ""),
    "frozen-stages": ("first two stages frozen", {}, "freeze"),
    "frozen-backbone": ("backbone frozen", {"freeze_backbone": True}, ""),
    "compiled": ("torch.compile", {}, "compile"),
    "together": (
        "80x80, batch 128, bfloat16",
        {"image_sizes": [80], "batch_size": 128, "mixed_precision": "bf16"},
        "",
    ),
}


def draw_dataset(folder: Path, images: int) -> None:
    """Write a prepared dataset of smooth random JPEGs with random labels."""
    rng = np.random.default_rng(0)
    features = datasets.Features(
        {"image": datasets.Image(), **dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool"))}
    )
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", images), ("validation", 8), ("test", 8)):
        columns: dict[str, list[Any]] = {"image": []}
        for _ in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (11, 9, 3), np.uint8))
            columns["image"].append(coarse.resize(SIZE, Image.Resampling.BICUBIC))
        for name in CELEBA_ATTRIBUTES:
            columns[name] = (rng.random(count) < 0.3).tolist()
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def bare_step(trainer: Any) -> Callable[[], None]:
    """Return a function that runs a bare training step on one batch of noise."""
    import torch

    recipe, device = trainer.recipe, trainer.accelerator.device
    size = trainer.processor.crop_size["height"]
    pixels = torch.randn(recipe.batch_size, 3, size, size, device=device)
    labels = torch.randint(0, 2, (recipe.batch_size, len(CELEBA_ATTRIBUTES)), device=device)
    inputs = {
        "pixel_values": pixels.contiguous(memory_format=torch.channels_last),
        "labels": labels.float(),
    }

    def step() -> None:
        trainer.model.train()
        with trainer.accelerator.autocast():
            loss = trainer.model(**inputs).loss
        trainer.accelerator.backward(loss)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), 5.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    return step


def serve(pipe: Any, recipe_name: str, settings: list[str], extra: str, output: str) -> None:
    """Train one row on request, in its own process.

    Args:
        pipe: Sends `{}` when ready, then images per second for each number of batches received, of
            the loop or, for a negative number, of the bare step; `error` if the row cannot run.
        recipe_name, settings: Recipe and its overridden settings.
        extra: `freeze`, `compile` or empty.
        output: Folder of the run.
    """
    try:
        import torch
        from label2label.training.recipe import load_recipe
        from label2label.training.trainer import Trainer

        trainer = Trainer(load_recipe(recipe_name, settings), output)
        if extra == "freeze":
            encoder = trainer.model.label2label.backbone.encoder
            for module in (encoder.stem, *encoder.stages[:2]):
                module.requires_grad_(False)
        if extra == "compile":
            trainer.model.forward = torch.compile(trainer.model.forward)
        trainer.accelerator.init_trackers("logs")
        batches, alone = trainer.batches(), bare_step(trainer)
        size, cuda = trainer.recipe.batch_size, trainer.accelerator.device.type == "cuda"
        trainer.step(next(batches))  # warm-up: kernels are selected, and batches prefetched
        alone()
        pixels = trainer.data.crops.pixels
        pipe.send({"bytes": None if pixels is None else pixels[0].numel()})
        while (count := pipe.recv()) is not None:
            started = time.perf_counter()
            for _ in range(abs(count)):
                if count > 0:
                    trainer.step(next(batches))
                else:
                    alone()
            if cuda:
                torch.cuda.synchronize()
            pipe.send({"speed": abs(count) * size / (time.perf_counter() - started)})
    except Exception as error:  # a row that cannot run: the others continue
        pipe.send({"error": f"{type(error).__name__}: {join_lines(error)}"})


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rows in turn.

    Args:
        args: `recipe`, `rows`, `rounds`, `images` per row and round, `patience` in seconds.
        folder: Folder for the data and the runs.

    Returns:
        `rows`, each with `title`, `images_per_second` (median), `ratio` to the baseline (median
        over rounds) or `error`; `loop`, the baseline's speed, its `ratio` to the bare step, the
        `goal` and `decoded_bytes_per_image`.

    Raises:
        UserError: The baseline cannot run.
    """
    longest = max(settings.get("batch_size", 64) for _, settings, _ in ROWS.values())
    draw_dataset(folder / "data", 4 * longest)
    common = {
        "data": str(folder / "data"),
        "backbone": None,
        "epochs": 1000,  # so that the first image size is the only one
        "batch_size": 64,
        "mixed_precision": "no",
        "checkpoint_every": 0,
    }
    context = multiprocessing.get_context("spawn")
    pipes, rows = {}, {}
    for name in tqdm(args.rows, desc="start", unit="row"):
        title, settings, extra = ROWS[name]
        rows[name] = {"title": title, "settings": {**settings, **({extra: True} if extra else {})}}
        pipe, other = context.Pipe()
        written = [f"{key}={json.dumps(value)}" for key, value in {**common, **settings}.items()]
        process = context.Process(
            target=serve, args=(other, args.recipe, written, extra, str(folder / name)), daemon=True
        )
        process.start()
        other.close()  # so that recv() fails when the process ends
        answer = {"error": "it took too long to start"}
        if pipe.poll(args.patience):
            try:
                answer = pipe.recv()
            except EOFError:
                answer = {"error": "its process ended without a word"}
        if "error" in answer:
            if name == BASELINE:
                raise UserError(f"the baseline cannot run: {answer['error']}")
            rows[name]["error"] = answer["error"]
            process.kill()
            continue
        if name == BASELINE:
            decoded = answer["bytes"]
        pipes[name] = pipe
    speeds: dict[str, list[float]] = {name: [] for name in [*pipes, "bare"]}
    for _ in tqdm(range(args.rounds), desc="measure", unit="round"):
        for name in speeds:
            size = ROWS.get(name, ROWS[BASELINE])[1].get("batch_size", 64)
            count = max(1, args.images // size)
            pipe = pipes[BASELINE if name == "bare" else name]
            pipe.send(-count if name == "bare" else count)
            answer = pipe.recv()
            if "error" in answer:
                raise UserError(f"the row {name} failed: {answer['error']}")
            speeds[name].append(answer["speed"])
    base = speeds[BASELINE]

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(speeds[name], base, strict=True))

    for name in pipes:
        rows[name]["images_per_second"] = statistics.median(speeds[name])
        rows[name]["ratio"] = ratio(name)
    return {
        "machine": describe_machine(),
        "recipe": args.recipe,
        "rounds": args.rounds,
        "rows": rows,
        "loop": {
            "images_per_second": statistics.median(base),
            "ratio": 1 / ratio("bare"),
            "goal": GOAL,
            "decoded_bytes_per_image": decoded,
        },
    }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="celeba", metavar="NAME|FILE")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256, help="a row and round")
    parser.add_argument("--patience", type=float, default=300, help="seconds for a row to start")
    parser.add_argument("--output", type=Path, default=Path("results/training_speed.json"))
    args = parser.parse_args()
    args.rows = [BASELINE, *(name for name in ROWS if name in args.rows and name != BASELINE)]
    with tempfile.TemporaryDirectory(prefix="label2label-training-speed-") as folder:
        result = measure(args, Path(folder))
    write_json(args.output, result)
    for row in result["rows"].values():
        speed = row.get("error") or f"{row['images_per_second']:.0f} images/s, {row['ratio']:.2f}"
        print(f"{row['title']}: {speed}")
    print(f"loop: {result['loop']['ratio']:.1%} of the bare step (goal {GOAL:.0%})")


if __name__ == "__main__":
    sys.exit(finish(main))
