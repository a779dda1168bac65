"""The fairness audit as a page: what `label2label evaluate --group` measured, and what it means."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from label2label.evaluation import format_p_value
from texts import render

WIDEST_GAPS = 5  # attributes shown per group column
DATASETS = {"celeba": "CelebA", "utkface": "UTKFace", "lfwa": "LFWA", "fairface": "FairFace"}
COMMAND = "label2label audit --data photos.csv --group race --output audit.html"
logger = logging.getLogger(__name__)


def load_evaluations(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Load the evaluations by group on test splits among the JSON files in some folders.

    One without all values that the page shows, for example from an older version, is skipped with a
    warning in the log.
    """
    evaluations: dict[str, dict[str, Any]] = {}
    needed = {"groups", "dataset", "accuracy", "intervals", "num_images", "model"}
    for folder in folders:
        for path in sorted(folder.rglob("*.json"), key=lambda path: (len(path.parts), path)):
            try:
                evaluation = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(evaluation, dict) or not needed <= set(evaluation):
                    continue  # another kind of result
                if evaluation["groups"] and evaluation["dataset"]["split"] == "test":
                    render_audit([evaluation], "en")
                    evaluations.setdefault(str(path.relative_to(folder)), evaluation)
            except (OSError, AttributeError, TypeError, ValueError, TemplateError) as error:
                logger.warning(
                    "%s is left out of the audit: it is not as `label2label evaluate` writes it "
                    "now (%r)",
                    path,
                    error,
                )
    return list(evaluations.values())


def render_audit(evaluations: Iterable[Mapping[str, Any]], language: str) -> str:
    """Render evaluations of `load_evaluations` as one HTML element."""
    return render(
        "audit",
        language,
        evaluations=list(evaluations),
        datasets=DATASETS,
        command=COMMAND,
        place_whiskers=place_whiskers,
        widest_gaps=widest_gaps,
        percent=lambda value: f"{100 * value:.1f} %" if is_number(value) else "–",
        points=lambda x: f"{100 * x:.1f}".replace("-", "−") if is_number(x) else "–",
        p_value=format_p_value,
    )


def place_whiskers(groups: Mapping[str, Any]) -> dict[str, list[float]]:
    """Place each group's interval and accuracy on one scale: its start, accuracy and end, 8 to 192.

    Groups of which one is undefined are left out.
    """
    ends = {name: [s["interval"][0], s["accuracy"], s["interval"][1]] for name, s in groups.items()}
    ends = {name: values for name, values in ends.items() if all(map(is_number, values))}
    lowest = min((min(values) for values in ends.values()), default=0)
    width = max((max(values) - lowest for values in ends.values()), default=0) or 1e-6
    return {
        name: [round(8 + 184 * (value - lowest) / width, 1) for value in values]
        for name, values in ends.items()
    }


def widest_gaps(attributes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the attributes with the widest gaps between groups, and their scores."""
    defined = [item for item in attributes.items() if is_number(item[1]["gap"])]
    return sorted(defined, key=lambda item: -item[1]["gap"])[:WIDEST_GAPS]


def is_number(value: Any) -> bool:
    """Return whether a value is a number other than NaN; raise if the template misses it."""
    # NaN is not equal to itself; a missing value raises when it is compared.
    return value == value and isinstance(value, int | float)
