"""Records come back as they were: every type, every bit; what cannot be stored is named."""

import re

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nachos_min.store import StoreError
from nachos_min.store.values import decode, encode


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
