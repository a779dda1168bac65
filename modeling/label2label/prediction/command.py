"""`label2label predict`: photos and folders in, a table or JSON out."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from label2label.prediction.photos import find_photos
from label2label.prediction.predictor import AttributePredictor
from label2label.prediction.table import format_entry

PROGRESS_FROM = 10  # photos


def predict_command(args: argparse.Namespace) -> int:
    """Run `label2label predict`. Each photo's result is written as soon as it is known.

    Args:
        args: `images` (files and folders), `model` (folder, Hub id, ONNX file or None), `json`,
            `align`, `threshold` (0 to 1; None for the model's own), `batch_size`.

    Returns:
        The exit code: 1 where a photo could not be read, else 0.

    Raises:
        UserError: the model or the face detector cannot be loaded.
    """
    photos = find_photos(args.images)
    predictor = AttributePredictor.from_pretrained(
        args.model, align=args.align, batch_size=args.batch_size
    )
    # A bar only for a wait worth watching, and in the way of nothing that is piped on.
    entries: Iterable[dict[str, Any]] = predictor.predict_photos(photos)
    write: Callable[..., None] = print
    if len(photos) >= PROGRESS_FROM and sys.stderr.isatty():
        from tqdm import tqdm  # here: it takes a tenth of the time that one photo does

        entries, write = tqdm(entries, total=len(photos), unit="photo"), tqdm.write
    if args.json:
        return write_json(entries)
    asked = predictor.backend.preprocessing
    thresholds = dict(zip(asked.attributes, asked.thresholds, strict=True))
    if args.threshold is not None:
        thresholds = dict.fromkeys(thresholds, args.threshold)
    return write_table(entries, thresholds, write)


def write_table(
    entries: Iterable[dict[str, Any]],
    thresholds: Mapping[str, float],
    write: Callable[..., None] = print,
) -> int:
    """Write entries for people, by a function like print; exit code 1 where one has an error."""
    width = shutil.get_terminal_size().columns
    failed = 0
    for entry in entries:
        text = format_entry(entry, thresholds, width)
        write(text, file=sys.stderr if "error" in entry else sys.stdout)
        failed |= "error" in entry
    return int(failed)


def write_json(entries: Iterable[dict[str, Any]]) -> int:
    """Print entries as one JSON array, whole also when interrupted; exit code as `write_table`."""
    failed = 0
    separator = ""
    print("[", end="")
    try:
        for entry in entries:
            print(f"{separator}\n{json.dumps(entry)}", end="")
            separator = ","
            failed |= "error" in entry
    finally:
        print("\n]", flush=True)
    return int(failed)
