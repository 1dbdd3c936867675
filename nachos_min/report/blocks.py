"""Images and signals drawn with characters: colours in a terminal that has them, else shades of plain ASCII.

A character cell is about twice as high as wide, so that it holds two pixels, one above the other.
"""

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from nachos_min.data import resize

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
