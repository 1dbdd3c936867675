"""The one error that a user can cause: a message of one line that gives the value and the rule.

The command line prints it and exits with status 2. Any other exception is a defect and keeps its traceback.
"""

MOST = 500  # letters of a message


def printable(text: str) -> str:
    r"""Return `text` with escapes, as in Python, for letters that would break the line or steer a terminal.

    >>> printable(chr(27) + "[31m") == r"\x1b[31m"
    True
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def cut(text: str) -> str:
    """Return `text` as one line of at most `MOST` printable letters, with dots where some are left out."""
    if len(text) > 4 * MOST:  # what is cut out needs no looking at
        text = f"{text[: 2 * MOST]}{text[-2 * MOST :]}"
    text = printable(text)
    return text if len(text) <= MOST else f"{text[: MOST - 103]}...{text[-100:]}"


def message(text: object) -> str:
    """Return `text`, whose lines are joined, as one line of at most `MOST` printable letters."""
    return cut(" ".join(part.strip() for part in str(text).splitlines()))


class InputError(ValueError):
    """A value from outside (an option, a file, a run folder) breaks a stated rule."""

    def __str__(self) -> str:
        return message(super().__str__())


def shorten(value: object) -> str:
    """Return `value` as Python writes it, text in quotes, cut in the middle when it is longer than 60 letters."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:40]}...{value[-15:]}")
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"


def some(count: int, noun: str, ending: str = "s") -> str:
    """Return a count of things for reading.

    >>> some(1, "epoch"), some(2_000, "process", "es")
    ('1 epoch', '2,000 processes')
    """
    return f"{count:,} {noun}{ending if count != 1 else ''}"
