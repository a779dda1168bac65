"""The one exception for mistakes that a user can mend, and others' errors in one line."""


class UserError(Exception):
    """A mistake the user can mend: a missing file, a wrong key, a dataset without a column.

    Its text is one line that says what was wrong and what to do. The command line prints it to
    standard error and exits non-zero; library callers catch it like any exception.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type where it has none.

    Args:
        error: what another library raised.

    Returns:
        One line, never empty.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def join_lines(error: BaseException) -> str:
    """An error's whole text as one line; its type where it has none.

    Args:
        error: what another library raised.

    Returns:
        At most 300 characters, never none.
    """
    return " ".join(str(error).split())[:300] or type(error).__name__


def printable(text: str) -> str:
    """Escape what a terminal would act on: control characters, and bytes of names that are no text.

    Args:
        text: a file's or attribute's name, or a message that repeats one.

    Returns:
        One line that is safe to print.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
