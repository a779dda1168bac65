"""Predictions as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_entry(entry: dict[str, Any], thresholds: Mapping[str, float], width: int = 80) -> str:
    """One photo's faces and their attributes: those present first, surest first.

    Args:
        entry: `image` and `faces`, or `error`, as `AttributePredictor.predict_photos` yields.
        thresholds: probability, 0 to 1, from which each attribute counts as present, by name.
        width: columns of the terminal.

    Returns:
        Several lines, without a newline at the end.
    """
    # A file name may hold bytes that are no text.
    title = str(entry["image"]).encode("utf-8", "backslashreplace").decode()
    if "error" in entry:
        return f"{title}: error: {entry['error']}"
    faces = entry["faces"]
    if not faces:
        return f"{title}: no face found (--no-align takes the whole image as a face)"
    lines = [f"{title}: {len(faces)} face{'s' if len(faces) > 1 else ''}"]
    for number, face in enumerate(faces, start=1):
        x0, y0, x1, y1 = (round(x) for x in face["box"])
        lines.append(f"  face {number} at ({x0}, {y0}) to ({x1}, {y1}), score {face['score']:.2f}")
        ranked = sorted(face["attributes"].items(), key=lambda item: -item[1])
        present = [item for item in ranked if item[1] >= thresholds[item[0]]]
        absent = [item for item in ranked if item[1] < thresholds[item[0]]]
        for heading, items in (("yes", present), ("no", absent)):
            rows = format_columns(items, width - 8) or ["(none)"]
            lines.append(f"    {heading:3} {rows[0]}")
            lines += [f"        {row}" for row in rows[1:]]
    return "\n".join(lines)


def format_columns(items: list[tuple[str, float]], width: int) -> list[str]:
    """Names and probabilities in as many columns as fit, read line by line.

    Args:
        items: name and probability, 0 to 1.
        width: columns of text.

    Returns:
        Lines.
    """
    cells = [f"{name.replace('_', ' ')} {probability:.0%}" for name, probability in items]
    cell = max(map(len, cells), default=0) + 2
    per_line = max(1, width // cell) if cells else 1
    return [
        "".join(text.ljust(cell) for text in cells[i : i + per_line]).rstrip()
        for i in range(0, len(cells), per_line)
    ]
