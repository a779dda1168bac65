"""Write the Markdown report of an evaluation and its figures, from `report_template.md`."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from label2label.evaluation.plots import (
    attribute_bars,
    gap_plot,
    group_heat_map,
    printable,
    reliability_plot,
    save_figure,
)
from label2label.files import write_whole

REPORT = "README.md"  # in the report's folder

_TITLES = {
    "accuracy": "Accuracy",
    "query_accuracy": "Accuracy of the Attribute Query Network alone",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "average_precision": "Average precision",
    "expected_calibration_error": "Expected calibration error",
}


def write_report(result: Mapping[str, Any], folder: Path) -> Path:
    """Write README.md and the figures of an evaluation into a folder; return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in report_figures(result).items():
        save_figure(figure, folder, name)
    report = folder / REPORT
    write_whole(report, markdown_report(result))
    return report


def report_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the figures that a report links to, keyed by file name without suffix."""
    error = readable(result["expected_calibration_error"])
    title = f"expected calibration error {error}\n(mean over attributes)"
    figures = {
        "attributes": attribute_bars(result),
        "reliability": reliability_plot(result["reliability"], title),
    }
    comparison, slugs = result["comparison"], _slugs(result)
    for column, scores in result["groups"].items():
        if not scores["per_group"]:
            continue
        slug = slugs[column]
        figures[f"group-{slug}"] = group_heat_map(scores, column)
        older = result["minimum_age"]
        if older and older["groups"][column]["per_group"]:
            title = f"{column}, age {older['years']} and over"
            figures[f"older-{slug}"] = group_heat_map(older["groups"][column], title)
        if comparison:
            names = {"after": result["model"]["name"], "before": comparison["model"]["name"]}
            figures[f"gap-{slug}"] = gap_plot(comparison["groups"][column], column, **names)
    return figures


def _slugs(result: Mapping[str, Any]) -> dict[str, str]:
    """Name each column's figures: by its position if its slug is empty or not unique."""
    own = {c: re.sub(r"[^a-z0-9]+", "-", c.lower()).strip("-") for c in result["groups"]}
    taken = list(own.values())
    return {
        column: slug if slug and taken.count(slug) == 1 else str(place)
        for place, (column, slug) in enumerate(own.items(), start=1)
    }


def markdown_report(result: Mapping[str, Any]) -> str:
    """Render an evaluation as Markdown, with links to the figures that `write_report` saves."""
    environment = jinja2.Environment(
        autoescape=True,  # macros then return Markup, which `readable` does not escape again
        finalize=readable,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["signed"] = _signed
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    template = Path(__file__).with_name("report_template.md").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        result,
        result=result,
        titles=_TITLES,
        slugs=_slugs(result),
        widest_gap=_widest_gap,
        accuracies=lambda s: {group: of["accuracy"] for group, of in s["per_group"].items()},
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _widest_gap(scores: Mapping[str, Any]) -> str | None:
    gaps = {n: s["gap"] for n, s in scores["per_attribute"].items() if s["gap"] is not None}
    return max(gaps, key=lambda name: gaps[name]) if len(gaps) > 1 else None


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format rows as a Markdown table with all columns but the first right-aligned."""
    header = list(header)
    rule = [":---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(map(plain, line)) + " |" for line in lines)


def readable(value: Any) -> Markup:
    """Format a JSON value for a reader: four decimals, an interval, or text without markup."""
    if isinstance(value, Markup):
        return value
    if value is None or value == [None, None]:
        return Markup("–")
    if isinstance(value, float):
        return Markup(f"{value:.4f}")
    if isinstance(value, int):
        return Markup(f"{value:,}")
    if isinstance(value, (list, tuple)):
        return Markup("[{:.4f}, {:.4f}]".format(*value))
    return Markup(plain(value))


def _signed(value: float | list[float] | None) -> str | None:
    if value is None or value == [None, None]:
        return None
    if isinstance(value, list):
        return "[{:+.4f}, {:+.4f}]".format(*value)
    return f"{value:+.4f}"


def plain(text: str) -> str:
    """Put a user's text on one line and escape all Markdown, HTML and math in it."""
    # Underscores within a word and lone brackets are no markup; intervals contain brackets.
    special = r"[\\`*{}|<>&$#~^]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]"
    return re.sub(special, lambda match: f"&#{ord(match.group())};", printable(text))
