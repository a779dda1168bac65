"""The ablation table: heads and backbones under one recipe, one budget and one list of seeds.

    label2label convert mobilefacenet_ms1m_relu6.pt runs/backbone
    python datasets_scripts/celeba.py --source CELEBA --output data/celeba
    python benchmarks/ablation.py

Rows are the heads `fc`, `query2label`, `label2label` without masking and `label2label`, over
MobileFaceNet from a converted face-recognition checkpoint, MobileFaceNet from scratch, and
ResNet-50 from scratch (without ImageNet's weights, unlike the papers). Every cell, one seed of one
row, leaves its figures in its folder and is trained once; a run that was stopped goes on with the
same command. The best epoch is chosen on validation; test is read once a cell.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from label2label.data.batching import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.bootstrap import bootstrap_draws, clusters_of, interval_of, p_values
from label2label.evaluation.metrics import balanced_accuracy_per_attribute, mean_accuracy
from label2label.export.complexity import measure_complexity
from label2label.files import write_whole
from label2label.prediction.labelled import predict_dataset
from label2label.prediction.loading import load_model

RESNET = '{"model_type": "resnet", "out_features": ["stage4"]}'
BACKBONES = {
    "mobilefacenet": [],
    "mobilefacenet-scratch": ["backbone=null"],
    "resnet50-scratch": ["backbone=null", f"backbone_config={RESNET}"],
}
HEADS = {
    "fc": ["model.head_type=fc"],
    "query2label": ["model.head_type=query2label"],
    "label2label-unmasked": ["model.head_type=label2label", "model.mask_probability=0.0"],
    "label2label": ["model.head_type=label2label"],
}
SEEDS = (0, 1, 2)
EPOCHS = 6


def run_command(arguments: Sequence[str]) -> int:
    """Run one `label2label` command in a process of its own.

    Args:
        arguments: Of the command.

    Returns:
        Its exit code.
    """
    return subprocess.run([sys.executable, "-m", "label2label", *arguments]).returncode


def train_cell(args: argparse.Namespace, backbone: str, head: str, seed: int) -> None:
    """Train and measure one cell, unless it has been.

    Args:
        args: The command line.
        backbone: A key of `BACKBONES`.
        head: A key of `HEADS`.
        seed: Of everything random.

    Raises:
        UserError: If the training fails or is stopped.
    """
    folder = args.runs / backbone / head / f"seed-{seed}"
    if (folder / "cell.json").is_file():
        return
    print(f"== {backbone}, {head}, seed {seed}", file=sys.stderr, flush=True)
    arguments = ["train", "--recipe", args.recipe, "--data", args.data, "--output", str(folder)]
    settings = [f"seed={seed}", f"epochs={args.epochs}", *args.set]
    for setting in [*settings, *BACKBONES[backbone], *HEADS[head]]:
        arguments += ["--set", setting]
    if list((folder / "state").glob("step-*")):
        arguments.append("--resume")
    if code := run_command(arguments):
        raise UserError(f"{folder}: exit code {code}; the same command goes on from here")
    measure_cell(args, folder)


def measure_cell(args: argparse.Namespace, folder: Path) -> None:
    """Score a trained cell on test, and keep the figures and the right answers of every image.

    Args:
        args: The command line.
        folder: The cell's run.
    """
    model, processor = load_model(folder / "best")
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    # The image is as the processor crops it: not every backbone's config says how large that is.
    complexity = measure_complexity(model.config, processor.crop_size["height"])
    dataset = load_split(args.data, "test")
    labels = label_array(dataset, names)
    accelerator = Accelerator(mixed_precision="no")
    probabilities, _ = predict_dataset(accelerator, model, processor, dataset)
    known = labels >= 0
    right = ((probabilities > 0.5) == (labels > 0)) & known
    counts = np.stack([right.sum(axis=1), known.sum(axis=1)], axis=1)
    balanced = balanced_accuracy_per_attribute(probabilities, labels)
    np.save(folder / "counts.npy", counts)
    _write(
        folder / "cell.json",
        {
            "accuracy": float(mean_accuracy(probabilities, labels)),
            "balanced_accuracy": float(np.nanmean(balanced)),
            "validation_accuracy": max(entry["accuracy"] for entry in history),
            "seconds_per_epoch": float(np.median([entry["seconds"] for entry in history])),
            "epochs": len(history),
            "parameters": complexity["parameters"],
            "flops": complexity["flops"]["all"],
            "threads": torch.get_num_threads(),
        },
    )


def gather_rows(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Rows of the table, of the cells that are done.

    Args:
        args: The command line.

    Returns:
        By `backbone, head`: mean and standard deviation over seeds of the scores, the seeds, and
        what is the same for all of them.
    """
    rows = {}
    for backbone in args.backbones:
        for head in args.heads:
            cells = {}
            for seed in args.seeds:
                file = args.runs / backbone / head / f"seed-{seed}" / "cell.json"
                if file.is_file():
                    cells[seed] = json.loads(file.read_text(encoding="utf-8"))
            if not cells:
                continue
            first = next(iter(cells.values()))
            row: dict[str, Any] = {"backbone": backbone, "head": head, "seeds": list(cells)}
            for score in ("accuracy", "balanced_accuracy", "validation_accuracy"):
                values = [cell[score] for cell in cells.values()]
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                row[score] = {"mean": float(np.mean(values)), "std": spread}
            seconds = [cell["seconds_per_epoch"] for cell in cells.values()]
            row["seconds_per_epoch"] = float(np.median(seconds))
            row |= {name: first[name] for name in ("parameters", "flops", "epochs")}
            rows[f"{backbone}, {head}"] = row
    return rows


def compare_rows(
    args: argparse.Namespace, rows: dict[str, dict[str, Any]], resamples: int = 1000
) -> list[dict[str, Any]]:
    """Differences of test accuracy between all pairs of rows, by the paired bootstrap.

    Every resample draws the same people for both rows, and as many of each row's seeds as it has:
    a difference is real where neither other people nor other seeds would undo it.

    Args:
        args: The command line.
        rows: As `gather_rows`.
        resamples: Of the bootstrap.

    Returns:
        For each pair: `rows`, the `difference` (first minus second), its 95 % `interval`, `p_value`
        and whether it is `real` (the interval leaves 0 out).
    """
    dataset = load_split(args.data, "test")
    identities = dataset["identity"] if "identity" in dataset.column_names else [None]
    clusters = clusters_of(list(identities) if len(identities) > 1 else [None] * len(dataset))

    def accuracies(row: dict[str, Any], seeds: np.ndarray, weights: np.ndarray) -> np.ndarray:
        folder = args.runs / row["backbone"] / row["head"]
        counts = np.stack([np.load(folder / f"seed-{s}" / "counts.npy") for s in row["seeds"]])
        # (resamples, seeds): each seed's accuracy on the people drawn
        by_seed = np.stack([weights @ c[:, 0] / (weights @ c[:, 1]) for c in counts], axis=1)
        return np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1)

    comparisons = []
    for first, second in combinations(rows, 2):
        rng = np.random.default_rng(0)

        def difference(
            weights: np.ndarray,
            pair: tuple[dict[str, Any], dict[str, Any]] = (rows[first], rows[second]),
            rng: np.random.Generator = rng,
        ) -> dict[str, np.ndarray]:
            values = []
            for row in pair:
                number = len(row["seeds"])
                seeds = rng.integers(0, number, (len(weights), number))
                values.append(accuracies(row, seeds, weights))
            return {"difference": values[0] - values[1]}

        draws = bootstrap_draws(difference, clusters, resamples)["difference"]
        estimate = np.array(rows[first]["accuracy"]["mean"] - rows[second]["accuracy"]["mean"])
        low, high = (float(end) for end in interval_of(draws, estimate))
        comparisons.append(
            {
                "rows": [first, second],
                "difference": float(estimate),
                "interval": [low, high],
                "p_value": float(p_values(draws)),
                "real": low > 0 or high < 0,
            }
        )
    return comparisons


def markdown(result: dict[str, Any]) -> str:
    """The table and the differences that are real, in Markdown.

    Args:
        result: As it is written.

    Returns:
        The text.
    """
    head = ("backbone", "head", "accuracy", "balanced", "backbone M", "head M", "all M", "GFLOPs")
    lines = [f"| {' | '.join((*head, 's/epoch', 'seeds'))} |", "| :--- | :--- |" + " ---: |" * 8]
    for row in result["rows"].values():
        cells = [row["backbone"], row["head"]]
        for score in ("accuracy", "balanced_accuracy"):
            spread = row[score]["std"]
            cells.append(f"{row[score]['mean']:.4f}" + (f" ± {spread:.4f}" if spread else ""))
        cells += [f"{row['parameters'][part] / 1e6:.2f}" for part in ("backbone", "head", "all")]
        cells += [f"{row['flops'] / 1e9:.2f}", f"{row['seconds_per_epoch']:.0f}"]
        lines.append(f"| {' | '.join([*cells, str(len(row['seeds']))])} |")
    lines.append("")
    for pair in result["comparisons"]:
        low, high = pair["interval"]
        what = f"{pair['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
        verdict = "real" if pair["real"] else "within chance"
        lines.append(f"- {pair['rows'][0]} against {pair['rows'][1]}: {what}, {verdict}")
    return "\n".join(lines)


def _write(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the cells that are not done; write and print the table after each.

    Args:
        arguments: Of the command line; the process's own by default.

    Returns:
        0, or 2 where a cell failed: the cells before it are kept.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="celeba", metavar="NAME|FILE")
    parser.add_argument("--data", default="data/celeba", metavar="DIR")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="the budget of every cell")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("results/ablation.json"))
    args = parser.parse_args(arguments)
    try:
        # Seed by seed, so that a table of all rows is there early.
        for seed in args.seeds:
            for backbone in args.backbones:
                for head in args.heads:
                    train_cell(args, backbone, head, seed)
                    rows = gather_rows(args)
                    result = {
                        "epochs": args.epochs,
                        "rows": rows,
                        "comparisons": compare_rows(args, rows),
                    }
                    _write(args.output, result)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
