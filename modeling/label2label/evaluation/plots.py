"""Figures of an evaluation, drawn from its JSON and saved as PNG and SVG."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GRAY = "#2b6cb0", "#dd6b20", "#8492a6"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    # A fixed salt keeps the SVG the same from run to run, so that it can be committed.
    "svg.hashsalt": "label2label",
}


def attribute_bars(result: Mapping[str, Any]) -> Figure:
    """Accuracy of every attribute with its 95 % interval, beside the majority's accuracy.

    Args:
        result: of `score_predictions`.

    Returns:
        A figure with one bar an attribute, most accurate on top. Attributes without known labels
        are left out.
    """
    rows = [(n, s) for n, s in result["per_attribute"].items() if s["accuracy"] is not None]
    rows.sort(key=lambda row: row[1]["accuracy"])
    accuracy = np.array([s["accuracy"] for _, s in rows])
    interval = np.array([s["interval"] for _, s in rows]).reshape(-1, 2).T
    y = np.arange(len(rows))
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 1.2 + 0.2 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(y, accuracy, color=BLUE, height=0.7, label="model (95 % interval)")
        axes.errorbar(
            accuracy,
            y,
            xerr=np.abs(interval - accuracy),
            fmt="none",
            ecolor="black",
            elinewidth=0.8,
        )
        majority = [s["majority_accuracy"] for _, s in rows]
        axes.plot(
            majority,
            y,
            "|",
            color=ORANGE,
            markersize=9,
            markeredgewidth=2,
            label="always the majority",
        )
        axes.set_yticks(y, [n.replace("_", " ") for n, _ in rows])
        axes.set_xlim(max(0.0, min([*majority, *interval[0], 1.0]) - 0.05), 1)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("accuracy")
        axes.grid(axis="x", color="white", linewidth=0.6)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def group_heat_map(scores: Mapping[str, Any], column: str) -> Figure:
    """Accuracy of every attribute in every group; figures on fewer than 30 images are in gray.

    Args:
        scores: of one group column, as `group_scores` returns them.
        column: its name, for the title.

    Returns:
        A figure with a row an attribute, the overall accuracy on top, and a column a group.
    """
    groups = list(scores["per_group"])
    sizes = [scores["per_group"][g]["num_images"] for g in groups]
    rows = {"all attributes": {g: scores["per_group"][g]["accuracy"] for g in groups}}
    counts = {"all attributes": dict(zip(groups, sizes, strict=True))}
    for name, attribute in scores["per_attribute"].items():
        rows[name.replace("_", " ")] = attribute["accuracy"]
        counts[name.replace("_", " ")] = attribute["num_images"]
    values = np.array(
        [[np.nan if row.get(g) is None else row[g] for g in groups] for row in rows.values()]
    )
    small = np.array([[count.get(g, 0) < 30 for g in groups] for count in counts.values()])
    with rc_context(STYLE):
        size = (2.2 + 0.8 * len(groups), 1.3 + 0.22 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        shown = np.ma.masked_where(small | np.isnan(values), values)
        image = axes.imshow(shown, cmap="Blues", vmin=0.5, vmax=1, aspect="auto")
        for (row, group), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = value > 0.75 and not small[row, group]
                color = "white" if dark else GRAY if small[row, group] else "black"
                axes.text(group, row, f"{value:.2f}", ha="center", va="center", color=color)
        labels = [
            "{}\n({:,})".format(g.replace(", ", "\n"), n)
            for g, n in zip(groups, sizes, strict=True)
        ]
        axes.set_xticks(range(len(groups)), labels)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"accuracy by {column} (images)")
        figure.colorbar(image, ax=axes, shrink=0.6)
    return figure


def reliability_plot(curves: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """How often "present" is true at each predicted probability, over all attributes.

    Args:
        curves: name to what `reliability_curve` returns; the last is drawn on top.
        title: of the figure.

    Returns:
        A figure with the curves beside the diagonal, and the last one's share of predictions in
        each bin.
    """
    styles = [(ORANGE, "s--"), (BLUE, "o-")][-len(curves) :]
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2, 4.8), layout="constrained")
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, label="perfectly calibrated")
        for (name, curve), (color, style) in zip(curves.items(), styles, strict=True):
            axes.plot(curve["predicted"], curve["observed"], style, color=color, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed share of “present”", title=title)
        axes.legend(frameon=False, loc="upper left")
        last = list(curves.values())[-1]
        share = np.array(last["count"]) / max(1, sum(last["count"]))
        counts.bar(last["predicted"], share, width=0.04, color=BLUE)
        counts.set(xlabel="predicted probability of “present”", ylabel="share")
    return figure


def gap_plot(comparison: Mapping[str, Any], column: str, after: str, before: str) -> Figure:
    """Accuracy of every group by two models, and the gap of each between its worst and best group.

    Args:
        comparison: of one group column, as `compare_predictions` returns it.
        column: its name, for the title.
        after: name of the model.
        before: name of the other, which it is compared with.

    Returns:
        A figure with a line a group from one model's accuracy to the other's, lowest before at the
        bottom; groups under 30 images are gray.
    """
    rows = [(g, s) for g, s in comparison["per_group"].items() if s["difference"] is not None]
    rows.sort(key=lambda row: row[1]["other"])
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 1.7 + 0.35 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, (_, s) in enumerate(rows):
            colors = (GRAY, GRAY) if s["small"] else (ORANGE, BLUE)
            axes.plot([s["other"], s["model"]], [y, y], color=GRAY, linewidth=2, zorder=1)
            axes.scatter(s["other"], y, s=55, color=colors[0], marker="o", zorder=2)
            axes.scatter(s["model"], y, s=55, color=colors[1], marker="D", zorder=3)
        names = [f"{g} ({s['num_images']:,})" for g, s in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.margins(x=0.08)
        axes.set_xlabel("accuracy")
        axes.grid(axis="x", color="#e2e8f0", linewidth=0.6)
        axes.set_axisbelow(True)
        gap = comparison["gap"]
        titles = [before, after]
        if gap:
            titles = [f"{before}, gap {gap['other']:.3f}", f"{after}, gap {gap['model']:.3f}"]
        handles = [
            axes.scatter([], [], s=55, color=color, marker=marker, label=title)
            for title, color, marker in zip(titles, (ORANGE, BLUE), ("o", "D"), strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=1, frameon=False)
        axes.set_title(f"accuracy by {column} (images)")
    return figure


def figure_svg(figure: Figure) -> bytes:
    """A figure as SVG, the same from run to run.

    Args:
        figure: to draw.

    Returns:
        The file's content.
    """
    file = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Save a figure as NAME.png, of few colours and therefore small, and NAME.svg.

    Args:
        figure: to save.
        folder: existing folder to save it in.
        name: file name without extension.
    """
    drawn = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(drawn, dpi=160)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(folder / f"{name}.png", optimize=True)
    (folder / f"{name}.svg").write_bytes(figure_svg(figure))
