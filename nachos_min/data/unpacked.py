"""The content of a gzip file as a stream, which costs time and memory in proportion to what is asked for."""

import zlib
from typing import IO, final

_PACKED = 1 << 14  # bytes that are read at a time; a thousandfold comes of them, in parts


@final
class Unpacked:
    """What the one member of a gzip file holds. Its checksum is compared when its end is read.

    The reader in Python's library reads the name inside the file, which may be endless, byte by byte.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._unpacking = file, zlib.decompressobj(16 + zlib.MAX_WBITS)

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end; ValueError or zlib.error for damage."""
        content = b""
        while len(content) < size and not self._unpacking.eof:
            packed = self._unpacking.unconsumed_tail or self._file.read(_PACKED)
            part = self._unpacking.decompress(packed, size - len(content))
            if not (packed or part):
                raise ValueError("it is cut off")
            content += part
        if size and not content and (self._unpacking.unused_data + self._file.read(_PACKED)).strip(b"\0"):
            raise ValueError("more follows the end of its packed content")
        return content
