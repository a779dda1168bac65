"""The benchmark's JSON as a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from label2label.export.benchmark_answers import TOLERANCE

_OURS = ("ours-", "tiny-")  # how the names of our models' rows begin
_BLUE, _GRAY = "#2b6cb0", "#a0aec0"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "label2label",
}


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of a benchmark: one of the models, and one for each number of threads and images.

    Args:
        result: of `run_benchmark`.

    Returns:
        Markdown.
    """
    lines = [
        "| model | runtime | input | parameters | FLOPs | file | accuracy | differs by |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"].values():
        accuracy = f"{100 * row['accuracy']['accuracy']:.2f} %" if row["accuracy"] else ""
        difference = row["largest_difference"]
        differs = "" if difference is None else f"{difference:.0e}"
        lines.append(
            f"| {row['title']} | {row['runtime']} | {row['image_size']}x{row['image_size']} "
            f"| {row['parameters'] / 1e6:.2f} M | {row['flops'] / 1e9:.2f} G "
            f"| {row['file_bytes'] / 1e6:.2f} MB | {accuracy} | {differs} |"
        )
    lines += [
        "",
        "Differs by: the greatest difference of a probability from PyTorch's in float32, on noise, "
        "over all threads and batches. An accuracy is of the file by PyTorch or, of ONNX, by ONNX "
        f"Runtime, and is given where a row's answers are theirs, within {TOLERANCE}.",
    ]
    settings = {(m["threads"], m["batch"]): None for r in _measured(result) for m in r[1]}
    for threads, batch in settings:
        lines += ["", f"{threads} thread{'s' * (threads > 1)}, batch {batch}:", ""]
        lines += _speeds(result, threads, batch)
    for row in result["rows"].values():
        if "error" in row:
            said = "" if row["measurements"] else "did not run: "
            lines += ["", f"{row['title']}, {row['runtime']}: {said}{row['error']}"]
    profile = result["profile"]
    backbone = profile["backbone"]
    lines += [
        "",
        f"One thread multiplies matrices at {profile['matmul_gflops']:.0f} GFLOP/s; ONNX Runtime "
        f"runs the backbone at {backbone['gflops']:.0f}, {100 * backbone['fraction']:.0f} % of it:",
        "",
        "| operator | count | ms | GFLOP/s | of the rate |",
        "|---|--:|--:|--:|--:|",
    ]
    for x in backbone["operators"]:
        rate = f"{x['gflops']:.0f} | {100 * x['fraction']:.0f} %" if "gflops" in x else "|"
        lines.append(f"| {x['operator']} | {x['count']} | {x['milliseconds']:.3f} | {rate} |")
    return "\n".join(lines) + "\n"


def _measured(result: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[dict[str, Any]]]]:
    return [(row, row["measurements"]) for row in result["rows"].values() if row["measurements"]]


def _speeds(result: Mapping[str, Any], threads: int, batch: int) -> list[str]:
    reference = next(iter(result["ratios"]), None) if (threads, batch) == (1, 1) else None
    head = "| model | runtime | p50 ms | p95 ms | images/s | CPU ms/image | memory | load |"
    align = "|---|---|--:|--:|--:|--:|--:|--:|"
    if reference:
        head, align = f"{head} times {reference} |", f"{align}--:|"
    lines = [head, align]
    for name, row in result["rows"].items():
        for m in row["measurements"]:
            if (m["threads"], m["batch"]) != (threads, batch):
                continue
            load = m["import_seconds"] + m["load_seconds"] + m["first_prediction_seconds"]
            line = (
                f"| {row['title']}, {row['image_size']} | {row['runtime']} "
                f"| {m['latency_p50_ms']:.2f} | {m['latency_p95_ms']:.2f} "
                f"| {m['images_per_second']:.1f} | {1e3 * m['cpu_seconds_per_image']:.2f} "
                f"| {m['peak_memory_bytes'] / 1e6:.0f} MB | {load:.2f} s |"
            )
            if reference:
                line += f" {result['ratios'][reference][name]['latency']:.2f} |"
            lines.append(line)
    return lines


def plot(result: Mapping[str, Any]) -> Figure:
    """Latency of one image on one thread, fastest on top, with the range of the rounds' medians.

    Args:
        result: of `run_benchmark`.

    Returns:
        A figure with a logarithmic axis; our rows are coloured.
    """
    bars = []
    for name, row in result["rows"].items():
        for m in row["measurements"]:
            if (m["threads"], m["batch"]) == (1, 1):
                title = f"{row['title']}, {row['image_size']}x{row['image_size']}"
                bars.append((m["latency_p50_ms"], m["round_medians_ms"], name, title, row))
    bars.sort(key=lambda bar: -bar[0])
    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 1 + 0.34 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        for y, (median, (low, high), name, _, row) in enumerate(bars):
            axes.barh(y, median, color=_BLUE if name.startswith(_OURS) else _GRAY, height=0.7)
            axes.errorbar(
                median,
                y,
                xerr=[[median - min(low, median)], [max(high, median) - median]],
                fmt="none",
                ecolor="black",
                elinewidth=0.8,
            )
            axes.annotate(
                f"{median:.3g} ms, {row['file_bytes'] / 1e6:.3g} MB",
                (max(high, median), y),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(range(len(bars)), [f"{bar[3]}\n{bar[4]['runtime']}" for bar in bars])
        axes.tick_params(axis="y", labelsize=7.5)
        axes.set_xscale("log")
        axes.margins(x=0.25, y=0.02)
        axes.set_xlabel("milliseconds for one image on one thread (log scale)")
    return figure
