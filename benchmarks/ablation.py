"""Measure what backbone and head are worth: the papers' Tables 1 and 2 on equal terms.

    label2label convert mobilefacenet_scripted.pt runs/backbone
    python datasets_scripts/celeba.py --source CELEBA --output data/celeba
    python benchmarks/ablation.py --plan     # the hours of each row on this machine
    python benchmarks/ablation.py            # trains what is missing; run it again to go on

Each row is a backbone and a head, trained by the recipe `celeba` on CelebA's official partition
with the same images, steps, augmentation and seeds, and scored on the test part. All heads attend
to the backbone's last feature map, as the papers' do; nothing is frozen, and no words are given.
ResNet-50 starts from random weights (the papers' from ImageNet's), MobileFaceNet from random
weights and from a converted face-recognition checkpoint.

Each cell, one seed of one row, writes its results to its own file, `runs/ablation/*.json`, and is
trained once, on any machine. The best epoch is chosen on validation. `results/ablation.json` is
written anew after each cell; `--rows` and `--seeds` choose what to train.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from common import command_line, describe_machine, finish, write_json
from complexity import measure_complexity
from label2label.data.loading import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import predict_dataset, read_column
from label2label.evaluation.intervals import bootstrap_draws, clusters_of
from label2label.evaluation.metrics import overall_scores
from label2label.prediction.backends import TorchBackend
from label2label.training.recipe import Recipe, load_recipe
from label2label.training.trainer import Trainer
from scipy.stats import t as student_t
from training_speed import endless_batches

# The same architecture as the converted backbone.
MOBILEFACENET = '{"hidden_act": "relu6", "stem_hidden_act": "relu", "stem_pointwise": true}'
RESNET = '{"model_type": "resnet", "out_features": ["stage4"]}'
COMMON = ["frozen_stages=[]", "known_words=0", "image_sizes=[80, 112]"]
BACKBONES = {
    "MobileFaceNet, recognition": ["backbone_config=null"],
    "MobileFaceNet": ["backbone=null", f"backbone_config={MOBILEFACENET}"],
    "ResNet-50": ["backbone=null", f"backbone_config={RESNET}"],
}
HEADS = {
    "fc": ["model.head_type=fc"],
    "query2label": ["model.head_type=query2label"],
    "label2label, nothing masked": ["model.head_type=label2label", "model.mask_probability=0.0"],
    "label2label": ["model.head_type=label2label"],
}
ROWS = {f"{head} on {backbone}": (head, backbone) for backbone in BACKBONES for head in HEADS}
SPLIT = "test"
SCORES = ("accuracy", "balanced_accuracy", "query_accuracy")
SEEDS = (0, 1, 2)
EPOCHS = 4
CROP = 112  # pixels, of the model's own crops
PLANNED_STEPS = 4


def reference_of(row: str) -> str | None:
    """Name the row with which a row is compared.

    Heads are compared with `label2label` on the same backbone, and `label2label` on other backbones
    with that on MobileFaceNet from random weights.
    """
    head, backbone = ROWS[row]
    reference = f"label2label on {backbone if head != 'label2label' else 'MobileFaceNet'}"
    return None if reference == row else reference


def run_command(arguments: Sequence[str]) -> int:
    """Run one `label2label` command in its own process and return the exit code."""
    return subprocess.run([sys.executable, "-m", "label2label", *arguments]).returncode


def slug(row: str) -> str:
    """Convert a row's name to a file name: lower-case letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", row.lower())


def cell_file(args: argparse.Namespace, row: str, seed: int) -> Path:
    """Return the path of a cell's JSON file."""
    return args.runs / f"{slug(row)}-seed-{seed}.json"


def cell_settings(args: argparse.Namespace, row: str, seed: int) -> list[str]:
    """Return the recipe settings that a cell overrides, as `KEY=VALUE` strings."""
    head, backbone = ROWS[row]
    data = json.dumps([{"path": args.data, "limit": args.images}])
    budget = [f"data={data}", f"seed={seed}", f"epochs={args.epochs}"]
    return [*budget, *COMMON, *BACKBONES[backbone], *HEADS[head], *args.set]


def read_cell(args: argparse.Namespace, row: str, seed: int) -> dict[str, Any] | None:
    """Read a cell's results, if it was trained.

    Raises:
        UserError: It was trained by another recipe.
    """
    file = cell_file(args, row, seed)
    if not file.is_file():
        return None
    cell = json.loads(file.read_text(encoding="utf-8"))
    if cell["recipe"] != asdict(load_recipe(args.recipe, cell_settings(args, row, seed))):
        raise UserError(
            f"{file} was trained with other settings: delete it to train the cell again"
        )
    return cell


def train_cell(args: argparse.Namespace, row: str, seed: int) -> bool:
    """Train and measure one cell, unless its results exist; return whether it was trained.

    Raises:
        UserError: The training fails or is stopped, or the cell was trained with other settings.
    """
    if read_cell(args, row, seed):
        return False
    settings = cell_settings(args, row, seed)
    recipe = asdict(load_recipe(args.recipe, settings))
    # Resume a stopped cell, but never one with other settings.
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:8]
    folder = args.runs / slug(row) / f"seed-{seed}-{digest}"
    print(f"== {row}, seed {seed}", file=sys.stderr, flush=True)
    arguments = ["train", "--recipe", args.recipe, "--output", str(folder)]
    for setting in settings:
        arguments += ["--set", setting]
    if list((folder / "state").glob("step-*")):
        arguments.append("--resume")
    if code := run_command(arguments):
        raise UserError(f"{folder}: exit code {code}; run the same command again to continue")
    write_json(cell_file(args, row, seed), {"recipe": recipe, **measure_cell(args.data, folder)})
    return True


def measure_cell(data: str, folder: Path) -> dict[str, Any]:
    """Score a trained cell.

    Returns:
        Its scores, and per image the number of `known` labels and of `right` predictions.
    """
    model = TorchBackend.from_pretrained(folder / "best")
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    complexity = measure_complexity(model.model.config, model.preprocessing.crop_size)
    dataset = load_split(data, SPLIT)
    labels = label_array(dataset, model.preprocessing.attributes)
    accelerator = Accelerator(mixed_precision="no")
    probabilities, by_queries = predict_dataset(accelerator, model, dataset)
    known = labels >= 0
    right = ((probabilities > 0.5) == (labels > 0)) & known
    scores = overall_scores(probabilities, labels, names=("accuracy", "balanced_accuracy"))
    queries = None
    if by_queries is not None:
        queries = float(overall_scores(by_queries, labels, names=("accuracy",))["accuracy"])
    return {
        **{name: float(score) for name, score in scores.items()},
        "query_accuracy": queries,
        # The fastest epoch: other load on the machine can only slow one down.
        "seconds_per_epoch": min(entry["seconds"] for entry in history),
        "parameters": complexity["parameters"],
        "flops": complexity["flops"],
        "processor": describe_machine()["processor"],
        "threads": torch.get_num_threads(),
        "right": right.sum(axis=1).tolist(),
        "known": known.sum(axis=1).tolist(),
    }


def gather_rows(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Gather the table's rows from all finished cells.

    Returns:
        By row: `head`, `backbone`, `seeds`, mean and standard deviation of the scores over seeds,
        the values that all seeds share, and `compared` as `compare_cells` returns it.
    """
    found = {}
    for row in ROWS:
        seeds = sorted(
            int(f.stem.rpartition("-")[2]) for f in args.runs.glob(f"{slug(row)}-seed-*.json")
        )
        if seeds:
            found[row] = {seed: read_cell(args, row, seed) for seed in seeds}
    dataset = load_split(args.data, SPLIT)
    clusters = clusters_of(read_column(dataset, "identity") or [None] * len(dataset))
    rows = {}
    for name, cells in found.items():
        head, backbone = ROWS[name]
        row: dict[str, Any] = {"head": head, "backbone": backbone, "seeds": list(cells)}
        for score in SCORES:
            values = [cell[score] for cell in cells.values()]
            if None not in values:  # a head without a query network
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                row[score] = {"mean": float(np.mean(values)), "std": spread}
        first = next(iter(cells.values()))
        row |= {key: first[key] for key in ("parameters", "flops", "processor")}
        row["seconds_per_epoch"] = min(cell["seconds_per_epoch"] for cell in cells.values())
        reference = reference_of(name)
        others = found.get(reference) if reference else None
        compared = others and compare_cells([*cells.values()], [*others.values()], clusters)
        row["compared"] = compared and {"with": reference, **compared}
        rows[name] = row
    return rows


def compare_cells(
    cells: Sequence[dict[str, Any]],
    others: Sequence[dict[str, Any]],
    clusters: np.ndarray,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Compute the accuracy difference of two rows, with its interval.

    The variance is the sum of the variance over people, from a paired bootstrap of the means over
    seeds, and the variance over seeds, s^2 / n of each row; the interval is Student's, with
    Welch-Satterthwaite degrees of freedom. (A bootstrap over three seeds would underestimate their
    variance by a third, and call differences real far too often.)

    Args:
        cells, others: Cells of the two rows, one per seed.
        clusters: Person on each image, (images,).
        resamples: Number of bootstrap resamples.

    Returns:
        The `difference` (first minus second), its 95 % `interval`, and whether it is `real`: the
        interval excludes 0. With a row of one seed the interval is over people only, and `real` is
        None, as the variance over seeds is unknown.
    """

    def mean(row: Sequence[dict[str, Any]], weights: np.ndarray) -> np.ndarray:
        # (resamples,): the mean over seeds of the accuracy on the people drawn
        shares = [weights @ np.array(c["right"]) / (weights @ np.array(c["known"])) for c in row]
        return np.mean(shares, axis=0)

    draws = bootstrap_draws(
        lambda w: {"difference": mean(cells, w) - mean(others, w)}, clusters, resamples
    )
    accuracies = [[sum(c["right"]) / sum(c["known"]) for c in row] for row in (cells, others)]
    difference = float(np.mean(accuracies[0]) - np.mean(accuracies[1]))
    variance = float(np.var(draws["difference"], ddof=1))
    alone = min(map(len, accuracies)) == 1
    freedom = np.inf
    if not alone:
        by_seed = [float(np.var(row, ddof=1)) / len(row) for row in accuracies]
        variance += sum(by_seed)
        terms = [v**2 / (len(row) - 1) for v, row in zip(by_seed, accuracies, strict=True)]
        freedom = variance**2 / max(sum(terms), np.finfo(float).tiny)
    margin = float(student_t.ppf(0.975, freedom)) * math.sqrt(variance)
    return {
        "difference": difference,
        "interval": [difference - margin, difference + margin],
        "real": None if alone else abs(difference) > margin,
    }


def images_per_second(recipe: Recipe, size: int) -> float:
    """Measure the training loop's speed at one image size, in a few steps."""
    AcceleratorState._reset_state(True)
    images = (PLANNED_STEPS + 1) * recipe.batch_size
    source = {**asdict(recipe.sources[0]), "limit": images}
    recipe = replace(recipe, data=[source], image_sizes=[size], cache_pixels=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, folder)
        trainer.accelerator.init_trackers("logs")
        batches = endless_batches(trainer)
        trainer.step(next(batches))  # warm-up
        started = time.perf_counter()
        for _ in range(PLANNED_STEPS):
            trainer.step(next(batches))
        return PLANNED_STEPS * recipe.batch_size / (time.perf_counter() - started)


def print_plan(args: argparse.Namespace) -> None:
    """Print the estimated hours of every row, of the cells that are still to be trained."""
    train, validation = (len(load_split(args.data, split)) for split in ("train", "validation"))
    train = min(args.images or train, train)
    total = 0.0
    for row in args.rows:
        missing = [seed for seed in args.seeds if read_cell(args, row, seed) is None]
        recipe = load_recipe(args.recipe, cell_settings(args, row, 0))
        of_epochs = recipe.image_sizes or [CROP]
        sizes = [recipe.at_epoch(of_epochs, epoch) for epoch in range(args.epochs)]
        speeds = {size: images_per_second(recipe, size) for size in sorted(set(sizes))}
        # A forward pass, as in validation, takes a third of a step.
        validating = args.epochs * validation / (3 * speeds[max(sizes)])
        hours = (sum(train / speeds[size] for size in sizes) + validating) / 3600
        total += hours * len(missing)
        described = ", ".join(f"{s}x{s}: {speed:.0f} images/s" for s, speed in speeds.items())
        print(f"{row}: {hours:.1f} h a seed, {len(missing)} seeds left ({described})", flush=True)
    print(f"in all {total:.1f} h; choose by --rows, --seeds, --epochs and --images")


def main() -> None:
    """Train the missing cells, and write the table after each."""
    parser = command_line(__doc__)
    parser.add_argument("--plan", action="store_true", help="print the hours of each row and stop")
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=list(ROWS), help="to train")
    parser.add_argument("--recipe", default="celeba", metavar="NAME|FILE")
    parser.add_argument("--data", default="data/celeba", metavar="DIR")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="to train")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="the budget of every cell")
    parser.add_argument("--images", type=int, default=0, help="to train on (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("results/ablation.json"))
    args = parser.parse_args()
    if unknown := sorted(set(args.rows) - set(ROWS)):
        raise UserError(f"no row {unknown[0]!r}: the rows are {'; '.join(ROWS)}")
    if args.plan:
        return print_plan(args)
    trained = len(load_split(args.data, "train"))
    budget = {"epochs": args.epochs, "train_images": min(args.images or trained, trained)}
    budget |= {"split": SPLIT, "test_images": len(load_split(args.data, SPLIT))}
    # Seed by seed, so that a table with all rows exists early.
    for seed in args.seeds:
        for row in args.rows:
            if train_cell(args, row, seed):
                write_json(args.output, {**budget, "rows": gather_rows(args)})
    write_json(args.output, {**budget, "rows": gather_rows(args)})


if __name__ == "__main__":
    sys.exit(finish(main))
