"""What a reader is asked for, and how many bytes it may decode: a small file may declare enormous arrays.

Bytes are counted before their memory is asked for, over all that is read of one source.
"""

import os
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from nachos_min.data.dataset import DataError
from nachos_min.files import MOST_DECODED

SAMPLE_BYTES = 64  # that labels, numbers of rows and sorting take of each sample, beside the images
Shape: TypeAlias = tuple[int, int, int]  # H, W, C


@dataclass
class Room:
    """Counts the bytes that one source decodes to, and refuses more than it may have."""

    source: str  # what messages call it
    most: float = MOST_DECODED  # inf: no limit
    taken: int = 0

    def take(self, count: int, what: str) -> None:
        """Count bytes that `what` is about to need; DataError if all together are more than `most`."""
        self.taken += count
        self.check(self.taken, what)

    def check(self, count: int, what: str) -> None:
        """Refuse to need more than `most` bytes at once, if only for a moment."""
        if count > self.most:
            needed = f"{count:,}" if count < 1 << 63 else "over 2^63"
            limit = f"at most {self.most:,} bytes are decoded"
            raise DataError(f"{self.source}: {limit}, got {needed} with {what}; --max-bytes raises the limit")


ANY = Room("arrays", inf)  # for arrays that are in memory


@dataclass(frozen=True)
class Asked:
    """What a reader is asked for beside a path."""

    room: Room
    resolution: int | None = None  # shorter side that images of several sizes are resized to; None: the usual one
    expected: Shape | None = None  # of a sample whose label may be missing; None: labels are needed

    @property
    def labelled(self) -> bool:
        """Whether labels are needed."""
        return self.expected is None


def room_of(source: object, max_bytes: int | None) -> Room:
    """Return the room of a source; DataError if the option `max_bytes` is no whole number above 0."""
    if max_bytes is not None and not (type(max_bytes) is int and max_bytes >= 1):
        raise DataError(f"max_bytes must be a whole number >= 1, got {max_bytes!r}")
    if not isinstance(source, str | os.PathLike):
        return ANY
    return Room(str(source), MOST_DECODED if max_bytes is None else max_bytes)
