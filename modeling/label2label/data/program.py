"""What the programs in `datasets_scripts/` share: their options and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from label2label.errors import UserError


def dataset_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Parser with the options that every dataset program has.

    Args:
        description: What the program does.
        epilog: Text after the options.

    Returns:
        The parser, to which a program adds its own options.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="OUT", help="dataset folder to write"
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="worker processes",
    )
    parser.add_argument(
        "--max-bad",
        type=int,
        default=10,
        metavar="N",
        help="images that may be unusable (they are skipped and listed in skipped.csv)",
    )
    return parser


def positive_int(text: str) -> int:
    """Parse a command-line value that must be 1 or more.

    Args:
        text: The value.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is not a number of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
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
