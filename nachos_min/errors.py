"""The one error that a user can cause: a message of one line that gives the value and the rule.

The command line prints it and exits with status 2. Any other exception is a defect and keeps its traceback.
"""


def printable(text: str) -> str:
    """Return `text` with a question mark for each character that would break the line or steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class InputError(ValueError):
    """A value from outside (an option, a file, a run folder) breaks a stated rule."""

    def __str__(self) -> str:
        return printable(" ".join(line.strip() for line in super().__str__().splitlines()))


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
