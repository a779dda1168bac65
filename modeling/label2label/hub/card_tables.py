"""Tables, numbers and intervals of the model card, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table.

    Args:
        header: of its columns; the first is aligned left, the others right.
        rows: cells.

    Returns:
        Its lines.
    """
    header = list(header)
    rule = [":---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def number(value: float | None) -> str:
    """A score with four decimals; `undefined` for None."""
    return "undefined" if value is None else f"{value:.4f}"


def interval(ends: Sequence[float | None] | None) -> str:
    """`[low, high]`; nothing where there is no interval."""
    if not ends or ends[0] is None or ends[1] is None:
        return ""
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"
