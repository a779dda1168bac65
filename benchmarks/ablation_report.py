"""The ablation's table in Markdown, and its picture of accuracy over size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from label2label.evaluation.plots import figure_svg
from matplotlib import colormaps
from matplotlib.figure import Figure

SCORES = ("accuracy", "balanced_accuracy", "query_accuracy")


def markdown(result: dict[str, Any]) -> str:
    """The table and the differences that are real, in Markdown.

    Args:
        result: As it is written.

    Returns:
        The text.
    """
    head = ("accuracy", "balanced", "query network", "backbone M", "head M", "all M", "GFLOPs")
    lines = [f"| {' | '.join(('', *head, 's/epoch', 'seeds'))} |", "| :--- |" + " ---: |" * 9]
    for name, row in result["rows"].items():
        cells = [name]
        for score in SCORES:
            if score not in row:
                cells.append("")
                continue
            spread = row[score]["std"]
            cells.append(f"{row[score]['mean']:.4f}" + (f" ± {spread:.4f}" if spread else ""))
        cells += [f"{row['parameters'][part] / 1e6:.2f}" for part in ("backbone", "head", "all")]
        cells += [f"{row['flops'] / 1e9:.2f}", f"{row['seconds_per_epoch']:.0f}"]
        lines.append(f"| {' | '.join([*cells, str(len(row['seeds']))])} |")
    lines.append("")
    for pair in result["comparisons"]:
        low, high = pair["interval"]
        what = f"{pair['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
        verdict = {True: "real", False: "within chance", None: "one seed"}[pair["real"]]
        lines.append(f"- {pair['rows'][0]} against {pair['rows'][1]}: {what}, {verdict}")
    return "\n".join(lines)


def plot_frontier(result: dict[str, Any], path: Path) -> None:
    """Draw accuracy over the size of the whole model, each row a point with its seeds' spread.

    Args:
        result: As it is written.
        path: Of the picture, an SVG.
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
