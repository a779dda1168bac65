"""The Markdown report of an evaluation, written from its JSON."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from label2label.evaluation.plots import (
    attribute_bars,
    group_heat_map,
    reliability_plot,
    save_figure,
)

_TITLES = {
    "accuracy": "Accuracy",
    "query_accuracy": "Accuracy of the Attribute Query Network alone",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "average_precision": "Average precision",
    "expected_calibration_error": "Expected calibration error",
}


def write_report(result: Mapping[str, Any], folder: Path) -> Path:
    """Write README.md and its figures (PNG and SVG) into a folder.

    Args:
        result: of an evaluation, as its JSON file holds it.
        folder: made if it does not exist.

    Returns:
        The report's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(attribute_bars(result), folder, "attributes")
    save_figure(reliability_plot(result), folder, "reliability")
    for column, scores in result["groups"].items():
        save_figure(group_heat_map(scores, column), folder, _figure_name(column))
    report = folder / "README.md"
    draft = folder / ".README.md.part"
    draft.write_text(markdown_report(result), encoding="utf-8")
    os.replace(draft, report)
    return report


def markdown_report(result: Mapping[str, Any]) -> str:
    """Tell an evaluation in Markdown, with links to the figures that `write_report` saves.

    Args:
        result: of an evaluation, as its JSON file holds it.

    Returns:
        The report's text.
    """
    model, dataset, bootstrap = result["model"], result["dataset"], result["bootstrap"]
    drawn = "people" if bootstrap["unit"] == "identity" else "images"
    parts = [
        f"# {model['name']} on {dataset['name']}, {dataset['split']}",
        f"{result['num_images']:,} images, {result['num_labels']:,} known labels; unknown ones do "
        f"not count. Intervals are 95 %, from {bootstrap['resamples']:,} resamples of "
        f"{bootstrap['num_units']:,} {drawn}. Answering every attribute with its majority scores "
        f"{_number(result['majority_accuracy'])}.",
        markdown_table(
            ("score", "value", "95 % interval"),
            (
                (title, _number(result[name]), _interval(result["intervals"].get(name)))
                for name, title in _TITLES.items()
                if result[name] is not None
            ),
        ),
        "Accuracy is the mean over images and attributes, the others are means over attributes.",
        "## By attribute",
        "![Accuracy of every attribute](attributes.png)",
        _attribute_table(result["per_attribute"]),
        "## Calibration",
        "![Reliability curve](reliability.png)",
    ]
    for column, scores in result["groups"].items():
        parts += _group_section(column, scores, result["age_adjusted"].get(column))
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay rows out as a Markdown table, all columns but the first aligned to the right.

    Args:
        header: one title a column.
        rows: one text a cell.

    Returns:
        The table's text, without a line break at its end.
    """
    header = list(header)
    rule = [":---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _attribute_table(per_attribute: Mapping[str, Any]) -> str:
    return markdown_table(
        (
            "attribute",
            "accuracy",
            "95 % interval",
            "balanced",
            "F1",
            "AP",
            "ECE",
            "majority",
            "labels",
        ),
        (
            (
                name,
                _number(scores["accuracy"]),
                _interval(scores["interval"]),
                _number(scores["balanced_accuracy"]),
                _number(scores["f1"]),
                _number(scores["average_precision"]),
                _number(scores["expected_calibration_error"]),
                _number(scores["majority_accuracy"]),
                f"{scores['num_labels']:,}",
            )
            for name, scores in per_attribute.items()
        ),
    )


def _group_section(
    column: str, scores: Mapping[str, Any], age_adjusted: Mapping[str, Any] | None
) -> list[str]:
    rows = (
        (
            group + (" (under 30 images: not compared)" if s["small"] else ""),
            f"{s['num_images']:,}",
            _number(s["accuracy"]),
            _interval(s["interval"]),
        )
        for group, s in scores["per_group"].items()
    )
    parts = [
        f"## By {column}",
        markdown_table((column, "images", "accuracy", "95 % interval"), rows),
    ]
    if scores["gap"] is None:
        parts.append("Fewer than two groups have 30 images: there is no gap to measure.")
    else:
        parts.append(
            f"Gap between {scores['best_group']} and {scores['worst_group']}: "
            f"{_number(scores['gap'])} {_interval(scores['gap_interval'])}."
        )
    if scores["num_unknown"]:
        parts.append(f"{scores['num_unknown']:,} images without a known {column} are left out.")
    if age_adjusted and age_adjusted["overall"]:
        parts += _age_adjusted_section(age_adjusted)
    parts += [
        f"![Accuracy by {column}]({_figure_name(column)}.png)",
        markdown_table(
            ("attribute", "gap", "demographic parity difference", "equalised odds difference"),
            (
                (
                    name,
                    _number(s["gap"]),
                    _number(s["demographic_parity_difference"]),
                    _number(s["equalized_odds_difference"]),
                )
                for name, s in scores["per_attribute"].items()
            ),
        ),
    ]
    return parts


def _age_adjusted_section(age_adjusted: Mapping[str, Any]) -> list[str]:
    every = {"all attributes": age_adjusted["overall"], **age_adjusted["per_attribute"]}
    left_out = age_adjusted["overall"]["strata_left_out"]
    return [
        "As if every group had the same ages (post-stratified by age band"
        + (f"; too few images in {', '.join(left_out)}" if left_out else "")
        + "):",
        markdown_table(
            ("attribute", "worst group", "best group", "gap", "95 % interval"),
            (
                (
                    name,
                    f"{s['worst_group']} {_number(s['per_group'][s['worst_group']]['accuracy'])}",
                    f"{s['best_group']} {_number(s['per_group'][s['best_group']]['accuracy'])}",
                    _number(s["gap"]),
                    _interval(s["gap_interval"]),
                )
                for name, s in every.items()
            ),
        ),
    ]


def _figure_name(column: str) -> str:
    return "group-" + re.sub(r"\W+", "-", column).strip("-").lower()


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(ends: list[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return "–"
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"
