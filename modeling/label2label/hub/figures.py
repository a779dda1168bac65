"""Figures in Markdown that come from JSON: written by a command, checked by a test.

A figure stands behind a comment that says where it comes from, and readers see only the figure:

    <!--= celeba_test.json accuracy .4f -->0.9012<!--/-->

The comment names a file under results/, the path of the value in it (keys joined by `/`) and a
format: Python's, or `.2fM`, `.2fG` for millions and billions. `python -m label2label.hub.figures
README.md` writes the figures anew.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from label2label.errors import UserError
from label2label.files import write_whole

_FIGURE = re.compile(
    r"(?P<mark><!--=\s+(?P<file>\S+)\s+(?P<path>\S.*?)\s+(?P<format>\S+)\s+-->)"
    r"(?P<shown>.*?)<!--/-->"
)
_UNITS = {"M": 1e6, "G": 1e9}


def write_figures(text: str, results: Path) -> str:
    """Replace every marked figure by what the JSON says.

    Args:
        text: Markdown with marked figures.
        results: folder of the JSON files.

    Returns:
        The text with current figures.

    Raises:
        UserError: where a file, a value or a format is not there or not valid.
    """

    def current(match: re.Match[str]) -> str:
        value = _look_up(results / match["file"], match["path"])
        return f"{match['mark']}{format_figure(value, match['format'])}<!--/-->"

    return _FIGURE.sub(current, text)


def stale_figures(text: str, results: Path) -> Iterator[tuple[str, str]]:
    """Find the marked figures that disagree with the JSON.

    Args:
        text: Markdown with marked figures.
        results: folder of the JSON files.

    Yields:
        Each stale figure, as marked in the text and as it should be.

    Raises:
        UserError: where a file, a value or a format is not there or not valid.
    """
    for match in _FIGURE.finditer(text):
        current = write_figures(match[0], results)
        if current != match[0]:
            yield match[0], current


def unmarked(text: str) -> str:
    """Remove the marked figures, so that what is left can be searched for figures without a source.

    Args:
        text: Markdown with marked figures.

    Returns:
        The text without them.
    """
    return _FIGURE.sub("", text)


def format_figure(value: Any, form: str) -> str:
    """Format a value as Markdown shows it.

    Args:
        value: a number or a text.
        form: a format of Python's mini-language, or one that ends in M or G after `f`: the value is
            then divided by a million or a billion.

    Returns:
        The formatted value.

    Raises:
        UserError: where the value cannot be formatted so.
    """
    unit = 1.0
    if len(form) > 1 and form[-1] in _UNITS and form[-2] == "f":
        unit, form = _UNITS[form[-1]], form[:-1]
    try:
        return format(value / unit if unit != 1 else value, form)
    except (TypeError, ValueError) as error:
        raise UserError(f"{value!r} cannot be written as {form!r}") from error


def _look_up(file: Path, path: str) -> Any:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    for key in path.split("/"):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{file.name} has no {path}") from error
    return value


def main() -> int:
    """Write the marked figures of Markdown files anew.

    Returns:
        The exit status: 0, or 2 where a figure has no source.
    """
    parser = argparse.ArgumentParser(description="Write the figures of Markdown files from JSON.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.md")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    args = parser.parse_args()
    try:
        for file in args.files:
            text = write_figures(file.read_text(encoding="utf-8"), args.results)
            write_whole(file, text)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
