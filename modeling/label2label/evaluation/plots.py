"""Draw the figures of an evaluation as SVG, with text rendered in the browser's fonts.

Names of groups and attributes come from the user: they are never parsed as markup, and scripts that
matplotlib's default font lacks (Hangul) use another installed font, or the browser's.
"""

import io
import textwrap
import unicodedata
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure

from label2label.errors import printable

BLUE, ORANGE, GRAY = "#2b6cb0", "#dd6b20", "#8492a6"
_WIDE_FONTS = [
    *("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo"),
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Unifont", "Arial Unicode MS"),
]
_WIDE_FONTS = [name for name in _WIDE_FONTS if name in font_manager.get_font_names()]
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", *_WIDE_FONTS],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    # A fixed salt gives the same SVG in every run, so that it can be committed.
    "svg.hashsalt": "label2label",
}


@rc_context(STYLE)
def attribute_bars(result: Mapping[str, Any]) -> Figure:
    """Draw accuracy, 95 % interval and majority-class baseline per attribute with known labels."""
    rows = [(n, s) for n, s in result["per_attribute"].items() if s["accuracy"] is not None]
    rows.sort(key=lambda row: row[1]["accuracy"])
    accuracy = np.array([s["accuracy"] for _, s in rows])
    interval = np.array([s["interval"] for _, s in rows]).reshape(-1, 2).T
    majority = [s["majority_accuracy"] for _, s in rows]
    y = np.arange(len(rows))
    figure = Figure(figsize=(6.5, 1.2 + 0.2 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(y, accuracy, color=BLUE, height=0.7, label="model (95 % interval)")
    spread = np.abs(interval - accuracy)
    axes.errorbar(accuracy, y, xerr=spread, fmt="none", ecolor="black", elinewidth=0.8)
    mark: Any = {"color": ORANGE, "markersize": 9, "markeredgewidth": 2}
    axes.plot(majority, y, "|", label="majority-class baseline", **mark)
    axes.set_yticks(y, [row_label(n) for n, _ in rows])
    axes.set_xlim(max(0.0, min([*majority, *interval[0], 1.0]) - 0.05), 1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("accuracy")
    axes.grid(axis="x", color="white", linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


@rc_context(STYLE)
def group_heat_map(scores: Mapping[str, Any], title: str) -> Figure:
    """Draw `group_scores` per attribute (row) and group (column), gray if under 30 images."""
    groups = list(scores["per_group"])
    of_groups = list(scores["per_group"].values())
    rows = {"all attributes": [(s["accuracy"], s["num_images"]) for s in of_groups]}
    for name, attribute in scores["per_attribute"].items():
        accuracy, images = attribute["accuracy"], attribute["num_images"]
        rows[row_label(name)] = [(accuracy.get(g), images.get(g, 0)) for g in groups]
    cells = np.array(list(rows.values()), dtype=float)  # (rows, groups, 2), None becomes NaN
    values, small = cells[..., 0], cells[..., 1] < 30
    labels = [
        "\n".join([*_lines(g), f"({s['num_images']:,})"])
        for g, s in zip(groups, of_groups, strict=True)
    ]
    size = (2.2 + 0.85 * len(groups), 1.3 + 0.22 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    shown = np.ma.masked_where(small | np.isnan(values), values)
    image = axes.imshow(shown, cmap="Blues", vmin=0.5, vmax=1, aspect="auto")
    for (row, group), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value > 0.75 and not small[row, group]
            color = "white" if dark else GRAY if small[row, group] else "black"
            axes.text(group, row, f"{value:.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(groups)), labels)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"accuracy by {printable(title)} (images)")
    figure.colorbar(image, ax=axes, shrink=0.6)
    return figure


@rc_context(STYLE)
def reliability_plot(curve: Mapping[str, Any], title: str) -> Figure:
    """Draw a `reliability_curve`, and below it the share of predictions in each bin."""
    figure = Figure(figsize=(4.2, 4.8), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, label="perfectly calibrated")
    axes.plot(curve["predicted"], curve["observed"], "o-", color=BLUE, label="model")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed share of “present”", title=title)
    axes.legend(frameon=False, loc="upper left")
    share = np.array(curve["count"]) / max(1, sum(curve["count"]))
    counts.bar(curve["predicted"], share, width=0.04, color=BLUE)
    counts.set(xlabel="predicted probability of “present”", ylabel="share")
    return figure


@rc_context(STYLE)
def gap_plot(comparison: Mapping[str, Any], column: str, after: str, before: str) -> Figure:
    """Draw the accuracy per group of two models, from `compare_groups`, and each model's gap.

    Groups with fewer than 30 images are gray. `after` and `before` name the two models.
    """
    rows = [(g, s) for g, s in comparison["per_group"].items() if s["difference"] is not None]
    rows.sort(key=lambda row: row[1]["other"])
    figure = Figure(figsize=(6.5, 1.7 + 0.35 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for y, (_, s) in enumerate(rows):
        colors = (GRAY, GRAY) if s["small"] else (ORANGE, BLUE)
        axes.plot([s["other"], s["model"]], [y, y], color=GRAY, linewidth=2, zorder=1)
        axes.scatter(s["other"], y, s=55, color=colors[0], marker="o", zorder=2)
        axes.scatter(s["model"], y, s=55, color=colors[1], marker="D", zorder=3)
    axes.set_yticks(range(len(rows)), [row_label(g, f" ({s['num_images']:,})") for g, s in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.margins(x=0.08)
    axes.set_xlabel("accuracy")
    axes.grid(axis="x", color="#e2e8f0", linewidth=0.6)
    axes.set_axisbelow(True)
    gap = comparison["gap"]
    handles = [
        axes.scatter([], [], s=55, color=color, marker=marker)
        for color, marker in ((ORANGE, "o"), (BLUE, "D"))
    ]
    titles = [
        # "model " first, because matplotlib hides labels that begin with an underscore.
        f"model {printable(name)}" + (f", gap {gap[side]:.3f}" if gap else "")
        for name, side in ((before, "other"), (after, "model"))
    ]
    figure.legend(handles, titles, loc="outside upper center", ncols=1, frameon=False)
    axes.set_title(f"accuracy by {printable(column)} (images)")
    return figure


def row_label(name: str, more: str = "") -> str:
    """Shorten a name to a label at the left of a plot."""
    label = printable(name).replace("_", " ")
    label = label if len(label) <= 40 else label[:39] + "…"
    return _room(label) + label + more


def _lines(name: str) -> list[str]:
    """Wrap a name into the lines of a column's label, at most four."""
    wide = max(1, sum(map(_is_wide, name))) / max(1, len(name))
    lines = textwrap.wrap(printable(name).replace(", ", ",\n"), max(2, round(11 / (1 + wide))))
    lines = lines if len(lines) <= 4 else [*lines[:3], "…"]
    return [line + _room(line) for line in lines] or [""]


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _room(text: str) -> str:
    """Return spaces that reserve room for wide characters whose missing-glyph box is narrower."""
    return "" if _WIDE_FONTS else "\u00a0" * round(1.26 * sum(map(_is_wide, text)))


def figure_svg(figure: Figure) -> bytes:
    """Render a figure as SVG that is identical in every run."""
    file = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        # The browser draws glyphs that are missing here.
        warnings.filterwarnings("ignore", "Glyph .* missing from (current )?font")
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
