"""The one error that a user can cause: a message of one line that gives the value and the rule.

The command line prints it and exits with status 2. Any other exception is a defect and keeps its traceback.
"""

MOST = 500  # letters of a message


def printable(text: str) -> str:
    r"""Return `text` with escapes, as in Python, for letters that would break the line or steer a terminal.

    >>> printable(chr(27) + "[31m") == r"\x1b[31m"
    True
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def message(text: object) -> str:
    """Return `text` as a message: one line of at most `MOST` printable letters, cut where it is longer."""
    line = str(text)
    if len(line) > 4 * MOST:  # what is cut out needs no looking at
        line = f"{line[: 2 * MOST]}{line[-2 * MOST :]}"
    line = printable(" ".join(part.strip() for part in line.splitlines()))
    return line if len(line) <= MOST else f"{line[: MOST - 103]}...{line[-100:]}"


class InputError(ValueError):
    """A value from outside (an option, a file, a run folder) breaks a stated rule."""

    def __str__(self) -> str:
        return message(super().__str__())


def one_line(text: object) -> str:
    """Return the text of an error, or of anything else, on one line."""
    return " ".join(str(text).split())


def shorten(text: str) -> str:
    """Return `text` in quotes on one line, cut in the middle when it is longer than 60 characters."""
    return repr(text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}")


def some(count: int, noun: str, ending: str = "s") -> str:
    """Return a count of things for reading.

    >>> some(1, "epoch"), some(2_000, "process", "es")
    ('1 epoch', '2,000 processes')
    """
    return f"{count:,} {noun}{ending if count != 1 else ''}"
