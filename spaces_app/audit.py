"""The fairness audit as a page: what `label2label evaluate --group` measured, and what it means."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from texts import TEXTS, say

WIDEST_GAPS = 5  # attributes shown per group column
DATASETS = {"celeba": "CelebA", "utkface": "UTKFace", "lfwa": "LFWA", "fairface": "FairFace"}
COMMAND = "label2label audit --data photos.csv --group race --output audit.html"
logger = logging.getLogger(__name__)


def load_evaluations(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Load the evaluations by group among the JSON files in some folders.

    Args:
        folders: Folders to search; those that do not exist are skipped.

    Returns:
        Evaluations by group on test splits, as `label2label evaluate` writes them, each file once.
        One without all values that the page shows, for example from an older version, is skipped
        with a warning in the log.
    """
    evaluations: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.json"), key=lambda path: (len(path.parts), path)):
            try:
                evaluation = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                logger.warning("%s is left out of the audit: %s", path, error)
                continue
            needed = {"groups", "dataset", "accuracy", "intervals", "num_images", "model"}
            if not isinstance(evaluation, dict) or not needed <= set(evaluation):
                continue  # another kind of result
            try:
                if not evaluation["groups"] or evaluation["dataset"]["split"] != "test":
                    continue
                render_audit([evaluation], "en")
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                logger.warning(
                    "%s is left out of the audit: it is not as `label2label evaluate` writes it "
                    "now (%r)",
                    path,
                    error,
                )
                continue
            evaluations.setdefault(str(path.relative_to(folder)), evaluation)
    return list(evaluations.values())


def render_audit(evaluations: Iterable[Mapping[str, Any]], language: str) -> str:
    """Render the audit as one HTML element.

    Args:
        evaluations: As `load_evaluations` returns them.
        language: A key of `texts.LANGUAGES`.
    """
    parts = [_paragraph(say(language, "audit.intro"))]
    sections = [
        _render_column(evaluation, column, scores, language)
        for evaluation in evaluations
        for column, scores in evaluation["groups"].items()
    ]
    parts += sections or [_paragraph(say(language, "audit.none"))]
    parts.append(f"<h2>{say(language, 'audit.meaning.title')}</h2>")
    parts.append(_paragraph(say(language, "audit.meaning")))
    parts.append(_paragraph(say(language, "audit.own")))
    parts.append(f'<pre tabindex="0"><code>{escape(COMMAND)}</code></pre>')
    return f'<div class="l2l text audit">{"".join(parts)}</div>'


def _render_column(
    evaluation: Mapping[str, Any], column: str, scores: Mapping[str, Any], language: str
) -> str:
    """Render one evaluation by one group column: heading, table, gaps."""
    dataset = evaluation["dataset"]
    low, high = evaluation["intervals"]["accuracy"]
    title = say(
        language,
        "audit.title",
        model=evaluation["model"]["name"],
        dataset=DATASETS.get(dataset["name"], dataset["name"]),
        split=_known(language, f"audit.split.{dataset['split']}", dataset["split"]),
        group=_known(language, f"audit.group.{column}", column),
    )
    overall = say(
        language,
        "audit.overall",
        images=f"{evaluation['num_images']:,}",
        accuracy=_percent(evaluation["accuracy"]),
        low=_percent(low),
        high=_percent(high),
    )
    parts = [f"<h2>{escape(title)}</h2>", _paragraph(overall), _group_table(scores, language)]
    parts.append(_gap_sentence(scores, language, "audit.gap"))
    adjusted = (evaluation.get("age_adjusted") or {}).get(column) or {}
    if adjusted.get("overall"):
        parts.append(_gap_sentence(adjusted["overall"], language, "audit.adjusted"))
    parts.append(_attribute_table(scores, language))
    return "".join(parts)


def _group_table(scores: Mapping[str, Any], language: str) -> str:
    groups = scores["per_group"]
    drawn = [s for s in groups.values() if _is_number(s["accuracy"])]
    ends = [end for s in drawn for end in (*s["interval"], s["accuracy"]) if _is_number(end)]
    scale = (min(ends, default=0.0), max(ends, default=1.0))
    head = ("audit.group", "audit.images", "audit.accuracy", "audit.interval")
    rows = []
    for name, s in groups.items():
        note = f' <span class="small">({say(language, "audit.small")})</span>' if s["small"] else ""
        interval = " – ".join(_percent(end) for end in s["interval"])
        rows.append(
            f'<tr><th scope="row">{escape(name)}{note}</th>'
            f'<td class="number">{s["num_images"]:,}</td>'
            f'<td class="number">{_percent(s["accuracy"])}</td>'
            f"<td>{_whisker(s, scale)}{interval}</td></tr>"
        )
    return _table([say(language, key) for key in head], rows, numbers=(1, 2))


def _whisker(scores: Mapping[str, Any], scale: tuple[float, float]) -> str:
    """Draw a dot at the accuracy and a line for its interval, on a scale shared by all groups."""
    ends = [*scores["interval"], scores["accuracy"]]
    if not all(map(_is_number, ends)):
        return ""
    width = max(scale[1] - scale[0], 1e-6)
    low, high, at = (8 + 184 * (end - scale[0]) / width for end in ends)
    return (
        '<svg viewBox="0 0 200 16" width="200" height="16" aria-hidden="true">'
        '<line class="rule" x1="0" y1="8" x2="200" y2="8"/>'
        f'<line class="whisker" x1="{low:.1f}" y1="8" x2="{high:.1f}" y2="8"/>'
        f'<circle class="dot" cx="{at:.1f}" cy="8" r="5"/></svg>'
    )


def _gap_sentence(scores: Mapping[str, Any], language: str, key: str) -> str:
    if scores["gap"] is None:
        return _paragraph(say(language, "audit.no_gap"))
    low, high = scores["gap_interval"]
    return _paragraph(
        say(
            language,
            key,
            best=scores["best_group"],
            worst=scores["worst_group"],
            gap=_points(scores["gap"]),
            low=_points(low),
            high=_points(high),
            chance=_points(scores["expected_gap_under_null"]),
            p_value=f"{p:.3f}" if _is_number(p := scores["p_value"]) else "–",
        )
    )


def _attribute_table(scores: Mapping[str, Any], language: str) -> str:
    gaps = {name: s for name, s in scores["per_attribute"].items() if _is_number(s["gap"])}
    widest = sorted(gaps.items(), key=lambda item: -item[1]["gap"])[:WIDEST_GAPS]
    if not widest:
        return ""
    head = ("audit.attribute", "audit.attribute_gap", "audit.parity")
    rows = [
        f'<tr><th scope="row">{escape(_known(language, f"attribute.{name}", name))}</th>'
        f'<td class="number">{_points(s["gap"])}</td>'
        f'<td class="number">{_points(s["demographic_parity_difference"])}</td></tr>'
        for name, s in widest
    ]
    table = _table([say(language, key) for key in head], rows, numbers=(1, 2))
    return f"<h3>{say(language, 'audit.attributes')}</h3>{table}"


def _table(head: list[str], rows: list[str], numbers: tuple[int, ...]) -> str:
    cells = "".join(
        f'<th scope="col"{" class=number" if i in numbers else ""}>{escape(text)}</th>'
        for i, text in enumerate(head)
    )
    # Wider than a phone's screen: make it scrollable, also by keyboard.
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _known(language: str, key: str, otherwise: str) -> str:
    return TEXTS[language].get(key, otherwise)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value  # NaN is not equal to itself


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if _is_number(value) else "–"


def _points(value: Any) -> str:
    return f"{100 * value:.1f}".replace("-", "−") if _is_number(value) else "–"
