"""Small pictures of samples: as characters in a terminal, or in one PNG file, which a page shows piece by piece.

Characters are colours in a terminal that has them, else shades of plain ASCII. A character cell is about twice as
high as wide, so that it holds two pixels, one above the other.
"""

import struct
import zlib
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from nachos_min.data import resize

WIDEST = 48  # pixels of a picture
HEIGHT = 24  # of a drawn signal
COLUMNS = 16  # pictures side by side
BYTES = 1_200_000  # of all pixels: the page has them as text, a third longer
_SHADES = " .:-=+*#%@"  # from dark to bright
_BARS = "▁▂▃▄▅▆▇█"
GAP = 2  # columns between pictures


def fitted(images: NDArray[np.float32], widest: int) -> NDArray[np.uint8]:
    """Return images, float32 [N, H, W, C] from 0 to 1, at most `widest` wide and evenly high: bytes [N, H, W, 3].

    Of C that is neither 1 nor 3 the mean is drawn.
    """
    _, height, width, channels = images.shape
    shrink = min(1.0, widest / width, widest / height)
    size = max(2, 2 * round(height * shrink / 2)), max(1, round(width * shrink))
    grey = images if channels == 3 else images.mean(axis=3, keepdims=True)
    pixels = resize(np.ascontiguousarray(grey, np.float32), size)
    return np.broadcast_to(np.rint(255 * pixels.clip(0, 1)), (*pixels.shape[:3], 3)).astype(np.uint8)


def drawn(pictures: NDArray[np.uint8], *, colours: bool) -> list[Text]:
    """Return lines with pictures of `fitted` side by side: half blocks in two colours, or shades of two pixels."""
    lines = []
    for upper, lower in zip(pictures[:, 0::2].swapaxes(0, 1), pictures[:, 1::2].swapaxes(0, 1), strict=True):
        line = Text()
        for number, (above, below) in enumerate(zip(upper, lower, strict=True)):
            line.append(" " * GAP * (number > 0))
            if colours:
                for pair in zip(above.tolist(), below.tolist(), strict=True):
                    line.append("▀", "rgb({},{},{}) on rgb({},{},{})".format(*pair[0], *pair[1]))
            else:
                light = np.stack([above, below]).mean(axis=(0, 2)) / 256
                line.append("".join(_SHADES[level] for level in (light * len(_SHADES)).astype(int)))
        lines.append(line)
    return lines


def curve(signal: NDArray[np.float32], widest: int, *, bars: bool) -> str:
    """Return a line of at most `widest` bars or shades: the first channel of a signal [1, L, C] from 0 to 1."""
    length = min(signal.shape[1], widest)
    values = resize(np.ascontiguousarray(signal[None, :, :, :1], np.float32), (1, length)).ravel().clip(0, 1)
    levels = _BARS if bars else _SHADES
    return "".join(levels[level] for level in (values * (len(levels) - 1e-3)).astype(int))


def pictures(samples: NDArray[Any], least: float, most: float) -> NDArray[np.uint8]:
    """Return samples [N, H, W, C], unscaled, as pictures [N, h, w, 3]; `least` is drawn black, `most` white.

    Of a signal (H = 1) the curve of its first channel is drawn, from `least` at the bottom to `most` at the top.
    """
    shares = ((samples.astype(np.float32) - least) / max(most - least, 1e-30)).clip(0, 1).astype(np.float32)
    if samples.shape[1] > 1:
        return fitted(shares, WIDEST)
    values = resize(shares[..., :1], (1, min(samples.shape[2], 2 * WIDEST)))[:, :, :, 0]
    rows = np.rint((1 - values) * (HEIGHT - 1))
    before = np.concatenate([rows[..., :1], rows[..., :-1]], axis=2)  # a line joins neighbours
    height = np.arange(HEIGHT)[None, :, None]
    ink = (height >= np.minimum(rows, before)) & (height <= np.maximum(rows, before))
    return np.repeat(np.where(ink, 0, 255).astype(np.uint8)[..., None], 3, axis=3)


def most_pictures(shape: tuple[int, int, int]) -> int:
    """Return how many pictures of samples of `shape` (H, W, C) a page may have."""
    return BYTES // pictures(np.zeros((1, *shape), np.float32), 0, 1).nbytes


def sheet(each: NDArray[np.uint8]) -> dict[str, int | str]:
    """Return a sheet of pictures [N >= 1, h, w, 3], row by row: their size, its `columns`, `rows` and `url`."""
    count, height, width, _ = each.shape
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    padded = np.zeros((rows * columns, height, width, 3), np.uint8)
    padded[:count] = each
    tiled = (
        padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    )
    url = "data:image/png;base64," + b64encode(png(tiled)).decode()
    return {"width": width, "height": height, "columns": columns, "rows": rows, "url": url}


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of `pixels`, uint8 [H, W, 3].

    Source: W3C, "Portable Network Graphics (PNG) Specification", colour type 2, filter 0.
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
