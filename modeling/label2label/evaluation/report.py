"""The Markdown report of an evaluation, written from its JSON, and its figures."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from label2label.evaluation.plots import (
    attribute_bars,
    gap_plot,
    group_heat_map,
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
    """Write README.md and its figures (PNG and SVG) into a folder.

    Args:
        result: of an evaluation, as its JSON file holds it.
        folder: made if it does not exist.

    Returns:
        The report's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in report_figures(result).items():
        save_figure(figure, folder, name)
    report = folder / REPORT
    write_whole(report, markdown_report(result))
    return report


def report_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that a report links to.

    Args:
        result: of an evaluation, as its JSON file holds it.

    Returns:
        Figure by file name without its ending.
    """
    error = _number(result["expected_calibration_error"])
    title = f"expected calibration error {error}\n(mean over attributes)"
    figures = {
        "attributes": attribute_bars(result),
        "reliability": reliability_plot({"model": result["reliability"]}, title),
    }
    comparison = result["comparison"]
    for column, scores in result["groups"].items():
        if not scores["per_group"]:
            continue
        figures[_figure_name("group", column)] = group_heat_map(scores, column)
        older = result["minimum_age"]
        if older and older["groups"][column]["per_group"]:
            title = f"{column}, age {older['years']} and over"
            figures[_figure_name("older", column)] = group_heat_map(older["groups"][column], title)
        if comparison:
            figures[_figure_name("gap", column)] = gap_plot(
                comparison["groups"][column],
                column,
                after=result["model"]["name"],
                before=comparison["model"]["name"],
            )
    return figures


def markdown_report(result: Mapping[str, Any]) -> str:
    """Tell an evaluation in Markdown, with links to the figures that `write_report` saves.

    Args:
        result: of an evaluation, as its JSON file holds it.

    Returns:
        The report's text.
    """
    model, dataset, bootstrap = result["model"], result["dataset"], result["bootstrap"]
    drawn = "people" if bootstrap["unit"] == "identity" else "images"
    split = f", {dataset['split']}" if dataset["split"] else ""
    parts = [
        plain(f"# {model['name']} on {dataset['name']}{split}"),
        *_summary(result),
        "## Overall",
        markdown_table(
            ("score", "value", "95 % interval"),
            (
                (title, _number(result[name]), _interval(result["intervals"].get(name)))
                for name, title in _TITLES.items()
                if result[name] is not None
            ),
        ),
        f"{result['num_images']:,} images, {result['num_labels']:,} known labels; unknown ones do "
        f"not count. Intervals are 95 %, from {bootstrap['resamples']:,} resamples of "
        f"{bootstrap['num_units']:,} {drawn}. Answering every attribute with its majority scores "
        f"{_number(result['majority_accuracy'])}. Accuracy is the mean over images and attributes, "
        "the others are means over attributes; yes is a probability above 0.5.",
    ]
    if result["comparison"]:
        parts += _comparison_section(result)
    for column, scores in result["groups"].items():
        parts += _group_section(column, scores, result)
    parts += [
        "## By attribute",
        "![Accuracy of every attribute](attributes.png)",
        _attribute_table(result["per_attribute"]),
    ]
    if result["missing_attributes"]:
        parts.append(f"Without a known label here: {_names(result['missing_attributes'])}.")
    if result["unscored_columns"]:
        parts.append(
            f"Labels that the model has no attribute for: {_names(result['unscored_columns'])}."
        )
    parts += ["## Calibration", "![Reliability curve](reliability.png)"]
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
    return "\n".join("| " + " | ".join(map(plain, line)) + " |" for line in lines)


def _summary(result: Mapping[str, Any]) -> list[str]:
    points = [
        f"Accuracy {_with_interval(result['accuracy'], result['intervals']['accuracy'])} on "
        f"{result['num_images']:,} images."
    ]
    if result["comparison"]:
        accuracy = result["comparison"]["overall"]["accuracy"]
        points.append(
            f"{_signed(accuracy['difference'])} against {result['comparison']['model']['name']} "
            f"({_number(accuracy['other'])}), 95 % interval {_signed_interval(accuracy)}."
        )
    for column, scores in result["groups"].items():
        if scores["gap"] is None:
            points.append(f"By {column}: fewer than two groups have 30 images, so no gap.")
            continue
        point = (
            f"By {column}: {scores['worst_group']} is worst and {scores['best_group']} best, "
            f"{_gap(scores)} apart"
        )
        adjusted = (result["age_adjusted"].get(column) or {}).get("overall")
        if adjusted:
            point += (
                f"; at equal ages {adjusted['worst_group']} and {adjusted['best_group']}, "
                f"{_gap(adjusted)}"
            )
        points.append(point + ".")
        gaps = {n: s for n, s in scores["per_attribute"].items() if s["gap"] is not None}
        if len(gaps) > 1:
            widest = max(gaps, key=lambda name: gaps[name]["gap"])
            points.append(
                f"Widest for {widest}: {gaps[widest]['worst_group']} to "
                f"{gaps[widest]['best_group']}, {_gap(gaps[widest])}."
            )
    return ["\n".join(f"- {plain(point)}" for point in points)]


def _attribute_table(per_attribute: Mapping[str, Any]) -> str:
    header = ("attribute", "accuracy", "95 % interval", "balanced", "F1", "AP", "ECE")
    return markdown_table(
        (*header, "majority", "labels", "present"),
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
                f"{scores['num_present']:,}",
            )
            for name, scores in per_attribute.items()
            if scores["num_labels"]
        ),
    )


def _comparison_section(result: Mapping[str, Any]) -> list[str]:
    comparison = result["comparison"]
    before, after = comparison["model"]["name"], result["model"]["name"]
    rows = [(_TITLES[n], n_scores) for n, n_scores in comparison["overall"].items()]
    rows += list(comparison["per_attribute"].items())
    parts = [
        plain(f"## Against {before}"),
        markdown_table(
            ("score", before, after, "difference", "95 % interval", "p"),
            (_comparison_row(title, scores) for title, scores in rows),
        ),
        "Attributes are compared by accuracy. Intervals and p are of the paired bootstrap: every "
        "resample draws the same images for both models.",
    ]
    if comparison["attributes_left_out"]:
        parts.append(
            f"Not of both models, and left out: {_names(comparison['attributes_left_out'])}."
        )
    return parts


def _comparison_row(title: str, scores: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        title,
        _number(scores["other"]),
        _number(scores["model"]),
        _signed(scores["difference"]),
        _signed_interval(scores),
        _number(scores["p_value"]),
    )


def _group_section(column: str, scores: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    older = result["minimum_age"]
    older_groups = older["groups"][column]["per_group"] if older else {}
    header = [column, "images", "accuracy", "95 % interval"]
    if older:
        header += [f"images from age {older['years']}", "accuracy", "95 % interval"]
    parts = [
        plain(f"## By {column}"),
        markdown_table(
            header,
            (
                (
                    group + (" (under 30 images: not compared)" if s["small"] else ""),
                    *_counted(s),
                    *(_counted(older_groups.get(group)) if older else ()),
                )
                for group, s in scores["per_group"].items()
            ),
        ),
    ]
    if scores["gap"] is None:
        parts.append("Fewer than two groups have 30 images: there is no gap to measure.")
    else:
        parts.append(
            plain(f"Gap between {scores['best_group']} and {scores['worst_group']}: ")
            + f" {_gap(scores)}."
        )
        parts.append(
            "By chance: the gap that groups of these sizes show on average where a model does "
            "equally well on all of them. p: of Wald's test that it does; of twenty attributes one "
            "has a p below 0.05 by chance."
        )
    if scores["num_unknown"]:
        parts.append(
            f"{scores['num_unknown']:,} images without a known {plain(column)} are left out."
        )
    if result["comparison"] and scores["per_group"]:
        parts += _group_comparison(column, result)
    age_adjusted = result["age_adjusted"].get(column)
    if age_adjusted and age_adjusted["overall"]:
        parts += _age_adjusted_section(age_adjusted)
    if scores["per_attribute"]:
        parts += [
            f"![Accuracy by {plain(column)}]({_figure_name('group', column)}.png)",
            *(
                [
                    f"![Accuracy by {plain(column)}, age {older['years']} and over]"
                    f"({_figure_name('older', column)}.png)"
                ]
                if older_groups
                else []
            ),
            _parity_table(scores["per_attribute"]),
            "Demographic parity: the largest difference between groups in how often the model says "
            "yes. Equalised odds: the larger of the differences in true and in false positive "
            "rates. Rates of fewer than 30 images are not compared.",
        ]
    return parts


def _group_comparison(column: str, result: Mapping[str, Any]) -> list[str]:
    before, after = result["comparison"]["model"]["name"], result["model"]["name"]
    scores = result["comparison"]["groups"][column]
    rows = [
        (g + (" (under 30 images)" if s["small"] else ""), s)
        for g, s in scores["per_group"].items()
    ]
    if scores["gap"]:
        rows.append(("gap", scores["gap"]))
    return [
        markdown_table(
            (column, before, after, "difference", "95 % interval", "p"),
            (_comparison_row(title, s) for title, s in rows),
        ),
        f"![Accuracy by {plain(column)}, of both models]({_figure_name('gap', column)}.png)",
    ]


def _parity_table(per_attribute: Mapping[str, Any]) -> str:
    header = ("attribute", "worst group", "best group", "gap", "95 % interval", "by chance", "p")
    return markdown_table(
        (*header, "demographic parity difference", "equalised odds difference"),
        (
            (
                name,
                _group_accuracy(s, s["worst_group"]),
                _group_accuracy(s, s["best_group"]),
                _number(s["gap"]),
                _interval(s["gap_interval"]),
                _number(s["gap_by_chance"]),
                _number(s["p_value"]),
                _number(s["demographic_parity_difference"]),
                _number(s["equalized_odds_difference"]),
            )
            for name, s in per_attribute.items()
        ),
    )


def _age_adjusted_section(age_adjusted: Mapping[str, Any]) -> list[str]:
    overall = age_adjusted["overall"]
    every = {"all attributes": overall, **age_adjusted["per_attribute"]}
    left_out = overall["strata_left_out"]
    counts = {group: s["num_images"] for group, s in overall["per_group"].items()}
    return [
        "As if every group had the same ages (post-stratified by age band"
        + (f"; too few images in {', '.join(left_out)}" if left_out else "")
        + "):",
        markdown_table(
            ("attribute", "worst group", "best group", "gap", "95 % interval", "by chance", "p"),
            (
                (
                    name,
                    f"{s['worst_group']} {_number(s['per_group'][s['worst_group']]['accuracy'])}",
                    f"{s['best_group']} {_number(s['per_group'][s['best_group']]['accuracy'])}",
                    _number(s["gap"]),
                    _interval(s["gap_interval"]),
                    _number(s["gap_by_chance"]),
                    _number(s["p_value"]),
                )
                for name, s in every.items()
            ),
        ),
        markdown_table(
            ("images by age", *overall["strata"]),
            (
                (group, *(f"{by_band[band]:,}" for band in overall["strata"]))
                for group, by_band in counts.items()
            ),
        ),
    ]


def _figure_name(kind: str, column: str) -> str:
    return f"{kind}-" + re.sub(r"\W+", "-", column).strip("-").lower()


def _counted(scores: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if scores is None:
        return "0", "–", "–"
    return (f"{scores['num_images']:,}", _number(scores["accuracy"]), _interval(scores["interval"]))


def _group_accuracy(scores: Mapping[str, Any], group: str | None) -> str:
    return "–" if group is None else f"{group} {_number(scores['accuracy'][group])}"


def _with_interval(value: float | None, ends: list[float | None] | None) -> str:
    return f"{_number(value)} {_interval(ends)}"


def _gap(scores: Mapping[str, Any]) -> str:
    gap = _with_interval(scores["gap"], scores["gap_interval"])
    chance, p_value = _number(scores["gap_by_chance"]), _number(scores["p_value"])
    return f"{gap} ({chance} by chance; p of no difference {p_value})"


def _signed_interval(scores: Mapping[str, Any]) -> str:
    low, high = scores["interval"]
    return "–" if low is None else f"[{low:+.4f}, {high:+.4f}]"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(ends: list[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return "–"
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(plain, names))


def plain(text: str) -> str:
    """Text of a user's file, none of whose characters is Markdown's or HTML's, on one line."""
    return re.sub(
        r"[\\`*{}|<>&]|(?<=\])\(",
        lambda match: f"&#{ord(match.group())};",
        " ".join(text.split()),
    )
