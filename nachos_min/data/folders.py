"""Folders of images, a folder a class, read with Pillow: the extra `images`.

Either the folder holds the classes, or it holds train, and maybe validation and test, which hold the classes.
Pixels become bytes: 16 bits are cut to 8, transparent images are put on white, an orientation in Exif is applied.
Left out: images without classes, several labels an image.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import REDUCED, DataError, extent, fitted_size, kind_of
from nachos_min.data.limits import Asked, Room
from nachos_min.files import open_file

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"}
_DECODERS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
_SPLITS = {"": ("train", "training"), "validation_": ("validation", "valid", "val", "dev"), "test_": ("test",)}
_NOT_DATA = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems leave in folders, beside hidden files
_ORIENTATION = 0x0112  # its key in Exif
_FILE = 1000  # bytes that the name of a file counts, in the forms in which it is kept
_OPAQUE, _TRANSPARENT = 12, 24  # bytes of a pixel while it is decoded, turned, and put on white
_READS = 1 << 18  # of one file by its decoder, which take half a second
_EXIF = 1 << 16  # bytes of the Exif of an image; each of its entries may ask for all of them
_LONGEST = 32  # times the shorter side: an image of 2 pixels by a million would be resized to an enormous one

Classes = dict[str, list[Path]]
# Shape -> pixels of the images that have it, their places
Groups = dict[tuple[int, ...], tuple[bytearray, list[int]]]


def inside(folder: Path) -> list[Path]:
    """Return what a person put into a folder, by name: the same order on every machine; without folders of runs.

    DataError for a link: it may lead anywhere, and back.
    """
    kept = [each for each in folder.iterdir() if each.name[0] != "." and each.name not in _NOT_DATA]
    if (link := next((each for each in kept if each.is_symlink()), None)) is not None:
        raise DataError(f"{link}: a folder of data must hold no links, put there what it leads to")
    return sorted((each for each in kept if not _holds_runs(each)), key=lambda each: each.name)


def _holds_runs(path: Path) -> bool:
    """Return whether a search inside a folder of images has made this one for its results."""
    return path.is_dir() and any(next(path.glob(run), None) for run in ("run.h5", "*/run.h5"))


def holds_images(path: Path) -> bool:
    """Return whether `path` is a folder with images or with folders."""
    return path.is_dir() and any(each.is_dir() or _is_image(each) for each in inside(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def read_images(path: Path, asked: Asked) -> dict[str, Any]:
    """Return images uint8 [N, H, W, C], labels int64 [N], those of other splits, class_names, files and notes.

    C is 1 if all images are grey, else 3. Images of one size are kept if their shorter side is at most 96.
    Otherwise the shorter side becomes the resolution (64), and images of several sizes are cropped to squares
    around the centre. Samples stand in the order of their classes' and files' names.

    With an expected shape (H, W, C), labels may be missing: of a file, or of a folder that holds images itself. If
    it is a square that images of several sizes would become, they become it, and grey ones get C channels.
    DataError if Pillow or images are missing, a split has other classes, or a file cannot be read as an image.
    """
    notes: list[str] = []
    if not asked.labelled and (path.is_file() or not any(_classes(path, [], replace(asked.room)).values())):
        bare = [path] if path.is_file() else [*filter(_is_image, inside(path))]
        if bare:
            pixels = _read(bare[0].parent, bare, asked, notes)
            return {"images": pixels, "files": tuple(each.name for each in bare)}
    splits = _splits(path, notes, asked.room)
    names = tuple(splits[""])
    numbers = {name: number for number, name in enumerate(names)}
    listed = [(file, name) for split in splits.values() for name, files in split.items() for file in files]
    labels = np.array([numbers[name] for _, name in listed], np.int64)
    pixels = _read(path, [file for file, _ in listed], asked, notes)
    arrays: dict[str, Any] = {"class_names": names, "notes": tuple(notes)}
    begin = 0
    for prefix, split in splits.items():
        end = begin + sum(map(len, split.values()))
        arrays[f"{prefix}images"] = pixels[begin:end]
        arrays[f"{prefix}labels"] = labels[begin:end]
        arrays[f"{prefix}files"] = tuple(file.relative_to(path).as_posix() for file, _ in listed[begin:end])
        begin = end
    return arrays


def _files(folder: Path) -> Iterator[Path]:
    for each in inside(folder):
        if each.is_dir():
            yield from _files(each)
        else:
            yield each


def _classes(folder: Path, others: list[Path], room: Room) -> Classes:
    """Return class -> its images; files that are none are added to `others`."""
    classes: Classes = {each.name: [] for each in inside(folder) if each.is_dir()}
    for name, images in classes.items():
        for file in _files(folder / name):
            room.take(_FILE, "the list of files")
            (images if _is_image(file) else others).append(file)
    return classes


def _splits(path: Path, notes: list[str], room: Room) -> dict[str, Classes]:
    """Return prefix of the split -> class -> its images."""
    folders = {each.name.lower(): each for each in inside(path) if each.is_dir()}
    named = {prefix: folders[name] for prefix, names in _SPLITS.items() for name in names if name in folders}
    others: list[Path] = []
    if "" in named and _classes(named[""], [], replace(room)):
        splits = {prefix: _classes(folder, others, room) for prefix, folder in named.items()}
    else:  # also where a class is called train
        splits = {"": _classes(path, others, room)}
    for prefix in [prefix for prefix, split in splits.items() if prefix and not split]:
        notes.append(f"{named[prefix].name} is not used: it holds no folder for each class")
        del splits[prefix]
    if "validation_" in splits and "test_" not in splits:
        used = f"{named['validation_'].name} is used as test, and a validation split is made of {named[''].name}"
        notes.append(f"there is no test split: {used}")
        splits["test_"] = splits.pop("validation_")
    known = ", ".join(sorted(ENDINGS))
    if not any(splits[""].values()):
        raise DataError(
            f"{path}: a folder of images must hold a folder for each class with images ({known}), got none"
        )
    for split in splits.values():
        for name, images in split.items():
            if name not in splits[""]:
                raise DataError(
                    f"{path}: classes must be those of {named[''].name}, another split has {name!r}, too"
                )
            if not images:
                raise DataError(f"{path}: each class must have an image ({known}), {name!r} has none")
    if others:
        first = others[0].relative_to(path)
        notes.append(f"files that are no images are left out: {len(others):,}, the first is {first}")
    return splits


def _read(path: Path, files: list[Path], asked: Asked, notes: list[str]) -> NDArray[np.uint8]:
    """Return the pixels of all files, [N, H, W, C]; what was done is added to `notes`."""
    done, resolution, expected = Counter[str](), asked.resolution, asked.expected
    groups, sizes = _decoded(path, files, asked, done)
    grey = sum(len(places) for shape, (_, places) in groups.items() if len(shape) == 2)
    if grey < len(files):
        done["grey among coloured ones, and get three equal channels"] = grey
    notes += [f"{count:,} of {len(files):,} images are {what}" for what, count in sorted(done.items()) if count]
    least, most = min(sizes), max(sizes)
    square = (resolution or REDUCED,) * 2  # is expected if the images trained on had several sizes
    several = least != most or (expected is not None and expected[:2] == square)
    size = square if several else fitted_size(least, resolution)
    if least != most:
        what = f"images of {len(sizes):,} sizes, from {extent(least)} to {extent(most)} pixels, are resized"
        notes.append(f"{what} to a shorter side of {size[0]} and cropped to the square at their centre")
    elif size != least:
        notes.append(f"{kind_of(least)} are resized to {extent(size)}")
    colours = 3 if expected is not None and expected[2] == 3 else 1
    wanted = (len(files), *size, colours if grey == len(files) else 3)
    (shape, (content, _)), *others = groups.items()
    if not others and shape[:2] == size and len(content) == prod(wanted):
        return np.frombuffer(content, np.uint8).reshape(wanted)
    kept = sum(len(content) for content, _ in groups.values())
    asked.room.take(max(0, prod(wanted) - kept), f"images at {extent(size)}")
    made = np.empty(wanted, np.uint8)
    for shape, (content, places) in groups.items():
        images = np.frombuffer(content, np.uint8).reshape(len(places), *shape)
        for place, image in zip(places, images, strict=True):
            fitted = image if shape[:2] == size else _square(image, size[0])
            made[place] = fitted.reshape(*size, -1)
    return made


def _decoded(
    path: Path, files: list[Path], asked: Asked, done: Counter[str]
) -> tuple[Groups, set[tuple[int, int]]]:
    """Return the pixels of all files, at their resolution; and the sizes before. What was done is counted."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError(f"{path}: a folder of images needs Pillow: pip install 'nachos_min[images]'") from None

    groups: Groups = {}
    sizes: set[tuple[int, int]] = set()
    failed = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd in Exif and palettes
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for place, file in enumerate(files):
            try:
                with open_file(file, links=len(files) == 1) as stored:
                    name, held = str(file.relative_to(path)), 4 * os.fstat(stored.fileno()).st_size
                    asked.room.check(held, name)  # texts and profiles in it are read several times
                    with Image.open(_Counted(stored), formats=_DECODERS) as opened:  # type: ignore[arg-type]  # Pillow only reads
                        clear = opened.mode in ("LA", "PA", "RGBA") or "transparency" in opened.info
                        pixel = _TRANSPARENT if clear else _OPAQUE
                        asked.room.check(opened.width * opened.height * pixel + held, name)
                        picture = _plain(opened, done)
                if max(picture.size) > _LONGEST * min(picture.size):
                    raise ValueError(f"a side is over {_LONGEST} times the other")
            except DataError:
                raise
            except Exception as error:  # decoders raise any exception
                reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
                if isinstance(error, OSError) and error.filename is not None:
                    reason = error.strerror or "unreadable"
                failed.append(f"{file.relative_to(path)}: {reason}")
                continue
            size = (picture.height, picture.width)
            sizes.add(size)
            fitted = fitted_size(size, asked.resolution)
            asked.room.take(prod(fitted) * len(picture.getbands()), str(file.relative_to(path)))
            pixels = _resized(picture, fitted)
            content, places = groups.setdefault(pixels.shape, (bytearray(), []))
            content += pixels.tobytes()
            places.append(place)
    if failed:
        raise DataError(f"{path}: {len(failed)} of {len(files)} images cannot be read, the first is {failed[0]}")
    return groups, sizes


@final
class _Counted:
    """A file of an image that a decoder reads; it may consist of parts that are too many to look at."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.seek, self.tell, self._reads = file, file.seek, file.tell, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        self._reads += 1
        if self._reads > _READS:
            raise ValueError(f"its decoder would read more than {_READS:,} parts")
        return self._file.read(size)


def _check_exif(picture: "Picture") -> None:
    """Refuse Exif of which Pillow would make much more than it is."""
    for name in ("exif", "Raw profile type exif"):
        exif = picture.info.get(name, b"")
        head = exif[6:] if exif[:4] == b"Exif" else exif
        order: Any = "little" if head[:2] == b"II" else "big"
        first = int.from_bytes(head[4:8], order) if name == "exif" else 0
        if len(exif) > _EXIF or int.from_bytes(head[first : first + 2], order) * len(exif) > 1 << 24:
            raise ValueError("its Exif is damaged or too large")


def _plain(picture: "Picture", done: Counter[str]) -> "Picture":
    """Return an upright picture in grey ("L") or colour ("RGB"), a byte a value; count what had to be done."""
    from PIL import Image, ImageOps

    picture.load()  # some formats have their Exif at the end
    _check_exif(picture)
    turned = picture.getexif().get(_ORIENTATION, 1) != 1
    upright = ImageOps.exif_transpose(picture) if turned else picture
    mode = upright.mode
    if mode in ("I", "I;16", "I;16B", "I;16L"):  # Pillow's own conversion clips at 255
        done["of 16 bits a value, and cut to the upper 8"] += 1
        return Image.fromarray((np.asarray(upright).clip(0, 65_535) >> 8).astype(np.uint8))
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(f"its pixels are of the kind {mode}")
    target = "L" if mode in ("1", "L", "LA") else "RGB"
    if mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        if layer.getchannel("A").getextrema() != (255, 255):
            done["transparent, and put on white"] += 1
            layer = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return layer.convert("RGB").convert(target)
    return upright if mode == target else upright.convert(target)


def _resized(picture: "Picture", size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the pixels at `size`, (H, W); the weights are those of `dataset.resize`."""
    from PIL import Image

    wanted = size[::-1]
    return np.asarray(picture if picture.size == wanted else picture.resize(wanted, Image.Resampling.BILINEAR))


def _square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the square of `side` pixels at the centre, once the shorter side is as long."""
    from PIL import Image

    if min(pixels.shape[:2]) != side:
        pixels = _resized(Image.fromarray(pixels), fitted_size((pixels.shape[0], pixels.shape[1]), side))
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]
