"""Shared parts of the dataset programs: options, splits, added labels and error handling."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from label2label.cli import number
from label2label.data.schema import GENDERS, SPLITS, Sample
from label2label.data.vocabulary import Vocabulary
from label2label.errors import UserError, printable

from preparation.card import Counts, DatasetDescription, sum_counts
from preparation.framing import UNALIGNED, ReadImage, ReadSample
from preparation.sources import Download
from preparation.writing import write_dataset

SPLIT_SHARES = (0.7, 0.1, 0.2)
"""Shares of train, validation and test where a dataset has no partition of its own."""

SPLITS_FILE = "splits.csv"


def dataset_parser(docstring: str | None, source: str | None = None) -> argparse.ArgumentParser:
    """Create a parser with the options of every dataset program, and its docstring's first line.

    `source` is the help text of `--source`, for a program that reads raw images.
    """
    parser = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    option = parser.add_argument
    if source:
        option("--source", type=Path, required=True, metavar="PATH", help=source)
        text = "store the files' bytes instead of framing every face as `label2label predict` does"
        option("--as-is", dest="align", action="store_false", help=text)
        text = (
            "further labels: a column `image` (or `id`, a person), then columns of attributes "
            "(1, 0, or nothing for unknown), `gender` or `age`"
        )
        option("--labels", type=Path, metavar="CSV", help=text)
        text = "keep only rows that --labels names"
        option("--only-labelled", action="store_true", help=text)
    option("--output", type=Path, required=True, metavar="OUT", help="dataset folder to write")
    cores, text = os.cpu_count() or 1, "threads (default: one per core, here %(default)s)"
    option("--workers", type=number(int, 1), default=cores, metavar="N", help=text)
    text = "unusable images to accept, skip and list in skipped.csv (default: %(default)s)"
    option("--max-bad", type=number(int, 0), default=10, metavar="N", help=text)
    return parser


def prepare(
    arguments: argparse.Namespace,
    samples: Iterable[Sample],
    read: ReadSample,
    vocabulary: Vocabulary,
    description: DatasetDescription,
    *,
    total: int | None = None,
) -> Counts:
    """Write a dataset as the command line says, and print the number of images without a face.

    Takes and returns what `write_dataset` does, and `arguments` of `dataset_parser`. `{framing}` in
    the description's process is replaced by the description of `read`.
    """
    process = description.process
    if isinstance(read, ReadImage):
        process = process.replace("{framing}", read.description)
    if labels := getattr(arguments, "labels", None):
        samples = add_labels(samples, labels, vocabulary, arguments.only_labelled)
        process += " Labels of a list of the user's were added by name."
    counts = write_dataset(
        samples,
        read,
        vocabulary,
        replace(description, process=process),
        arguments.output,
        total=total,
        workers=arguments.workers,
        max_bad=arguments.max_bad,
    )
    if isinstance(read, ReadImage) and read.detector:
        variants = sum_counts(counts, "image", by=(2, 3))["image"]
        rows, unaligned = sum(variants.values()), variants.get(UNALIGNED, 0)
        print(
            f"framed {rows - unaligned:,} of {rows:,} images ({1 - unaligned / rows:.2%}); in "
            f"{unaligned:,} no face was found"
        )
    return counts


def hash_fraction(name: str) -> float:
    """Hash a name to a pseudorandom number in [0, 1) that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def split_by_hash(name: str, shares: tuple[float, float, float] = SPLIT_SHARES) -> str:
    """Choose the split of a person or image by its name; the shares of `SPLITS` add up to 1."""
    fraction = hash_fraction(name)
    for split, share in zip(SPLITS, shares, strict=True):
        if fraction < share:
            return split
        fraction -= share
    return SPLITS[-1]


def read_splits(download: Download) -> dict[str, str] | None:
    """Read `splits.csv` (columns image and split): split by image, or None without the file."""
    if download.find_text(SPLITS_FILE) is None:
        return None
    rows = download.rows(SPLITS_FILE, columns=("image", "split"))
    return {row["image"]: read_value("split", row["split"], where) for where, row in rows}


def add_labels(
    samples: Iterable[Sample], path: Path, vocabulary: Vocabulary, only_labelled: bool
) -> Iterator[Sample]:
    """Override the samples' labels with those of a user's table (see `read_labels`).

    A table that contradicts a sample's split or matches no sample is an error.
    """
    table = read_labels(path, vocabulary)
    unused = dict.fromkeys(table)
    for sample in samples:
        names = [name for name in (sample.identity, sample.key) if name in table]
        told: dict[str, Any] = {}
        for name in names:
            told |= table[name]
            unused.pop(name, None)
        if told.pop("split", sample.split) != sample.split:
            raise UserError(f"{path}: {names[-1]} has another split in the dataset: {sample.split}")
        if names or not only_labelled:
            fields = {name: told.pop(name) for name in ("gender", "age") if name in told}
            # A label of the opposite attribute from the source would contradict the table.
            opposites = {vocabulary.opposites.get(name): not told[name] for name in told}
            attributes = {**sample.attributes, **opposites, **told}
            attributes.pop(None, None)
            yield replace(sample, attributes=attributes, **fields)
    if len(unused) == len(table):
        raise UserError(
            f"{path}: none of its ids or images is in the dataset; the first is "
            f"{next(iter(table))!r}"
        )
    if unused:
        names = printable(", ".join(list(unused)[:20]))
        print(
            f"{path}: {len(unused):,} of {len(table):,} ids or images are not in the dataset: "
            + names,
            file=sys.stderr,
        )


def read_labels(path: Path, vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """Read a user's table; return the known values by person or image.

    Its first column, `id` or `image`, names the person or image; the others are attributes or
    opposites of the vocabulary's (1, 0, or empty for unknown), `gender`, `age`, and `split`, which
    must agree with the dataset's.
    """
    known = {*vocabulary.attributes, *vocabulary.opposites, "gender", "age", "split"}
    table: dict[str, dict[str, Any]] = {}
    rows = Download(path).rows(path.name, columns=())
    for where, row in rows:
        key, *columns = row
        if key not in ("id", "image") or not set(columns) <= known:
            raise UserError(
                f"{path}, line 1: the first column must be id or image, the others gender, age, "
                f"split or attributes among {', '.join(vocabulary.attributes)}"
            )
        if row[key] in table:
            raise UserError(f"{where}: {row[key]} is listed twice")
        texts = {column: row[column].strip() for column in columns}
        table[row[key]] = {
            column: read_value(column, text, where) for column, text in texts.items() if text
        }
    if not table:
        raise UserError(f"{path} has no rows")
    return table


def read_value(column: str, text: str, where: str) -> Any:
    """Parse one value of a table: `age`, `gender`, `split`, or an attribute (1 or 0)."""
    if column == "age" and text.isdecimal():
        return int(text)
    words = {"gender": tuple(GENDERS.values()), "split": SPLITS}.get(column, ("1", "0"))
    if column == "age" or text not in words:
        allowed = "a whole number" if column == "age" else ", ".join(words)
        raise UserError(f"{where}: {text!r} is not a value of {column} ({allowed})")
    return text if column in ("gender", "split") else text == "1"


def run_program(main: Callable[[], None]) -> None:
    """Run a program's main function; report errors without a traceback.

    A mistake that the user can correct prints one line on standard error and exits with code 2.
    Ctrl-C exits with code 130.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The console's encoding may lack characters of a file name.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except (UserError, OSError, csv.Error) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
