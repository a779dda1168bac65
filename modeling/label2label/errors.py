"""Report errors in one line: those that a user can fix, and those of other libraries."""


class UserError(Exception):
    """A mistake that the user can fix: a missing file, a wrong key, a dataset without a column.

    Its text is one line: what is wrong and what to do. The command line prints it to
    standard error and exits non-zero; library callers catch it like any exception.
    """


def join_lines(error: BaseException) -> str:
    """Join an error's text into one line, or return its type if the text is empty.

    The line has at most 300 characters.
    """
    return " ".join(str(error).split())[:300] or type(error).__name__


def printable(text: str) -> str:
    """Escape control characters, and bytes of file names that are not valid text, in one line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
