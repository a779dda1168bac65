"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake the user can mend: a missing file, a wrong key, a dataset without a column.

    Its text is one line that says what was wrong and what to do. The command line prints it to
    standard error and exits non-zero; library callers catch it like any exception.
    """
