"""What the programs in `datasets_scripts/` share: their options and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.chunks import ReadSample
from label2label.data.preparation.counts import Counts
from label2label.data.preparation.publishing import (
    RIGHT_OPTION,
    push_dataset,
    refuse_redistribution,
)
from label2label.data.preparation.writing import prepare_dataset
from label2label.data.schema import Sample
from label2label.data.vocabulary import Vocabulary
from label2label.errors import UserError


def dataset_parser(docstring: str | None, source: str | None = None) -> argparse.ArgumentParser:
    """Parser with the options that every dataset program has.

    Args:
        docstring: The program's own; its first line says what the program does.
        source: What `--source` is, for a program that reads one folder.

    Returns:
        The parser, to which a program adds its own options.
    """
    parser = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    if source:
        parser.add_argument("--source", type=Path, required=True, metavar="DIR", help=source)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="OUT", help="dataset folder to write"
    )
    parser.add_argument(
        "--workers",
        type=positive_integer,
        default=os.cpu_count() or 1,
        metavar="N",
        help="worker processes (default: one per core, here %(default)s)",
    )
    parser.add_argument(
        "--max-bad",
        type=non_negative_integer,
        default=10,
        metavar="N",
        help="unusable images that are accepted: skipped, and listed in skipped.csv "
        "(default: %(default)s)",
    )
    hub = parser.add_argument_group("upload to the Hub")
    hub.add_argument("--push-to-hub", metavar="ID", help="dataset repository to upload OUT to")
    hub.add_argument("--public", action="store_true", help="make a new repository public")
    hub.add_argument(
        RIGHT_OPTION,
        dest="right_to_redistribute",
        action="store_true",
        help="upload although the terms of the dataset forbid it: its owners allowed it to you",
    )
    return parser


def prepare(
    arguments: argparse.Namespace,
    samples: Iterable[Sample],
    read: ReadSample,
    vocabulary: Vocabulary,
    description: DatasetDescription,
    *,
    settings: Mapping[str, Any] | None = None,
    total: int | None = None,
) -> Counts:
    """Write a dataset as the command line says, and upload it where it says so.

    Args:
        arguments: What `dataset_parser` parsed.
        samples: The rows to be, in an order that is the same in every run.
        read: Reads the image of a sample.
        vocabulary: Names the attribute columns.
        description: What the dataset card says.
        settings: What decides the rows beside the samples.
        total: Number of samples, where known.

    Returns:
        Rows by source, split, column and value.

    Raises:
        UserError: As `prepare_dataset` and `push_dataset`; an upload that the terms forbid is
            refused before anything is prepared.
    """
    may_push = description.redistributable or arguments.right_to_redistribute
    if arguments.push_to_hub and not may_push:
        raise refuse_redistribution(description.title, description.terms)
    counts = prepare_dataset(
        samples,
        read,
        vocabulary,
        description,
        arguments.output,
        settings=settings,
        total=total,
        workers=arguments.workers,
        max_bad=arguments.max_bad,
    )
    if arguments.push_to_hub:
        url = push_dataset(
            arguments.output,
            arguments.push_to_hub,
            private=not arguments.public,
            right_to_redistribute=arguments.right_to_redistribute,
        )
        print(f"uploaded to {url}")
    return counts


def positive_integer(text: str) -> int:
    """Parse a command-line value that must be 1 or more.

    Args:
        text: The value.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is not a number of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def non_negative_integer(text: str) -> int:
    """Parse a command-line value that must be 0 or more.

    Args:
        text: The value.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is not a number of 0 or more.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def run_program(main: Callable[[], None]) -> None:
    """Run a program's main function and end the process as users expect.

    A mistake that the user can mend ends in one line on standard error and exit code 2, Ctrl-C in
    exit code 130; neither shows a traceback.

    Args:
        main: The program.
    """
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on where it stopped", file=sys.stderr)
        sys.exit(130)
