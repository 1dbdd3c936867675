"""Folders of images, written and read again with Pillow."""

import os
import sys

import numpy as np
import pytest

from nachos_min.data import DataError, load, readers
from nachos_min.data.limits import Asked, Room

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")
RANDOM = np.random.default_rng(0)


def picture(shape=(6, 5), kind=np.uint8):
    """Return random pixels, [H, W] or [H, W, C]."""
    return RANDOM.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


def put(path, pixels, **saving):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **saving)
    return path


def message(path, max_bytes=10**8):
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:  # one line
        readers.read(path, Asked(Room(str(path), max_bytes)))
    return str(caught.value).removeprefix(f"{path}: ")


def by_pillow(path, mode="RGB"):
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "bmp", "gif", "webp", "ppm"])
@pytest.mark.parametrize("colour", [False, True])
def test_one_level_in_the_order_of_names(tmp_path, ending, colour):
    mode = "RGB" if colour or ending in ("gif", "webp") else "L"  # which do not keep that an image is grey
    names = ["b/10", "b/9", "B/1", "a/1", "a/deeper/2"]
    files = [put(tmp_path / f"{name}.{ending}", picture((6, 5, 3) if colour else (6, 5))) for name in names]
    order = [2, 3, 4, 0, 1]
    read = readers.read(tmp_path)
    assert read["class_names"] == ("B", "a", "b")
    np.testing.assert_array_equal(read["labels"], [0, 1, 1, 2, 2])
    expected = np.stack([by_pillow(files[index], mode) for index in order])
    np.testing.assert_array_equal(read["images"], expected, strict=True)
    assert read["notes"] == ()


@pytest.mark.parametrize(
    "held", [("valid", "test"), ("Val", "test"), ("validation", None), ("dev", None), (None, "test")]
)
def test_folders_of_splits(tmp_path, held):
    """CINIC-10 has train, valid and test; Imagenette has train and val, its val is used as test."""
    pixels = {}
    for split in ("train", *filter(None, held)):
        for name in ("n01", "n02"):
            pixels[split, name] = picture((4, 4, 3))
            put(tmp_path / split / name / "x.png", pixels[split, name])
    (tmp_path / "noisy.csv").write_text("beside the splits anything may lie")
    read = readers.read(tmp_path)
    validation, test = held if held[1] else (None, held[0])
    for prefix, split in (("", "train"), ("validation_", validation), ("test_", test)):
        assert (f"{prefix}images" in read) == (split is not None)
        if split is not None:
            np.testing.assert_array_equal(read[f"{prefix}images"], [pixels[split, "n01"], pixels[split, "n02"]])
            np.testing.assert_array_equal(read[f"{prefix}labels"], [0, 1])
    said = f"there is no test split: {held[0]} is used as test, and a validation split is made of train"
    assert read["notes"] == (() if held[1] else (said,))


def test_a_class_named_train_and_a_test_folder_without_classes(tmp_path):
    for name in ("train", "bus"):
        put(tmp_path / "vehicles" / name / "x.png", picture())
    assert readers.read(tmp_path / "vehicles")["class_names"] == ("bus", "train")
    for name in ("a", "b"):
        put(tmp_path / "kaggle" / "train" / name / "x.png", picture())
    put(tmp_path / "kaggle" / "test" / "x.png", picture())
    read = readers.read(tmp_path / "kaggle")
    assert "test_images" not in read
    assert read["notes"] == ("test is not used: it holds no folder for each class",)


def test_what_systems_leave_is_skipped_and_other_files_are_said(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name / "x.png", picture())
        (tmp_path / name / "Thumbs.db").write_bytes(b"x")
    put(tmp_path / "a" / "._x.png", picture(), format="PNG")
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        put(tmp_path / name / "x.png", picture())
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("beside the classes anything may lie")
    for run in (tmp_path / "runs" / "own", tmp_path / "run"):  # of searches that were started here
        run.mkdir(parents=True)
        (run / "run.h5").write_bytes(b"x")
    assert readers.read(tmp_path)["notes"] == ()
    (tmp_path / "b" / "labels.txt").write_text("words")
    (tmp_path / "b" / "x.tiff").write_text("words")
    read = readers.read(tmp_path)
    assert len(read["images"]) == 2
    assert read["notes"] == ("files that are no images are left out: 2, the first is b/labels.txt",)


GREY, COLOUR = picture((6, 5)), picture((6, 5, 3))
CLEAR = np.concatenate([COLOUR, picture((6, 5, 1))], axis=2)
SIXTEEN = picture((6, 5), np.uint16)


def on_white(pixels):
    alpha = pixels[..., -1:] / 255
    return pixels[..., :-1] * alpha + 255 * (1 - alpha)


# Of one image beside a grey one: its name, how it is made, the expected pixels, and what is said.
MODES = [
    ("x.png", GREY > 99, np.where(GREY > 99, 255, 0), None),
    ("x.png", SIXTEEN, SIXTEEN >> 8, "1 of 2 images are of 16 bits a value, and cut to the upper 8"),
    ("x.pgm", SIXTEEN, SIXTEEN >> 8, "1 of 2 images are of 16 bits a value, and cut to the upper 8"),
    ("x.png", CLEAR[..., :2], on_white(CLEAR[..., :2])[..., 0], "1 of 2 images are transparent, and put on white"),
    ("x.png", CLEAR, on_white(CLEAR), "1 of 2 images are transparent, and put on white"),
    ("x.png", np.dstack([COLOUR, np.full((6, 5), 255, np.uint8)]), COLOUR, None),
    ("x.png", Image.fromarray(COLOUR).quantize(30), COLOUR, None),
    ("x.jpg", Image.fromarray(COLOUR).convert("CMYK"), None, None),
]


@pytest.mark.parametrize(("name", "made", "expected", "said"), MODES)
def test_every_kind_of_pixels_becomes_bytes(tmp_path, name, made, expected, said):
    put(tmp_path / "a" / "x.png", GREY)
    path = put(tmp_path / "b" / name, made)
    read, notes = readers.read(tmp_path), [said] if said else []
    expected = by_pillow(path) if expected is None else expected
    if expected.ndim == 3:
        notes.append("1 of 2 images are grey among coloured ones, and get three equal channels")
    np.testing.assert_array_equal(read["images"][0], np.repeat(GREY[..., None], 2 * expected.ndim - 3, axis=2))
    np.testing.assert_allclose(read["images"][1].squeeze(), expected, atol=1)
    assert sorted(read["notes"]) == sorted(notes)


def test_an_orientation_and_the_first_of_several_frames(tmp_path):
    turned = Image.fromarray(COLOUR)
    turned.getexif()[0x0112] = 6
    frames = [Image.fromarray(picture((5, 6, 3))) for _ in range(3)]
    put(tmp_path / "a" / "x.png", turned, exif=turned.getexif())
    path = put(tmp_path / "b" / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    read = readers.read(tmp_path)["images"]
    np.testing.assert_array_equal(read[0], np.rot90(COLOUR, -1))
    np.testing.assert_array_equal(read[1], by_pillow(path))


def at(resolution):
    return Asked(Room("folder"), resolution)


def resized(pixels, size):
    """Return the pixels at `size`, (H, W), by Pillow."""
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))


def test_sizes(tmp_path):
    """Images of one size of at most 96 pixels are kept; others are resized, of several sizes also cropped."""
    shapes = {"kept": [(96, 120)] * 2, "large": [(97, 120)] * 2, "several": [(40, 50), (130, 97), (64, 64)]}
    images = {name: [picture((*shape, 3)) for shape in each] for name, each in shapes.items()}
    for name, each in images.items():
        for number, pixels in enumerate(each):
            put(tmp_path / name / str(number) / "x.png", pixels)
    read = {name: readers.read(tmp_path / name) for name in shapes}
    np.testing.assert_array_equal(read["kept"]["images"], images["kept"])
    np.testing.assert_array_equal(read["large"]["images"], [resized(each, (64, 79)) for each in images["large"]])
    assert read["large"]["notes"] == ("images of 97x120 pixels are resized to 64x79",)
    first, second, third = images["several"]
    expected = [resized(first, (64, 80))[:, 8:72], resized(second, (86, 64))[11:75], third]
    np.testing.assert_array_equal(read["several"]["images"], expected)
    said = "images of 3 sizes, from 40x50 to 130x97 pixels, are resized to a shorter side of 64"
    assert read["several"]["notes"] == (f"{said} and cropped to the square at their centre",)

    alike = [picture((100, 200, 3)), picture((200, 400, 3))]  # of one size once the shorter side is 64
    for number, pixels in enumerate(alike):
        put(tmp_path / "alike" / str(number) / "x.png", pixels)
    expected = [resized(each, (64, 128))[:, 32:96] for each in alike]
    np.testing.assert_array_equal(readers.read(tmp_path / "alike")["images"], expected)

    np.testing.assert_array_equal(
        readers.read(tmp_path / "kept", at(32))["images"], [resized(each, (32, 40)) for each in images["kept"]]
    )
    small = readers.read(tmp_path / "several", at(16))["images"]
    np.testing.assert_array_equal(small[2], resized(third, (16, 16)))
    assert small.shape == (3, 16, 16, 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "webp", "ppm"])
def test_damaged_images_are_counted_and_the_first_is_named(tmp_path, ending):
    for name in ("a/1", "a/2", "b/1"):
        path = put(tmp_path / f"{name}.{ending}", picture((40, 40, 3)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert message(tmp_path).startswith(f"1 of 3 images cannot be read, the first is b/1.{ending}: ")
    (tmp_path / f"a/2.{ending}").write_text("words")
    assert message(tmp_path) == f"2 of 3 images cannot be read, the first is a/2.{ending}: not an image"


def test_images_of_other_formats_or_enormous_ones(tmp_path, monkeypatch):
    put(tmp_path / "a" / "x.png", picture())
    put(tmp_path / "b" / "x.png", picture(), format="TIFF")
    assert message(tmp_path) == "1 of 2 images cannot be read, the first is b/x.png: not an image"
    put(tmp_path / "b" / "x.png", picture((2, 65)))
    assert message(tmp_path).endswith("the first is b/x.png: a side is over 32 times the other")
    (tmp_path / "b" / "x.png").unlink()
    (tmp_path / "b" / "x.ppm").write_bytes(b"Pf 2 2 -1.0\n" + bytes(16))
    assert message(tmp_path).endswith("the first is b/x.ppm: its pixels are of the kind F")
    (tmp_path / "b" / "x.ppm").write_bytes(b"P6 100000 100000 255\n" + bytes(16))
    assert "decompression bomb" in message(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 25)
    put(tmp_path / "b" / "x.ppm", picture())
    assert "exceeds limit of 25 pixels" in message(tmp_path)
    monkeypatch.undo()
    said = "at most {} bytes are decoded, got {} with {}; --max-bytes raises the limit"
    assert message(tmp_path, 1500) == said.format("1,500", "2,000", "the list of files")
    assert message(tmp_path, 2050).endswith("with b/x.ppm; --max-bytes raises the limit")
    put(tmp_path / "b" / "x.ppm", picture((4, 4)))
    assert message(tmp_path, 8000) == said.format("8,000", "10,192", "images at 64x64")


def test_folders_that_are_no_data_set(tmp_path, monkeypatch):
    known = ".bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .webp"
    put(tmp_path / "x.png", picture())
    none = f"a folder of images must hold a folder for each class with images ({known}), got none"
    assert message(tmp_path) == none
    (tmp_path / "b").mkdir()
    assert message(tmp_path) == none
    put(tmp_path / "a" / "x.png", picture())
    assert message(tmp_path) == f"each class must have an image ({known}), 'b' has none"
    (tmp_path / "b").rmdir()
    with pytest.raises(DataError, match="labels must name at least 2 classes, got 1"):
        load(str(tmp_path))
    for name in ("train/cat", "train/dog", "test/cat", "test/emu"):
        put(tmp_path / "pets" / name / "x.png", picture())
    assert message(tmp_path / "pets") == "classes must be those of train, another split has 'emu', too"
    monkeypatch.setitem(sys.modules, "PIL", None)
    said = "a folder of images needs Pillow: pip install 'nachos_min[images]'"
    assert message(tmp_path) == said


def test_a_link_that_leads_back(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name / "x.png", picture())
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(
        DataError, match=r"a/loop: a folder of data must hold no links, put there what it leads to\Z"
    ):
        readers.read(tmp_path)


def test_class_names_and_notes_reach_the_data_set(tmp_path):
    for name in ("cat", "dog"):
        for number in range(10):
            put(tmp_path / name / f"{number}.jpg", picture((100, 100, 3)))
    data = load(tmp_path, resolution=8)
    assert (data.class_names, data.image_shape, data.classes) == (("cat", "dog"), (8, 8, 3), 2)
    assert data.notes[0] == "images of 100x100 pixels are resized to 8x8"


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are those of Unix")
def test_links_back_and_pipes(tmp_path):
    for number in range(6):
        put(tmp_path / "ab"[number % 2] / f"{number}.png", picture())
    link = tmp_path.with_name(f"{tmp_path.name}-link")
    link.symlink_to(tmp_path)
    assert readers.read(link)["class_names"] == ("a", "b"), "the user may name a link"
    (tmp_path / "c").symlink_to(".")
    assert "/c: a folder of data must hold no links, put there what it leads to" in message(tmp_path)
    (tmp_path / "c").unlink()
    os.mkfifo(tmp_path / "a" / "x.png")
    assert message(tmp_path) == "1 of 7 images cannot be read, the first is a/x.png: it is a pipe, not a file"
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "self").symlink_to(".")
    assert "alone/self: a folder of data must hold no links" in message(tmp_path / "alone")
