"""Data sets as they are published: IDX files and CIFAR, held against files written by hand in the true layout."""

import codecs
import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from nachos_min.data import DataError, readers
from nachos_min.data.limits import Asked, Room

RANDOM = np.random.default_rng(0)


def message(path, max_bytes=10**6):
    with pytest.raises(DataError, match=r"\A.*\Z") as caught:  # one line
        readers.read(path, Asked(Room(str(path), max_bytes)))
    return str(caught.value).removeprefix(f"{path}: ")


# IDX

MNIST = {
    "train-images-idx3-ubyte": RANDOM.integers(0, 256, (6, 5, 4), np.uint8),
    "train-labels-idx1-ubyte": np.array([2, 0, 1, 2, 1, 0], np.uint8),
    "t10k-images-idx3-ubyte": RANDOM.integers(0, 256, (3, 5, 4), np.uint8),
    "t10k-labels-idx1-ubyte": np.array([0, 1, 2], np.uint8),
}


def idx(array, code=8):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, naming=str, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in MNIST.items():
        place = folder / (naming(name) + ".gz" * packed)
        place.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "naming",
    [
        str,
        lambda name: name.replace("-idx", ".idx"),
        lambda name: "emnist-letters-" + name.replace("t10k", "test"),
    ],
)
def test_a_folder_or_any_file_of_the_mnist_family(tmp_path, naming, packed):
    folder = write_mnist(tmp_path / "mnist", naming, packed)
    for path in (folder, *folder.iterdir()):
        read = readers.read(path)
        for name, expected in zip(("images", "labels", "test_images", "test_labels"), MNIST.values(), strict=True):
            np.testing.assert_array_equal(read[name], expected, strict=True)
        assert ("notes" in read) == ("emnist" in str(next(folder.iterdir())))


def test_torchvisions_folder_and_a_data_set_without_test_files(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", packed=True)
    raw = write_mnist(tmp_path / "MNIST" / "raw")  # torchvision leaves both
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"not looked at")
    assert len(readers.read(tmp_path / "MNIST")["test_images"]) == 3
    for name in [*raw.glob("t10k*")]:
        name.unlink()
    assert readers.read(raw).keys() == {"images", "labels"}


@pytest.mark.parametrize(("code", "kind"), [(9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_other_types_of_numbers(tmp_path, code, kind):
    numbers = RANDOM.integers(-100, 100, (6, 2, 3)).astype(kind)
    (write_mnist(tmp_path) / "train-images-idx3-ubyte").write_bytes(idx(numbers, code))
    read = readers.read(tmp_path)["images"]
    np.testing.assert_array_equal(read, numbers)
    assert read.dtype.isnative


WHOLE = idx(MNIST["train-images-idx3-ubyte"])
BAD_IDX = [
    (b"", "an IDX file must begin with 00 00, a type and 1 to 4 axes, got "),
    (b"\x89PNG" + WHOLE[4:], "an IDX file must begin with 00 00, a type and 1 to 4 axes, got 89 50 4e 47"),
    (b"\0\0\x07\x03" + WHOLE[4:], "an IDX file must begin with 00 00, a type and 1 to 4 axes, got 00 00 07 03"),
    (b"\0\0\x08\xff" + WHOLE[4:], "an IDX file must begin with 00 00, a type and 1 to 4 axes, got 00 00 08 ff"),
    (WHOLE[:10], "declares shape (6,), which is 6 bytes, but holds 0"),
    (WHOLE[:-1], "declares shape (6, 5, 4), which is 120 bytes, but holds 119"),
    (WHOLE + b"\0", "declares shape (6, 5, 4), which is 120 bytes, but holds more"),
    (WHOLE[:4] + b"\xff" * 12, "at most 1,000,000 bytes are decoded, got over 2^63 with train-images-idx3-ubyte"),
    (
        WHOLE[:4] + struct.pack(">3I", 10**2, 40, 50),
        "declares shape (100, 40, 50), which is 200000 bytes, ",
    ),
]


@pytest.mark.parametrize(("content", "said"), BAD_IDX, ids=[said for _, said in BAD_IDX])
@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_idx_file_is_one_line(tmp_path, content, said, packed):
    file = write_mnist(tmp_path, packed=packed) / ("train-images-idx3-ubyte" + ".gz" * packed)
    file.write_bytes(gzip.compress(content) if packed else content)
    assert message(file).startswith(said)


def test_a_damaged_packed_file_and_missing_ones(tmp_path):
    folder = write_mnist(tmp_path, packed=True)
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-12])
    assert "cannot be read" in message(folder)
    file.unlink()
    assert message(folder).startswith("a file of test_images is needed beside the others, found ")
    (folder / "emnist-mnist-train-images-idx3-ubyte").write_bytes(b"")
    assert message(folder) == "holds 2 data sets (, emnist-mnist-): name one of their files"


# CIFAR. Its pages say: planes of red, green and blue; one label, or a coarse and a fine one, in front.

TEN, HUNDRED = [*"abcdefghij"], [f"name{number}" for number in range(100)]


def batch(samples, classes):
    return RANDOM.integers(0, 256, (samples, 3, 32, 32), np.uint8), RANDOM.integers(0, classes, samples)


def binary(images, *labels):
    rows = zip(*labels, images, strict=True)
    return b"".join(bytes(map(int, front)) + image.tobytes() for *front, image in rows)


class Python2(pickle._Pickler):
    """Writes what Python 2 wrote: all text is bytes, under two opcodes that Python 3 reads and never writes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, text):
        raw = text.encode() if isinstance(text, str) else text
        head = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
        self.write(head + raw)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_bytes


def dumped(kind, value):
    """Return the pickle of a dict as one of the Pythons writes it."""
    if kind == "python 2":
        file = io.BytesIO()
        Python2(file, protocol=2).dump(value)
        return file.getvalue().replace(b"cnumpy._core", b"cnumpy.core")
    if kind == "python 3 for 2":
        return pickle.dumps({key.encode(): each for key, each in value.items()}, protocol=2)
    return pickle.dumps(value, protocol=4)


def cifar_10(kind):
    """Return files of the published names, and the five training batches with their test batch."""
    batches = [batch(3 + number, 10) for number in range(6)]
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    if kind == "binary":
        files = {f"{name}.bin": binary(*each) for name, each in zip(names, batches, strict=True)}
        return files | {"batches.meta.txt": "\n".join([*TEN, "", ""]).encode()}, batches
    files = {"batches.meta": dumped(kind, {"label_names": TEN, "num_vis": 3072, "num_cases_per_batch": 10_000})}
    for name, (images, labels) in zip(names, batches, strict=True):
        data = {"batch_label": name, "data": images.reshape(-1, 3072), "labels": labels.tolist(), "filenames": TEN}
        files[name] = dumped(kind, data)
    return files, batches


def cifar_100(kind):
    batches = [batch(7, 100), batch(2, 100)]
    coarse = [labels // 5 for _, labels in batches]
    both = [*zip(("train", "test"), coarse, batches, strict=True)]
    if kind == "binary":
        files = {f"{name}.bin": binary(images, other, labels) for name, other, (images, labels) in both}
        return files | {
            "fine_label_names.txt": "\n".join(HUNDRED).encode(),
            "coarse_label_names.txt": b"x",
        }, batches
    files = {"meta": dumped(kind, {"fine_label_names": HUNDRED, "coarse_label_names": TEN})}
    for name, other, (images, labels) in both:
        data = {"data": images.reshape(-1, 3072), "fine_labels": labels.tolist(), "coarse_labels": other.tolist()}
        files[name] = dumped(kind, data)
    return files, batches


def unpacked(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "readme.html").write_text("words")
    return folder


def packed(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("cifar")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["binary", "python 2", "python 3 for 2", "python 3"])
@pytest.mark.parametrize(("make", "names"), [(cifar_10, TEN), (cifar_100, HUNDRED)])
def test_cifar_unpacked_or_not(tmp_path, make, names, kind):
    files, batches = make(kind)
    backwards = dict(reversed(files.items()))
    folder = unpacked(tmp_path / "cifar", files)
    first = folder / next(iter(files))
    packs = packed(tmp_path / "cifar.tar.gz", files), packed(tmp_path / "cifar.tar", backwards, "w")
    for path in (folder, first, *packs):
        read = readers.read(path)
        assert read["class_names"] == tuple(names)
        for prefix, parts in (("", batches[:-1]), ("test_", batches[-1:])):
            images = np.concatenate([images for images, _ in parts]).transpose(0, 2, 3, 1)
            np.testing.assert_array_equal(read[f"{prefix}images"], images, strict=True)
            np.testing.assert_array_equal(read[f"{prefix}labels"], np.concatenate([labels for _, labels in parts]))
        assert read["images"].flags.c_contiguous


def test_the_pickles_are_of_every_kind_and_columns_may_come_first(tmp_path):
    kinds = {kind: cifar_10(kind)[0]["data_batch_1"] for kind in ("python 2", "python 3 for 2", "python 3")}
    assert ["_codecs" in str(each) for each in kinds.values()] == [False, True, False]
    assert ["numpy._core" in str(each) for each in kinds.values()] == [False, True, True]
    files, batches = cifar_10("python 2")
    images, labels = batches[0]
    by_columns = np.asfortranarray(images.reshape(-1, 3072))
    files["data_batch_1"] = pickle.dumps({"data": by_columns, "labels": labels.tolist()}, protocol=4)
    read = readers.read(unpacked(tmp_path / "cifar", files))
    np.testing.assert_array_equal(read["images"][: len(images)], images.transpose(0, 2, 3, 1))


BINARY, _ = cifar_10("binary")
ROW = BINARY["data_batch_1.bin"][:3073]
BAD_CIFAR = [
    ({"data_batch_3.bin": None}, "all files of one version of CIFAR are needed"),
    ({"train": pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]})},
     "all files of one version of CIFAR are needed"),
    ({"data_batch_3.bin": ROW[:-1]}, "data_batch_3.bin must have rows of 3073 bytes, got 3072 bytes"),
    ({"data_batch_3.bin": b""}, "data_batch_3.bin must have rows of 3073 bytes, got 0 bytes"),
    ({"test_batch.bin": b"\x0a" + ROW[1:]}, "test_batch.bin: labels must be from 0 to 9, got 10"),
    ({"batches.meta.txt": b"cat dog"}, "batches.meta.txt must list the names of 10 classes, got 2"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), BAD_CIFAR, ids=[said for _, said in BAD_CIFAR])
def test_bad_binary_files_are_one_line(tmp_path, changes, said):
    files = {name: content for name, content in (BINARY | changes).items() if content is not None}
    assert message(unpacked(tmp_path / "cifar", files)).startswith(said)
    assert message(packed(tmp_path / "cifar.tar.gz", files)).startswith(said)


class Evil:
    """Something whose pickle calls a function when it is loaded."""

    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


def as_batch(**changes):
    good = {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 4]}
    return pickle.dumps({name: value for name, value in (good | changes).items() if value is not None}, protocol=2)


MARK = Path("executed")  # in the test's folder
FORGED = np.zeros((2, 3072), np.uint8).__reduce__()
BAD_PICKLES = [
    (pickle.dumps(Evil(Path.touch, MARK)), "it asks for pathlib"),
    (as_batch(data=Evil(exec, "open('executed', 'w')")), "it asks for __builtin__.exec"),
    (as_batch(labels=Evil(np.load, "executed")), "it asks for numpy.load"),
    (as_batch(labels=Evil(codecs.decode, b"x", "zip")), "it asks for _codecs.decode"),
    (as_batch(data=Evil(codecs.encode, "x", "rot13")), "data must be an array of bytes, got _Arguments"),
    (as_batch(data=np.zeros((2, 3072), np.int64)), "data must be an array of bytes, got _Arguments"),
    (as_batch(data=np.array([[{}]], object)), "data must be an array of bytes, got _Arguments"),
    (as_batch(data=Evil(np.ndarray, (10**12,))), "data must be an array of bytes, got _Arguments"),
    (as_batch(data=[[0] * 3072]), "data must be an array of bytes, got list"),
    (as_batch(data=None), "data must be an array of bytes, got NoneType"),
    (as_batch(data=np.zeros((2, 3071), np.uint8)), "data must be [N, 3072], N >= 1, got shape (2, 3071)"),
    (as_batch(labels=[1]), "labels must be a list of 2 whole numbers"),
    (as_batch(labels=[1, 2.5]), "labels must be a list of 2 whole numbers"),
    (as_batch(labels=[1, -1]), "labels must be from 0 to 9, got -1"),
    (as_batch(labels=None), "labels must be a list of 2 whole numbers"),
    (pickle.dumps([1, 2]), "data_batch_1 must hold a dict, got list"),
    (as_batch()[:-50], "data_batch_1 must be a whole pickle of arrays, it cannot be read ("),
    (b"\x80\x02cos\nsystem\n.", "it asks for os.system"),
    (
        b"\x80\x02}r\xff\xff\xff\x7f.",
        "data must be an array of bytes, got NoneType",
    ),  # an index to set aside memory for
    (b"these are words", "data_batch_1 must be a whole pickle of arrays, it cannot be read ("),
    (b"", "data_batch_1 must be a whole pickle of arrays, it cannot be read ("),
]


@pytest.mark.parametrize(("content", "said"), BAD_PICKLES, ids=[said for _, said in BAD_PICKLES])
def test_a_pickle_of_anything_but_arrays_is_one_line_and_nothing_runs(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    files, _ = cifar_10("python 2")
    for path in (
        unpacked(tmp_path / "cifar", files | {"data_batch_1": content}),
        packed(tmp_path / "cifar.tgz", files | {"data_batch_1": content}),
    ):
        assert said in message(path)
    assert not MARK.exists()


@pytest.mark.parametrize("name", ["/cifar/data_batch_1.bin", "../data_batch_1.bin", "cifar/../../data_batch_1.bin"])
def test_names_that_lead_out_of_an_archive(tmp_path, name):
    packed(tmp_path / "cifar.tar", BINARY, "w")
    with tarfile.open(tmp_path / "cifar.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo(name))
    said = f"an archive must hold files and folders below its own place only, got '{name}'"
    assert message(tmp_path / "cifar.tar") == said
    assert [each.name for each in tmp_path.iterdir()] == ["cifar.tar"], "nothing was written"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files(tmp_path, kind):
    member = tarfile.TarInfo("cifar/data_batch_1.bin")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "cifar.tar", "w") as archive:
        archive.addfile(member)
    said = f"an archive must hold files and folders only, 'cifar/data_batch_1.bin' is of type {kind!r}"
    assert said in message(tmp_path / "cifar.tar")


def test_archives_too_large_cut_short_or_with_a_file_twice(tmp_path):
    path = packed(tmp_path / "cifar.tar.gz", BINARY)
    whole = path.read_bytes()
    for part in (0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert "cannot be read" in message(path)
    path.write_bytes(whole[:-6] + b"\0\0" + whole[-4:])  # the checksum
    assert "cannot be read" in message(path)
    path.write_bytes(whole)
    said = "at most 9,000 bytes are decoded, got 9,219 with data_batch_1.bin; --max-bytes raises the limit"
    assert message(unpacked(tmp_path / "cifar", BINARY), 9_000) == said
    bomb = packed(tmp_path / "bomb.tgz", {"other": bytes(10**5)})
    assert "at most 9,000 bytes are decoded" in message(bomb, 9_000)
    assert "with the unpacked archive" in message(bomb, 9_000)
    packed(tmp_path / "cifar.tar", BINARY, "w")
    with tarfile.open(tmp_path / "cifar.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("cifar/test_batch.bin"))
    assert message(tmp_path / "cifar.tar").endswith("must hold each file once, got a second 'cifar/test_batch.bin'")


def test_an_archive_of_other_data(tmp_path):
    path = packed(tmp_path / "other.tgz", {f"train/{number}.png": b"x" for number in range(120)})
    said = "an archive must be that of CIFAR-10 or CIFAR-100; unpack others, and give the folder"
    assert message(path) == f"{said}, got more than 100 files"
    (tmp_path / "other.zip").write_bytes(b"PK")
    assert message(tmp_path / "other.zip").endswith("got '.zip'; unpack it, and give the folder")


def test_a_folder_in_a_folder(tmp_path):
    files, _ = cifar_10("binary")
    unpacked(tmp_path / "cifar", files)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert len(readers.read(tmp_path)["class_names"]) == 10
