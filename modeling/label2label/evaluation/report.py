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
_GAP_HEADER = (
    *("attribute", "worst group", "best group", "gap", "95 % interval"),
    *("expected under the null", "p"),
)


def write_report(result: Mapping[str, Any], folder: Path) -> Path:
    """Write README.md and its figures into a folder.

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
    """Draw the figures that a report links to.

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
        slug = _slug(column, result)
        figures[f"group-{slug}"] = group_heat_map(scores, column)
        older = result["minimum_age"]
        if older and older["groups"][column]["per_group"]:
            title = f"{column}, age {older['years']} and over"
            figures[f"older-{slug}"] = group_heat_map(older["groups"][column], title)
        if comparison:
            names = {"after": result["model"]["name"], "before": comparison["model"]["name"]}
            figures[f"gap-{slug}"] = gap_plot(comparison["groups"][column], column, **names)
    return figures


def _slug(column: str, result: Mapping[str, Any]) -> str:
    """Name a column's figures: by its place where its own name is no file's, or another's too."""
    slugs = {c: re.sub(r"[^a-z0-9]+", "-", c.lower()).strip("-") for c in result["groups"]}
    own = slugs[column]
    unique = own and list(slugs.values()).count(own) == 1
    return own if unique else f"{1 + list(slugs).index(column)}"


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
        "# " + plain(f"{model['name']} on {dataset['name']}{split}"),
        "\n".join(f"- {plain(point)}" for point in _headlines(result)),
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
        f"{bootstrap['num_units']:,} {drawn}. The majority-class baseline has "
        f"{_number(result['majority_accuracy'])}. Accuracy is the mean over images and attributes, "
        "the others are means over attributes; yes is a probability above 0.5.",
    ]
    if result["comparison"]:
        parts += _comparison_section(result)
    for column, scores in result["groups"].items():
        parts += _group_section(column, scores, result)
    parts += [
        "## By attribute",
        "![Accuracy of every attribute](attributes.svg)",
        _attribute_table(result["per_attribute"]),
    ]
    for title, names in (
        ("Without a known label here", result["missing_attributes"]),
        ("Labels that the model has no attribute for", result["unscored_columns"]),
    ):
        if names:
            parts.append(f"{title}: {plain(', '.join(names))}.")
    parts += ["## Calibration", "![Reliability curve](reliability.svg)"]
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


def _headlines(result: Mapping[str, Any]) -> list[str]:
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
    return points


def _attribute_table(per_attribute: Mapping[str, Any]) -> str:
    header = ("attribute", "accuracy", "95 % interval", "balanced", "F1", "AP", "ECE")
    columns = ("balanced_accuracy", "f1", "average_precision", "expected_calibration_error")
    return markdown_table(
        (*header, "majority", "labels", "present"),
        (
            (
                *(name, _number(scores["accuracy"]), _interval(scores["interval"])),
                *(_number(scores[column]) for column in (*columns, "majority_accuracy")),
                *(f"{scores['num_labels']:,}", f"{scores['num_present']:,}"),
            )
            for name, scores in per_attribute.items()
            if scores["num_labels"]
        ),
    )


def _comparison_section(result: Mapping[str, Any]) -> list[str]:
    comparison = result["comparison"]
    rows = [(_TITLES[n], scores) for n, scores in comparison["overall"].items()]
    parts = [
        f"## Against {plain(comparison['model']['name'])}",
        _comparison_table("score", [*rows, *comparison["per_attribute"].items()], result),
        "Attributes are compared by accuracy. Intervals and p are of the paired bootstrap: every "
        "resample draws the same images for both models.",
    ]
    if left_out := comparison["attributes_left_out"]:
        parts.append(f"Not of both models, and left out: {plain(', '.join(left_out))}.")
    return parts


def _comparison_table(
    title: str, rows: Iterable[tuple[str, Mapping[str, Any]]], result: Mapping[str, Any]
) -> str:
    before, after = result["comparison"]["model"]["name"], result["model"]["name"]
    return markdown_table(
        (title, before, after, "difference", "95 % interval", "p"),
        (
            (
                *(name, _number(scores["other"]), _number(scores["model"])),
                *(_signed(scores["difference"]), _signed_interval(scores)),
                _number(scores["p_value"]),
            )
            for name, scores in rows
        ),
    )


def _group_section(column: str, scores: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    older, slug = result["minimum_age"], _slug(column, result)
    older_groups = older["groups"][column]["per_group"] if older else {}
    header = [column, "images", "accuracy", "95 % interval"]
    if older:
        header += [f"images from age {older['years']}", "accuracy", "95 % interval"]
    parts = [
        f"## By {plain(column)}",
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
        pair = f"Gap between {scores['best_group']} and {scores['worst_group']}: {_gap(scores)}."
        parts += [
            plain(pair),
            "Expected under the null: the gap that groups of these sizes show on average where all "
            "are equally accurate. p: of the Wald test that they are; of twenty attributes one has "
            "a p below 0.05 by chance.",
        ]
    if scores["num_unknown"]:
        parts.append(
            f"{scores['num_unknown']:,} images without a known {plain(column)} are left out."
        )
    if result["comparison"] and scores["per_group"]:
        compared = result["comparison"]["groups"][column]
        rows = [
            (group + (" (under 30 images)" if s["small"] else ""), s)
            for group, s in compared["per_group"].items()
        ]
        rows += [("gap", compared["gap"])] if compared["gap"] else []
        parts += [
            _comparison_table(column, rows, result),
            f"![Accuracy by {plain(column)}, of both models](gap-{slug}.svg)",
        ]
    age_adjusted = result["age_adjusted"].get(column)
    if age_adjusted and age_adjusted["overall"]:
        parts += _age_adjusted_section(age_adjusted)
    if scores["per_attribute"]:
        parts.append(f"![Accuracy by {plain(column)}](group-{slug}.svg)")
        if older_groups:
            title = f"Accuracy by {plain(column)}, age {older['years']} and over"
            parts.append(f"![{title}](older-{slug}.svg)")
        header = ("demographic parity difference", "equalised odds difference")
        parts += [
            markdown_table(
                (*_GAP_HEADER, *header),
                (
                    (
                        *_gap_row(name, s, s["accuracy"]),
                        _number(s["demographic_parity_difference"]),
                        _number(s["equalized_odds_difference"]),
                    )
                    for name, s in scores["per_attribute"].items()
                ),
            ),
            "Demographic parity: the largest difference between groups in how often the model says "
            "yes. Equalised odds: the larger of the differences in true and in false positive "
            "rates. Rates of fewer than 30 images are not compared.",
        ]
    return parts


def _age_adjusted_section(age_adjusted: Mapping[str, Any]) -> list[str]:
    overall = age_adjusted["overall"]
    every = {"all attributes": overall, **age_adjusted["per_attribute"]}
    left_out = overall["strata_left_out"]
    return [
        "As if every group had the same ages (direct standardisation by age band"
        + (f"; too few images in {', '.join(left_out)}" if left_out else "")
        + "):",
        markdown_table(
            _GAP_HEADER,
            (
                _gap_row(name, s, {g: of["accuracy"] for g, of in s["per_group"].items()})
                for name, s in every.items()
            ),
        ),
        markdown_table(
            ("images by age", *overall["strata"]),
            (
                (group, *(f"{s['num_images'][band]:,}" for band in overall["strata"]))
                for group, s in overall["per_group"].items()
            ),
        ),
    ]


def _gap_row(
    name: str, scores: Mapping[str, Any], accuracy: Mapping[str, float | None]
) -> tuple[str, ...]:
    extremes = (scores["worst_group"], scores["best_group"])
    return (
        name,
        *("–" if group is None else f"{group} {_number(accuracy[group])}" for group in extremes),
        _number(scores["gap"]),
        _interval(scores["gap_interval"]),
        _number(scores["expected_gap_under_null"]),
        _number(scores["p_value"]),
    )


def _counted(scores: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if scores is None:
        return "0", "–", "–"
    return (f"{scores['num_images']:,}", _number(scores["accuracy"]), _interval(scores["interval"]))


def _with_interval(value: float | None, ends: list[float | None] | None) -> str:
    return f"{_number(value)} {_interval(ends)}"


def _gap(scores: Mapping[str, Any]) -> str:
    gap = _with_interval(scores["gap"], scores["gap_interval"])
    expected, p_value = _number(scores["expected_gap_under_null"]), _number(scores["p_value"])
    return f"{gap} (expected under the null {expected}; p of no difference {p_value})"


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


def plain(text: str) -> str:
    """Write a user's text on one line so that no character of it is Markdown, HTML or math."""
    # Underscores within a word are none; brackets alone are none, and intervals have them.
    special = r"[\\`*{}|<>&$#~^]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]"
    return re.sub(special, lambda match: f"&#{ord(match.group())};", printable(text))
