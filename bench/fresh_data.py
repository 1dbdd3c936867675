"""Data sets that nothing in this project was tuned on: training images, and many fresh ones to judge by.

    python bench/fresh_data.py letters --out letters.npz                # 16 x 16 grey, the 26 capital letters
    python bench/fresh_data.py shapes --out shapes.npz --seed 1         # 32 x 32 colour, 10 textured shapes
    python -m nachos_min search --data letters.npz --space small32

The fresh images are the file's test split. Each image is drawn independently, the fonts are the same in both
splits. The same seed and the same versions of NumPy and matplotlib give the same file.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fire import Fire
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter

Floats = NDArray[np.floating[Any]]
Images = tuple[NDArray[np.uint8], NDArray[np.int64]]

FONTS = re.compile(r"DejaVuSans(Mono)?(-.*)?|DejaVuSerif(-.*)?|STIXGeneral.*|cm(b|mi|r|ss|ti|tt)10")  # with letters
GLYPH = 64  # side of a glyph's bitmap: four pixels for one of the image
GROUP = 500  # images drawn at once, to bound the memory


def letters(count: int, rng: np.random.Generator) -> Images:
    """Return grey images of capital letters, and which letter each shows.

    Args:
        count: images, >= 1; every letter equally often, give or take one.
        rng: of everything drawn.

    Returns:
        uint8 [count, 16, 16], and int64 [count] from 0 to 25.
    """
    fonts, side, fine = _glyphs(), 16, 3

    def draw(labels: NDArray[np.int64]) -> Floats:
        n = len(labels)
        glyph = fonts[rng.integers(len(fonts), size=n), labels]
        x, y = _placed(n, side * fine, rng, size=(0.75, 1.1), shift=0.12, turn=np.pi / 12, shear=0.25)
        which = np.broadcast_to(np.arange(n)[:, None, None], x.shape)
        rows, columns = (each * (GLYPH / 2) + (GLYPH - 1) / 2 for each in (y, x))
        cover = _pooled(map_coordinates(glyph, [which, rows, columns], order=1), fine)
        cover += rng.uniform(0, 0.9, (n, 1, 1)) * (uniform_filter(cover, (0, 3, 3)) - cover)
        contrast = rng.uniform(0.4, 0.9, (n, 1, 1))
        ground = rng.uniform(0, 1 - contrast)
        slope = rng.uniform(-0.15, 0.15, (n, 2, 1, 1))
        line = np.linspace(-1, 1, side)
        ground = ground + slope[:, 0] * line + slope[:, 1] * line[:, None]
        return ground + contrast * cover + rng.uniform(0.02, 0.09, (n, 1, 1)) * rng.standard_normal(cover.shape)

    return _drawn(count, 26, draw, rng)


def shapes(count: int, rng: np.random.Generator) -> Images:
    """Return colour images of textured shapes on a textured background, and which shape each shows.

    Both textures and all colours are drawn alike for every shape, so that neither tells the class.

    Args:
        count: images, >= 1; every shape equally often, give or take one.
        rng: of everything drawn.

    Returns:
        uint8 [count, 32, 32, 3], and int64 [count] from 0 to 9, in the order of SHAPES.
    """
    side, fine = 32, 2

    def draw(labels: NDArray[np.int64]) -> Floats:
        n = len(labels)
        x, y = _placed(n, side * fine, rng, size=(0.55, 0.9), shift=0.2, turn=0.3, shear=0.1)
        inside = np.empty(x.shape, dtype=np.float32)
        for label, shape in enumerate(SHAPES.values()):
            chosen = labels == label
            inside[chosen] = shape(x[chosen], y[chosen])
        cover = _pooled(inside, fine)[..., None]
        image = _texture(n, side, rng) * (1 - cover) + _texture(n, side, rng) * cover
        return image + rng.uniform(0.01, 0.08, (n, 1, 1, 1)) * rng.standard_normal(image.shape)

    return _drawn(count, len(SHAPES), draw, rng)


def _star(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Return where five points are: inside at least four of a pentagram's five lines."""
    angles = np.arange(5) * 2 * np.pi / 5
    behind = [x * np.cos(angle) + y * np.sin(angle) < 0.33 for angle in angles]
    return np.asarray(np.sum(behind, axis=0) >= 4)


# Each tells which points are inside, for x and y from about -1 to 1.
SHAPES: dict[str, Callable[[Floats, Floats], NDArray[np.bool_]]] = {
    "disc": lambda x, y: x * x + y * y < 0.72,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.75,
    "triangle": lambda x, y: np.maximum(-y, 0.866 * abs(x) + 0.5 * y) < 0.55,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.7) < 0.22,
    "frame": lambda x, y: abs(np.maximum(abs(x), abs(y)) - 0.63) < 0.18,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.27) & (np.maximum(abs(x), abs(y)) < 0.95),
    "star": lambda x, y: _star(x, y) & (np.hypot(x, y) < 1.2),
    "crescent": lambda x, y: (np.hypot(x, y) < 0.95) & (np.hypot(x - 0.5, y) > 0.75),
    "bar": lambda x, y: (abs(x) < 1) & (abs(y) < 0.35),
    "ell": lambda x, y: (np.maximum(abs(x), abs(y)) < 0.8) & ((x < -0.2) | (y > 0.2)),
}


def _drawn(
    count: int, classes: int, draw: Callable[[NDArray[np.int64]], Floats], rng: np.random.Generator
) -> Images:
    """Return `count` images as uint8, which `draw` gives from 0 to 1, and their labels in random order."""
    labels = rng.permutation(np.arange(count) % classes)
    groups = [draw(labels[begin : begin + GROUP]) for begin in range(0, count, GROUP)]
    return np.concatenate([np.rint(np.clip(group, 0, 1) * 255).astype(np.uint8) for group in groups]), labels


def _glyphs() -> Floats:
    """Return float32 [fonts, 26, GLYPH, GLYPH]: every letter in the middle, three quarters of the side large."""
    files = sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf"))
    chosen = [path for path in files if FONTS.fullmatch(path.stem)]
    found = np.zeros((len(chosen), 26, GLYPH, GLYPH), dtype=np.float32)
    for path, glyphs in zip(chosen, found, strict=True):
        font = FT2Font(str(path))
        for letter, glyph in enumerate(glyphs):
            size = 100.0
            for _ in range(2):  # the first to measure
                font.set_size(size, 72)
                font.set_text(chr(ord("A") + letter))
                font.draw_glyphs_to_bitmap()
                bitmap = np.asarray(font.get_image())
                rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
                bitmap = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                size *= 0.75 * GLYPH / max(bitmap.shape)
            top, left = (GLYPH - bitmap.shape[0]) // 2, (GLYPH - bitmap.shape[1]) // 2
            glyph[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap / np.float32(255)
    return found


def _placed(
    n: int,
    side: int,
    rng: np.random.Generator,
    size: tuple[float, float],
    shift: float,
    turn: float,
    shear: float = 0.0,
) -> tuple[Floats, Floats]:
    """Return x and y [n, side, side], from -1 to 1 across a drawing placed at random."""
    line = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(2 / side) - 1
    scale, angle, slant, right, down = (
        rng.uniform(low, high, (n, 1, 1)).astype(np.float32)
        for low, high in (size, (-turn, turn), (-shear, shear), (-shift, shift), (-shift, shift))
    )
    x, y = line - right, line[:, None] - down
    across, below = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return (across + slant * below) / scale, below / scale


def _pooled(fine: Floats, factor: int) -> Floats:
    """Return the means of factor x factor pixels."""
    side = fine.shape[1] // factor
    return np.asarray(fine.reshape(-1, side, factor, side, factor).mean((2, 4)))


def _texture(n: int, side: int, rng: np.random.Generator) -> Floats:
    """Return [n, side, side, 3]: stripes, checks, dots or patches, in two colours."""
    x, y = _placed(n, side, rng, size=(0.25, 0.7), shift=1, turn=np.pi)
    u, v = np.sin(2 * np.pi * x), np.sin(2 * np.pi * y)
    patches = rng.random((n, side // 4, side // 4)).repeat(4, axis=1).repeat(4, axis=2)
    kinds = np.stack([u > 0, u * v > 0, u + v > 0.8, patches > 0.5])
    pattern = kinds[rng.integers(len(kinds), size=n), np.arange(n)][..., None]
    first, second = rng.random((2, n, 1, 1, 3))
    return np.asarray(np.where(pattern, first, first + 0.25 * (second - first)), dtype=np.float32)


def main(kind: str, out: str = "", train: int = 3000, fresh: int = 10_000, seed: int = 0) -> None:
    """Write a data set.

    Args:
        kind: letters or shapes.
        out: the .npz file to write; named after the kind unless given.
        train: images to train on, from which a search takes its validation split.
        fresh: images of the test split.
        seed: of both splits, each from its own stream.
    """
    draw = {"letters": letters, "shapes": shapes}[kind]
    arrays: dict[str, Any] = {}
    for stream, (prefix, count) in enumerate((("", train), ("test_", fresh))):
        images, labels = draw(count, np.random.default_rng([seed, stream]))
        arrays |= {f"{prefix}images": images, f"{prefix}labels": labels}
    np.savez_compressed(out or f"{kind}.npz", **arrays)


if __name__ == "__main__":
    Fire(main)
