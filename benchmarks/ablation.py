"""Measure what parts of a model are worth: tables of rows that differ in a few settings.

    label2label convert mobilefacenet_scripted.pt runs/backbone
    python datasets_scripts/celeba.py --source CELEBA --output data/celeba
    python benchmarks/ablation.py heads
    python benchmarks/ablation.py sizes

`heads` compares the heads `fc`, `query2label`, `label2label` without masking and `label2label` on
MobileFaceNet from a converted face-recognition checkpoint, the last also on MobileFaceNet and
ResNet-50 from scratch (without ImageNet weights, unlike the papers); it is scored on test.
`sizes` compares heads of several widths, depths and feed-forward widths on the shipped model's
frozen backbone; it serves to choose a model, so it is scored on validation.

All rows of a table have the same budget and the same list of seeds. Each cell, one seed of one
row, writes its results to its own file (`runs/ablation/TABLE/*.json`) and is trained once, on any
machine: run the same command again to continue a stopped table. The best epoch is chosen on
validation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from common import describe_machine, finish, write_json
from label2label.data.loading import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import predict_dataset
from label2label.evaluation.intervals import bootstrap_draws, clusters_of
from label2label.evaluation.metrics import balanced_accuracy_per_attribute, mean_accuracy
from label2label.evaluation.plots import figure_svg
from label2label.export.complexity import measure_complexity
from label2label.prediction.backends import load_model
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.stats import t as student_t

# The same architecture as the converted backbone of the other rows.
MOBILEFACENET = '{"hidden_act": "relu6", "stem_hidden_act": "relu", "stem_pointwise": true}'
RESNET = '{"model_type": "resnet", "out_features": ["stage4"]}'
LABEL2LABEL = ["model.head_type=label2label"]


@dataclass(frozen=True)
class Table:
    """Rows to compare with each other.

    Args:
        split: The split that the rows are scored on.
        rows: Recipe settings by row name.
    """

    split: str
    rows: dict[str, list[str]]


def _size(
    hidden: int, heads: int, layers: tuple[int, int] = (1, 1), feed_forward: int | None = None
) -> list[str]:
    return [
        *("backbone=celeba-mobilefacenet", "freeze_backbone=true"),
        f"model.hidden_size={hidden}",
        f"model.intermediate_size={feed_forward or 2 * hidden}",
        f"model.num_attention_heads={heads}",
        *(f"model.num_query_layers={layers[0]}", f"model.num_mlm_layers={layers[1]}"),
    ]


TABLES = {
    "heads": Table(
        "test",
        {
            "fc": ["model.head_type=fc"],
            "query2label": ["model.head_type=query2label"],
            "label2label, nothing masked": [*LABEL2LABEL, "model.mask_probability=0.0"],
            "label2label": LABEL2LABEL,
            "label2label, from scratch": [
                *(*LABEL2LABEL, "backbone=null"),
                f"backbone_config={MOBILEFACENET}",
            ],
            "label2label, ResNet-50 from scratch": [
                *(*LABEL2LABEL, "backbone=null"),
                f"backbone_config={RESNET}",
            ],
        },
    ),
    "sizes": Table(
        "validation",
        {
            "32 wide": _size(32, 4),
            "64 wide": _size(64, 4),
            "96 wide": _size(96, 4),
            "128 wide": _size(128, 4),
            "192 wide": _size(192, 4),
            "96 wide, 1 attention head": _size(96, 1),
            "96 wide, 8 attention heads": _size(96, 8),
            "96 wide, feed-forward 96": _size(96, 4, feed_forward=96),
            "96 wide, feed-forward 384": _size(96, 4, feed_forward=384),
            "96 wide, 2 query layers": _size(96, 4, (2, 1)),
            "96 wide, 2 language model layers": _size(96, 4, (1, 2)),
        },
    ),
}
SCORES = ("accuracy", "balanced_accuracy", "query_accuracy")
SEEDS = (0, 1, 2)
EPOCHS = 4


def run_command(arguments: Sequence[str]) -> int:
    """Run one `label2label` command in its own process and return the exit code."""
    return subprocess.run([sys.executable, "-m", "label2label", *arguments]).returncode


def slug(row: str) -> str:
    """Convert a row's name to a file name: lower-case letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", row.lower())


def cell_file(args: argparse.Namespace, row: str, seed: int) -> Path:
    """Return the path of a cell's JSON file."""
    return args.runs / args.table / f"{slug(row)}-seed-{seed}.json"


def cell_settings(args: argparse.Namespace, row: str, seed: int) -> list[str]:
    """Return the recipe settings that a cell overrides, as `KEY=VALUE` strings."""
    budget = [f"data={args.data}", f"seed={seed}", f"epochs={args.epochs}"]
    return [*budget, *args.set, *TABLES[args.table].rows[row]]


def train_cell(args: argparse.Namespace, row: str, seed: int) -> None:
    """Train and measure one cell, unless its results exist.

    Args:
        args: The command line.
        row: The row's name.
        seed: Random seed.

    Raises:
        UserError: If the training fails or is stopped, or the cell was trained with other settings.
    """
    file, settings = cell_file(args, row, seed), cell_settings(args, row, seed)
    made = {"recipe": args.recipe, "settings": settings}
    if file.is_file():
        cell = json.loads(file.read_text(encoding="utf-8"))
        if any(cell[name] != value for name, value in made.items()):
            raise UserError(f"{file} was made with other settings: remove it to make it anew")
        return
    # Resume a stopped cell, but never one with other settings.
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:8]
    folder = args.runs / args.table / slug(row) / f"seed-{seed}-{digest}"
    print(f"== {row}, seed {seed}", file=sys.stderr, flush=True)
    arguments = ["train", "--recipe", args.recipe, "--output", str(folder)]
    for setting in settings:
        arguments += ["--set", setting]
    if list((folder / "state").glob("step-*")):
        arguments.append("--resume")
    if code := run_command(arguments):
        raise UserError(f"{folder}: exit code {code}; the same command goes on from here")
    write_json(file, {**made, **measure_cell(args, folder)})


def measure_cell(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score a trained cell.

    Args:
        args: The command line.
        folder: The cell's run.

    Returns:
        Its scores, and per image the number of `known` labels and of `right` predictions.
    """
    model, processor = load_model(folder / "best")
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    # The processor's crop gives the image size: not every backbone's config has it.
    complexity = measure_complexity(model.config, processor.crop_size["height"])
    dataset = load_split(args.data, TABLES[args.table].split)
    labels = label_array(dataset, names)
    accelerator = Accelerator(mixed_precision="no")
    probabilities, by_queries = predict_dataset(accelerator, model, processor, dataset)
    known = labels >= 0
    right = ((probabilities > 0.5) == (labels > 0)) & known
    balanced = balanced_accuracy_per_attribute(probabilities, labels)
    return {
        "accuracy": float(mean_accuracy(probabilities, labels)),
        "balanced_accuracy": float(np.nanmean(balanced)),
        "query_accuracy": None if by_queries is None else float(mean_accuracy(by_queries, labels)),
        # The fastest epoch: other load on the machine can only slow one down.
        "seconds_per_epoch": min(entry["seconds"] for entry in history),
        "epochs": len(history),
        "parameters": complexity["parameters"],
        "flops": complexity["flops"]["all"],
        "processor": describe_machine()["processor"],
        "threads": torch.get_num_threads(),
        "right": right.sum(axis=1).tolist(),
        "known": known.sum(axis=1).tolist(),
    }


def gather_rows(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Gather the table's rows from all finished cells with these settings.

    Args:
        args: The command line.

    Returns:
        By row name: mean and standard deviation of the scores over seeds, the seeds, and the values
        that all seeds share.
    """
    rows = {}
    for name in TABLES[args.table].rows:
        cells = {}
        for file in (args.runs / args.table).glob(f"{slug(name)}-seed-*.json"):
            seed = int(file.stem.rpartition("-")[2])
            cell = json.loads(file.read_text(encoding="utf-8"))
            settings = cell_settings(args, name, seed)
            if (cell["recipe"], cell["settings"]) == (args.recipe, settings):
                cells[seed] = cell
        cells = dict(sorted(cells.items()))
        if not cells:
            continue
        first = next(iter(cells.values()))
        row: dict[str, Any] = {"seeds": list(cells)}
        for score in SCORES:
            values = [cell[score] for cell in cells.values()]
            if None in values:
                continue  # a head without a query network
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row[score] = {"mean": float(np.mean(values)), "std": spread}
        seconds = [cell["seconds_per_epoch"] for cell in cells.values()]
        row["seconds_per_epoch"] = min(seconds)
        row["processors"] = sorted({cell["processor"] for cell in cells.values()})
        rows[name] = row | {name: first[name] for name in ("parameters", "flops", "epochs")}
    return rows


def compare_rows(
    args: argparse.Namespace, rows: dict[str, dict[str, Any]], resamples: int = 1000
) -> list[dict[str, Any]]:
    """Compute the accuracy difference of each pair of rows, with its interval and p-value.

    The variance of a difference is the sum of the variance over people, from a paired bootstrap of
    the means over seeds, and the variance over seeds, s^2 / n of each row; its interval is
    Student's, with Welch-Satterthwaite degrees of freedom. (A bootstrap over three seeds would
    underestimate their variance by a third, and call differences real far too often.)

    Args:
        args: The command line.
        rows: As `gather_rows` returns them.
        resamples: Number of bootstrap resamples.

    Returns:
        For each pair: `rows`, the `difference` (first minus second), its 95 % `interval`, `p_value`
        and whether it is `real`: the interval excludes 0. With a row of one seed the interval is
        over people only, and `real` is `None`, as the variance over seeds is unknown.
    """
    dataset = load_split(args.data, TABLES[args.table].split)
    identities = dataset["identity"] if "identity" in dataset.column_names else [None]
    clusters = clusters_of(list(identities) if len(identities) > 1 else [None] * len(dataset))
    cells = {
        name: [
            json.loads(cell_file(args, name, seed).read_text(encoding="utf-8"))
            for seed in row["seeds"]
        ]
        for name, row in rows.items()
    }

    def by_row(weights: np.ndarray) -> dict[str, np.ndarray]:
        # (resamples,): the mean over seeds of the accuracy on the people drawn
        return {
            name: np.mean(
                [weights @ np.array(c["right"]) / (weights @ np.array(c["known"])) for c in row],
                axis=0,
            )
            for name, row in cells.items()
        }

    draws = bootstrap_draws(by_row, clusters, resamples)
    comparisons = []
    for first, second in combinations(rows, 2):
        difference = rows[first]["accuracy"]["mean"] - rows[second]["accuracy"]["mean"]
        variance = float(np.var(draws[first] - draws[second], ddof=1))
        alone = min(len(rows[name]["seeds"]) for name in (first, second)) == 1
        freedom = np.inf
        if not alone:
            pair = [rows[name] for name in (first, second)]
            by_seed = [row["accuracy"]["std"] ** 2 / len(row["seeds"]) for row in pair]
            variance += sum(by_seed)
            terms = (v**2 / (len(row["seeds"]) - 1) for v, row in zip(by_seed, pair, strict=True))
            freedom = variance**2 / max(sum(terms), np.finfo(float).tiny)
        error = max(math.sqrt(variance), np.finfo(float).tiny)
        margin = float(student_t.ppf(0.975, freedom)) * error
        comparisons.append(
            {
                "rows": [first, second],
                "difference": float(difference),
                "interval": [difference - margin, difference + margin],
                "p_value": float(2 * student_t.sf(abs(difference) / error, freedom)),
                "real": None if alone else abs(difference) > margin,
            }
        )
    return comparisons


def plot_frontier(result: dict[str, Any], path: Path) -> None:
    """Plot accuracy against the size of the whole model: a point per row, with its seeds' spread.

    Args:
        result: The result as written to JSON.
        path: The SVG file to write.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    rows = sorted(
        result["rows"].items(),
        key=lambda item: (item[1]["parameters"]["all"], -item[1]["accuracy"]["mean"]),
    )
    frontier: list[tuple[float, float]] = []
    for number, (name, row) in enumerate(rows):
        size, accuracy = row["parameters"]["all"] / 1e6, row["accuracy"]
        if not frontier or accuracy["mean"] > frontier[-1][1]:
            frontier.append((size, accuracy["mean"]))
        axes.errorbar(
            size,
            accuracy["mean"],
            yerr=accuracy["std"],
            fmt="o",
            capsize=3,
            color=colormaps["tab20"](number),
            label=f"{name}: {size:.2f} M, {accuracy['mean']:.4f}",
        )
    axes.plot(*zip(*frontier, strict=True), "--", color="gray", zorder=0, label="the frontier")
    axes.set_xlabel("parameters of the whole model, millions")
    axes.set_ylabel(f"accuracy, {result['split']}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    path.write_bytes(figure_svg(figure))


def main() -> None:
    """Train the missing cells, and write the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="to train: all by default")
    parser.add_argument("--recipe", default="benchmarks/ablation.yaml", metavar="NAME|FILE")
    parser.add_argument("--data", default="data/celeba", metavar="DIR")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="to train")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="the budget of every cell")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), metavar="DIR")
    parser.add_argument("--output", type=Path, metavar="JSON", help="results/ablation_TABLE.json")
    args = parser.parse_args()
    table = TABLES[args.table]
    args.rows = args.rows or list(table.rows)
    args.output = args.output or Path(f"results/ablation_{args.table}.json")
    if unknown := sorted(set(args.rows) - set(table.rows)):
        parser.error(f"unknown row {', '.join(unknown)}; known: {', '.join(table.rows)}")
    # Seed by seed, so that a table with all rows exists early.
    for seed in args.seeds:
        for row in args.rows:
            train_cell(args, row, seed)
            rows = gather_rows(args)
            result = {
                "table": args.table,
                "split": table.split,
                "epochs": args.epochs,
                "rows": rows,
                "comparisons": compare_rows(args, rows),
            }
            write_json(args.output, result)
    plot_frontier(result, args.output.with_suffix(".svg"))
    for name, row in result["rows"].items():
        print(f"{name}: {row['accuracy']['mean']:.4f}, {len(row['seeds'])} seeds")


if __name__ == "__main__":
    sys.exit(finish(main))
