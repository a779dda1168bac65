"""Predict photos and folders, and print a table or JSON (`label2label predict`)."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from label2label.errors import UserError, printable
from label2label.prediction.photos import find_photos
from label2label.prediction.predictor import AttributePredictor

PROGRESS_FROM = 10  # photos
NOTABLE_ROLL = 30  # degrees; the table shows a roll from here on


def predict_command(args: argparse.Namespace) -> int:
    """Run `label2label predict`; return 1 if a photo could not be read, else 0."""
    check_language(args)
    photos = list(find_photos(args.images))
    predictor = AttributePredictor.from_pretrained(
        args.model,
        args.backend,
        align=args.align,
        batch_size=args.batch_size,
        threshold=args.threshold,
    )
    entries: Iterable[dict[str, Any]] = predictor.predict_photos(photos)
    if args.draw:
        from label2label.prediction.drawing import draw_entries

        entries = draw_entries(entries, photos, Path(args.draw), args.language)
    write: Callable[..., None] = print
    # No bar for short waits, or in piped error output.
    if len(photos) >= PROGRESS_FROM and sys.stderr.isatty():
        from tqdm import tqdm  # here: the import costs a tenth of a photo's time

        entries, write = tqdm(entries, total=len(photos), unit="photo"), tqdm.write
    return write_json(entries) if args.json else write_table(entries, write)


def check_language(args: argparse.Namespace) -> None:
    """Raise `UserError` if a language is given and nothing is drawn in it."""
    if args.language != "en" and not args.draw:
        raise UserError("--language translates the names that --draw writes: give --draw, too")


def write_table(
    entries: Iterable[dict[str, Any]],
    write: Callable[..., None] = print,
) -> int:
    """Write entries as text, by a function like print; return 1 if one has an error, else 0."""
    width = shutil.get_terminal_size().columns
    failed = 0
    for entry in entries:
        text = format_entry(entry, width)
        write(text, file=sys.stderr if "error" in entry else sys.stdout)
        failed |= "error" in entry
    return int(failed)


def write_json(entries: Iterable[dict[str, Any]]) -> int:
    """Print entries as a JSON array, valid even if interrupted; return as `write_table`."""
    failed = 0
    separator = ""
    print("[", end="")
    try:
        for entry in entries:
            print(f"{separator}\n{json.dumps(entry, allow_nan=False)}", end="")
            separator = ","
            failed |= "error" in entry
    finally:
        print("\n]", flush=True)
    return int(failed)


def format_entry(entry: dict[str, Any], width: int = 80) -> str:
    """Format an entry of `predict_photos` as lines of at most `width` columns.

    Present attributes come first, by descending probability.
    """
    title = printable(str(entry["image"]))
    if "error" in entry:
        return f"{title}: error: {printable(entry['error'])}"
    faces = entry["faces"]
    if not faces:
        return f"{title}: no face found (--no-align takes the whole image as a face)"
    lines = [f"{title}: {len(faces)} face{'s' if len(faces) > 1 else ''}"]
    for number, face in enumerate(faces, start=1):
        x0, y0, x1, y1 = (round(x) for x in face["box"])
        marks = [f"score {face['score']:.2f}"]
        if abs(face.get("roll", 0)) >= NOTABLE_ROLL:
            marks.append(f"turned by {face['roll']:.0f} degrees")
        marks += face.get("warnings", [])
        lines.append(f"  face {number} at ({x0}, {y0}) to ({x1}, {y1}), {', '.join(marks)}")
        ranked = sorted(face["attributes"].items(), key=lambda item: -item[1])
        for heading, present in (("yes", True), ("no", False)):
            items = [item for item in ranked if (item[0] in face["present"]) == present]
            rows = list(format_columns(items, width - 8)) or ["(none)"]
            lines.append(f"    {heading:3} {rows[0]}")
            lines += [f"        {row}" for row in rows[1:]]
    return "\n".join(lines)


def format_columns(items: list[tuple[str, float]], width: int) -> Iterator[str]:
    """Yield lines of names and probabilities (0 to 1), row by row in as many columns as fit."""
    cells = [f"{printable(name.replace('_', ' '))} {p:.0%}" for name, p in items]
    cell = max(map(len, cells), default=0) + 2
    per_line = max(1, width // cell)
    for i in range(0, len(cells), per_line):
        yield "".join(text.ljust(cell) for text in cells[i : i + per_line]).rstrip()
