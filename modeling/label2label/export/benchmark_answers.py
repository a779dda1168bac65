"""Whether a row of the benchmark answers as it should, without which its speed says little."""

from __future__ import annotations

from typing import Any

import numpy as np

# Of a probability. Other runtimes differ by 1e-6 in float32 and by 2e-3 in float16.
TOLERANCE = 1e-2


def compare_answers(row: Any, found: np.ndarray, entry: dict[str, Any]) -> None:
    """Add how far answers are from those that they should be, if it is further than before.

    Args:
        row: of `benchmark_rows`.
        found: probabilities (images, attributes) by the row's runtime.
        entry: the row's, to change.
    """
    evaluated = row.expected if row.evaluated is None else row.evaluated
    for name, answers in (
        ("largest_difference", row.expected),
        ("evaluated_difference", evaluated),
    ):
        images = min(len(found), len(answers))
        difference = np.abs(found[:images] - answers[:images])
        largest = float(np.nan_to_num(difference, nan=1.0).max())
        entry[name] = max(largest, entry[name] or 0.0)


def judge_answers(row: Any, entry: dict[str, Any]) -> None:
    """Take the accuracy from a row that does not answer as what was evaluated.

    Args:
        row: of `benchmark_rows`.
        entry: the row's, to change.
    """
    if (entry["evaluated_difference"] or 0.0) > TOLERANCE:
        entry["accuracy"] = None
    # INT8 is another model than the one in float, and may differ from it.
    if row.evaluated is None and (difference := entry["largest_difference"] or 0.0) > TOLERANCE:
        entry["error"] = f"its answers are wrong: they differ from PyTorch's by {difference:.2f}"
