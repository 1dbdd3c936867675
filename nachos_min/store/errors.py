"""The room's one error, alone in a file so that every other file here can use it."""

from nachos_min.errors import InputError


class StoreError(InputError):
    """A run that cannot be written, read or continued; the message names the file or folder, and the rule."""
