"""Render an evaluation as one HTML page, from `report_template.html`, and draw its figures."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from label2label.errors import printable
from label2label.evaluation import format_p_value
from label2label.evaluation.plots import (
    attribute_bars,
    figure_svg,
    gap_plot,
    group_heat_map,
    reliability_plot,
)

_TITLES = {
    "accuracy": "Accuracy",
    "query_accuracy": "Accuracy of the Attribute Query Network alone",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "average_precision": "Average precision",
    "expected_calibration_error": "Expected calibration error",
}


def report_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the figures of an evaluation: `attributes`, `reliability`, and by group column."""
    error = readable(result["expected_calibration_error"])
    title = f"expected calibration error {error}\n(mean over attributes)"
    figures = {
        "attributes": attribute_bars(result),
        "reliability": reliability_plot(result["reliability"], title),
    }
    comparison = result["comparison"]
    for column, scores in result["groups"].items():
        figures[f"group-{column}"] = group_heat_map(scores, column)
        if comparison:
            names = {"after": result["model"]["name"], "before": comparison["model"]["name"]}
            figures[f"gap-{column}"] = gap_plot(comparison["groups"][column], column, **names)
    return figures


def html_page(result: Mapping[str, Any], notices: Sequence[str] = ()) -> str:
    """Render an evaluation as a self-contained page with styles, figures and numbers.

    Args:
        result: Result of `evaluate_models`, with its `dataset` filled in.
        notices: Notices to show before the results.

    Returns:
        An HTML document, in which names from the data are escaped.
    """
    environment = jinja2.Environment(
        autoescape=True,
        finalize=readable,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["signed"] = _signed
    environment.filters["p_value"] = format_p_value
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    template = Path(__file__).with_name("report_template.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        result,
        result=result,
        notices=notices,
        titles=_TITLES,
        figures=report_figures(result),
        image=_image,
        widest_gap=_widest_gap,
        accuracies=lambda s: {group: of["accuracy"] for group, of in s["per_group"].items()},
        named=lambda group, of: None if group is None else f"{group} {readable(of[group])}",
        numbers=base64.b64encode(json.dumps(result, allow_nan=False).encode()).decode(),
    )


def _image(figure: Figure, title: str) -> Markup:
    source = base64.b64encode(figure_svg(figure)).decode()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Markup(
        f'<img alt="{escape(printable(title))}" width="{width}" height="{height}" '
        f'src="data:image/svg+xml;base64,{source}">'
    )


def _widest_gap(scores: Mapping[str, Any]) -> str | None:
    gaps = {n: s["gap"] for n, s in scores["per_attribute"].items() if s["gap"] is not None}
    return max(gaps, key=lambda name: gaps[name]) if len(gaps) > 1 else None


def readable(value: Any) -> str:
    """Format a JSON value for a reader: four decimals, an interval, or text on one line."""
    if value is None or value == [None, None]:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return "[{:.4f}, {:.4f}]".format(*value)
    return value if isinstance(value, Markup) else printable(value)


def _signed(value: float | list[float] | None) -> str | None:
    if value is None or value == [None, None]:
        return None
    if isinstance(value, list):
        return "[{:+.4f}, {:+.4f}]".format(*value)
    return f"{value:+.4f}"
