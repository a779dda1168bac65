"""Measure what makes a training step faster: images per second of variants of one recipe.

    python benchmarks/training_speed.py

Images are synthetic, with CelebA's size, so that no dataset is needed. Each row is the recipe's
training loop with one change, in its own process; the rows run in turn, round by round, so that
other load on the machine slows all of them alike. Ratios are medians over rounds. `loop` compares
the baseline's loop with its bare step: forward, backward, clipping and optimizer on one batch of
noise, in the recipe's precision and with what it freezes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from common import Worker, command_line, describe_machine, finish, serve_answers, write_json
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.errors import UserError, join_lines
from PIL import Image
from tqdm import tqdm, trange

SIZE = (178, 218)  # width and height of CelebA's aligned images
GOAL = 0.95  # the loop's share of the bare step's speed
BASELINE = "baseline"
COMPILE = {"compile": True}  # not a recipe's setting: `torch.compile` of the backbone's encoder
COMMON = {  # settings of every row
    "backbone": None,
    "epochs": 1000,
    "batch_size": 64,
    "image_sizes": [],
    "frozen_stages": [],
    "mixed_precision": "no",
    "checkpoint_every": 0,
}
# By row: title and recipe settings.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    BASELINE: ("cached pixels, 112x112, batch 64, float32", {}),
    "decoding": ("images decoded as they come", {"cache_pixels": False}),
    "size-80": ("images of 80x80", {"image_sizes": [80]}),
    "size-96": ("images of 96x96", {"image_sizes": [96]}),
    "batch-32": ("batch 32", {"batch_size": 32}),
    "batch-128": ("batch 128", {"batch_size": 128}),
    "bf16": ("bfloat16", {"mixed_precision": "bf16"}),
    "frozen-stages": ("stem and first stage frozen", {"frozen_stages": [2]}),
    "frozen-backbone": ("backbone frozen", {"freeze_backbone": True}),
    "compiled": ("torch.compile of the encoder", COMPILE),
    "together-80": ("80x80, bfloat16", {"image_sizes": [80], "mixed_precision": "bf16"}),
    "together": (
        "stem and first stage frozen, bfloat16",
        {"frozen_stages": [2], "mixed_precision": "bf16"},
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
        for coarse in rng.integers(0, 256, (count, 11, 9, 3), np.uint8):
            file = io.BytesIO()
            image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
            image.save(file, "JPEG", quality=95)
            columns["image"].append({"bytes": file.getvalue(), "path": None})
        columns |= {name: (rng.random(count) < 0.3).tolist() for name in CELEBA_ATTRIBUTES}
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def endless_batches(trainer: Any) -> Iterator[dict[str, Any]]:
    """Load the batches of one epoch after the other."""
    while True:
        yield from trainer.batches()
        trainer.progress.epoch += 1
        trainer.progress.step_in_epoch = 0


def bare_step(trainer: Any) -> Callable[[], None]:
    """Return a function that runs a bare training step on one batch of noise."""
    import torch
    from label2label.training.trainer import MAX_GRADIENT_NORM, freeze

    recipe, device = trainer.recipe, trainer.accelerator.device
    size = (recipe.image_sizes or [trainer.processor.crop_size["height"]])[0]
    pixels = torch.randn(recipe.batch_size, 3, size, size, device=device)
    labels = torch.randint(0, 2, (recipe.batch_size, len(CELEBA_ATTRIBUTES)), device=device)
    inputs = {
        "pixel_values": pixels.contiguous(memory_format=torch.channels_last),
        "labels": labels.float(),
    }

    def step() -> None:
        trainer.model.train()
        freeze(trainer.accelerator.unwrap_model(trainer.model), recipe, 0)
        with trainer.accelerator.autocast():
            loss = trainer.model(**inputs).loss
        trainer.accelerator.backward(loss)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), MAX_GRADIENT_NORM)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    return step


def serve(specification: str) -> None:
    """Train a row, a JSON of `recipe`, `settings` and the folder `output`, in its own process.

    For each number of batches read, it answers the loop's `speed` in images per second; for a
    negative number, that of the bare step.
    """
    answer = serve_answers()
    try:
        import torch
        from label2label.training.recipe import load_recipe
        from label2label.training.trainer import Trainer

        row = json.loads(specification)
        is_compiled = row["settings"].pop("compile", False)
        written = [f"{key}={json.dumps(value)}" for key, value in row["settings"].items()]
        trainer = Trainer(load_recipe(row["recipe"], written), row["output"])
        if is_compiled:
            trainer.model.label2label.backbone.encoder.compile()
        trainer.accelerator.init_trackers("logs")
        batches, alone = endless_batches(trainer), bare_step(trainer)
        size, cuda = trainer.recipe.batch_size, trainer.accelerator.device.type == "cuda"
        trainer.step(next(batches))  # warm-up: kernels are selected, and batches prefetched
        alone()
        answer({})
        for count in map(int, sys.stdin):
            started = time.perf_counter()
            for _ in range(abs(count)):
                if count > 0:
                    trainer.step(next(batches))
                else:
                    alone()
            if cuda:
                torch.cuda.synchronize()
            answer({"speed": abs(count) * size / (time.perf_counter() - started)})
    except Exception as error:  # a row that cannot run: the others continue
        answer({"error": f"{type(error).__name__}: {join_lines(error)}"})


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rows in turn, with their data and runs in a folder.

    Returns:
        `rows`, each with `title`, `images_per_second` (median), `ratio` to the baseline (median
        over rounds) or `error`; `loop`, the baseline's speed, its `ratio` to the bare step and the
        `goal`.

    Raises:
        UserError: The baseline cannot run.
    """
    draw_dataset(folder / "data", 1024)
    workers, rows = {}, {}
    speeds: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        for name in tqdm(args.rows, desc="start", unit="row"):
            title, settings = ROWS[name]
            rows[name] = {"title": title, "settings": settings}
            everything = {"data": str(folder / "data"), **COMMON, **settings}
            row = {"recipe": args.recipe, "settings": everything, "output": str(folder / name)}
            worker = Worker(__file__, row)
            stack.callback(worker.process.kill)
            if "error" not in worker.start:
                workers[name] = worker
            elif name == BASELINE:
                raise UserError(f"the baseline cannot run: {worker.start['error']}")
            else:
                rows[name]["error"] = worker.start["error"]
        for _ in trange(args.rounds, desc="measure", unit="round"):
            for name, worker in workers.items():
                count = max(1, args.images // ROWS[name][1].get("batch_size", COMMON["batch_size"]))
                speeds.setdefault(name, []).append(worker.ask(count)["speed"])
                if name == BASELINE:
                    speeds.setdefault("bare", []).append(worker.ask(-count)["speed"])
    base = np.array(speeds[BASELINE])
    for name in workers:
        rows[name]["images_per_second"] = float(np.median(speeds[name]))
        rows[name]["ratio"] = float(np.median(speeds[name] / base))
    return {
        "machine": describe_machine(),
        "recipe": args.recipe,
        "rounds": args.rounds,
        "rows": rows,
        "loop": {
            "images_per_second": float(np.median(base)),
            "ratio": float(np.median(base / speeds["bare"])),
            "goal": GOAL,
        },
    }


def main() -> None:
    """Measure, print and write the results."""
    parser = command_line(__doc__)
    parser.add_argument("--recipe", default="celeba", metavar="NAME|FILE")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256, help="a row and round")
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
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        sys.exit(finish(main))
