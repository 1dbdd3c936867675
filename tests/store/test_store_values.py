"""Records come back as they were: every type, every bit; what cannot be stored is named."""

import re
import tracemalloc
from functools import partial

import h5py
import numpy as np
import pytest
from h5py import h5d, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nachos_min.store import StoreError, values
from nachos_min.store.values import _seal, decode, encode


def _assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            _assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            _assert_same(a, b)
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()
    else:
        assert repr(left) == repr(right)  # which tells -0.0 from 0.0, and nan is nan


_types = st.one_of(
    *(kind(endianness="?") for kind in (npst.integer_dtypes, npst.unsigned_integer_dtypes, npst.floating_dtypes)),
    *(npst.boolean_dtypes(), npst.complex_number_dtypes(sizes=(64, 128))),
    *(npst.datetime64_dtypes(), npst.timedelta64_dtypes(), npst.unicode_string_dtypes(), npst.byte_string_dtypes()),
)
_arrays = npst.arrays(_types, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
_plain = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=8)
_letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
_keys = st.text(_letters, min_size=1, max_size=6).filter(lambda key: key != ".")
_values = st.recursive(
    _plain | _arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_keys, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=70)
@given(record=st.dictionaries(_keys, _values, max_size=4))
def test_any_record_comes_back(record, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "record.h5"
    for compress in (False, True):
        path.write_bytes(encode(record, compress=compress))
        _assert_same(decode(path, given=compress), record)


@pytest.fixture
def path(tmp_path):
    """A file with a record such as a search stores."""
    record = {"macs": 60000, "table": {"confidence": np.array([0.25, 1.0])}, "text": np.array(["x"])}
    record["layout"] = np.array([(1, 2.5)], dtype=[("a", "<i2"), ("b", ">f8")])
    record |= {"strided": np.arange(12).reshape(3, 4)[::-1, ::2], "note": "x" * 10_000}
    path = tmp_path / "record.h5"
    path.write_bytes(encode(record))
    _assert_same(decode(path), record)
    return path


def test_arrays_can_be_changed_compressed_and_read_by_any_other_reader_of_hdf5(path):
    record = decode(path)
    record["table"]["confidence"][0] = 1
    record["text"][0] = "y"
    repeats = {"repeats": np.arange(4000) // 100}
    assert len(encode(repeats, compress=True)) < len(encode(repeats)) / 5
    with h5py.File(path, "r") as file:
        assert file["macs"][()] == b"60000"
        np.testing.assert_array_equal(file["table/confidence"][()], [0.25, 1.0])


def _sealed(make) -> bytes:
    """A file with whatever `make` puts into it, and the checksum of that."""
    with h5py.File("record", "w", driver="core", backing_store=False, userblock_size=512, track_order=True) as file:
        make(file)
        file.flush()
        content = file.id.get_file_image()
    return _seal(content) + content


def _billion(file):
    """Groups each of which has the next one twice."""
    inner = file
    for _ in range(60):
        inner = inner.create_group("a")
    for group in [file["/" + "/".join("a" * depth)] for depth in range(1, 60)]:
        group["b"] = group["a"]


def _expression(file, text):
    file["x"] = np.zeros(4, np.uint8)
    file["x"].attrs.update({"dtype": text, "shape": np.array([4])})


def _half(file):
    stored = file.create_dataset("x", (1 << 29,), "f8", chunks=(1 << 12,))
    stored[:10] = 1


_odd = h5t.NATIVE_INT32.copy()
_odd.set_size(3)
HOSTILE = {
    "a soft link": lambda file: file.update({"x": h5py.SoftLink("/y")}),
    "a link to another file": lambda file: file.update({"x": h5py.ExternalLink("other.h5", "/x")}),
    "a second name": lambda file: file.update({"x": np.ones(3), "y": 1}) or file.update({"y2": file["x"]}),
    "a group in itself": lambda file: file.create_group("x").update({"x": file["x"]}),
    "the root in itself": lambda file: file.update({"x": file["/"]}),
    "a billion names": _billion,
    "another file's bytes": lambda file: file.create_dataset("x", (9,), "u1", external=[("/etc/hostname", 0, 9)]),
    "a virtual data set": lambda file: file.create_virtual_dataset("x", h5py.VirtualLayout((9,), "f8")),
    "values that it has not": lambda file: file.create_dataset("x", (1 << 29,), "f8"),
    "chunks that it has not": _half,
    "compressed": lambda file: file.create_dataset("x", data=np.zeros(1 << 20), compression="gzip"),
    "text of any length": lambda file: file.update({"x": "text"}),
    "a reference": lambda file: file.create_dataset("x", data=file.ref, dtype=h5py.ref_dtype),
    "nothing": lambda file: file.update({"x": h5py.Empty("f8")}),
    "an enumeration": lambda file: file.create_dataset("x", (3,), h5py.enum_dtype({"a": 1})),
    "24 bits": lambda file: h5d.create(file.id, b"x", _odd, h5s.create_simple((3,))),
    "a time": lambda file: h5d.create(file.id, b"x", h5t.UNIX_D32LE, h5s.create_simple((3,))),
    "a type": lambda file: file.update({"x": np.dtype("f4")}),
    "no JSON": lambda file: file.update({"x": np.bytes_(b"{")}),
    "deep JSON": lambda file: file.update({"x": np.bytes_(b"[" * 100_000 + b"]" * 100_000)}),
    "JSON of another form": lambda file: file.update({"x": np.bytes_(b'{"list": []}')}),
    "lists": lambda file: file.update({"x": np.bytes_(b"[" + b"[]," * (1 << 22) + b"[]]")}),
    "digits": lambda file: file.update({"x": np.bytes_(b"1" * 100_000)}),
    "several texts": lambda file: file.update({"x": np.array([b"1", b"2"])}),
    "an expression": partial(_expression, text="-" * 900 + "1"),
    "brackets": partial(_expression, text="(" * 900),
    "objects": partial(_expression, text="'|O'"),
    "an unknown sequence": lambda file: file.create_group("x").attrs.update({"sequence": "set"}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_sealed_content_that_is_never_written_is_one_line_and_takes_no_memory(what, tmp_path):
    path = tmp_path / "sealed.h5"
    path.write_bytes(_sealed(HOSTILE[what]))
    tracemalloc.start()  # NumPy's arrays count
    try:
        with pytest.raises(StoreError, match=f"^{path} is damaged: it was not written as this program writes it$"):
            decode(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()


def test_what_is_verified_is_what_is_parsed(path, monkeypatch):
    """A file that is replaced after it was read changes nothing, and one that is too large is not read."""
    other, real = encode({"other": 1}), values.read_file

    def replaced(*arguments, **options):
        content = real(*arguments, **options)
        path.write_bytes(other)
        return content

    with monkeypatch.context() as patch:
        patch.setattr(values, "read_file", replaced)
        assert decode(path)["macs"] == 60000
    with open(path, "r+b") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(
        StoreError, match=r"cannot be read: it must have at most 536,870,912 bytes, it has 1,099,511"
    ):
        decode(path)


RULE = "must be int, float, str, bool, None, an array, or a list, tuple or dict of these, got"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"a/b": 1}, "a key must be text without '/' and not '.', got 'a/b'"),
        ({"": 1}, "a key must be text without '/' and not '.', got ''"),
        ({"x": {".": 1}}, "a key in x must be text without '/' and not '.', got '.'"),
        ({"x": {3: 1}}, "a key in x must be text without '/' and not '.', got 3"),
        ({"\ud800": 1}, "a key must be text without '/' and not '.', got '\\ud800'"),
        ({"x\0": 1}, "a key must be text without '/' and not '.', got 'x\\x00'"),
        ({"x": {"y": [{1, 2}]}}, f"x.y.0 {RULE} builtins.set"),
        ({"n": np.int64(3)}, f"n {RULE} numpy.int64"),
        ({"o": np.array([None])}, "o must be an array of plain numbers, text or dates, got object"),
    ],
)
def test_what_cannot_be_stored_is_named(record, message):
    with pytest.raises(StoreError, match=f"^{re.escape(message)}$"):
        encode(record)


def test_every_cut_and_every_flipped_bit_is_found(path):
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    damaged = [whole[:length] for length in range(0, len(whole), len(whole) // 40)]
    for position in (0, 100, 511, 512, len(whole) - 1, *rng.integers(0, len(whole), size=100)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << rng.integers(8)
        damaged.append(flipped)
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(StoreError, match=f"^{path} is damaged: its content is not what its checksum says$"):
            decode(path)
    with pytest.raises(StoreError, match=r"cannot be read: it is a folder, not a file$"):
        decode(path.parent)
