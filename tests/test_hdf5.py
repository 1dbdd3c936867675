"""What of an HDF5 file is read: objects with one name, of plain types, stored here and whole."""

import h5py
import numpy as np
import pytest
from h5py import h5g

from nachos_min.hdf5 import Hdf5Error, Members, attribute, links


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as opened:
        yield opened


def walked(file, most=1 << 20, **how):
    """Return all arrays of a file by their paths."""
    members, found = Members(most, **how), {}

    def walk(group, place):
        for name, member in members.of(group):
            if isinstance(member, h5g.GroupID):
                walk(member, f"{place}{name}/")
            else:
                found[place + name] = members.array(member, name)

    walk(h5g.open(file.id, b"/"), "")
    return found


ARRAYS = [
    np.array(each, kind)
    for each in ([0, 1, 1], [[1, 0]], 1)
    for kind in ("?", "i1", ">i2", "<u4", ">u8", "f2", ">f4", "f8", "g", "c8", "c16", "S7")
] + [np.zeros((0, 3))]


def test_plain_arrays_come_as_they_are(file):
    for number, array in enumerate(ARRAYS):
        file[f"group/{number}"] = array
    found = walked(file)
    for number, array in enumerate(ARRAYS):
        assert found[f"group/{number}"].dtype == array.dtype
        assert np.array_equal(found[f"group/{number}"], array)


def test_links_that_never_end_are_refused(file):
    group = file.create_group("a/b")
    group["again"] = file["a"]
    with pytest.raises(Hdf5Error, match="'again' must be an object with this one name, got a link"):
        walked(file)
    del group["again"]
    for level in range(60):  # 2^60 paths
        below = file.create_group(f"level {level}")
        below["left"] = below["right"] = group
        group = below
    with pytest.raises(Hdf5Error, match="must be an object with this one name"):
        walked(file)


def test_links_have_no_address_unless_they_are_hard(file):
    file["own"] = 1
    file["soft"], file["external"] = h5py.SoftLink("/own"), h5py.ExternalLink("own.h5", "/own")
    found = links(h5g.open(file.id, b"/"))
    assert [name for name, address in found.items() if address is None] == ["external", "soft"]
    with pytest.raises(Hdf5Error, match="'external' must be an object"):
        walked(file)


def test_bytes_are_counted_before_they_are_read(file):
    file["a"], file["b"] = np.zeros(100), np.zeros(100)
    assert len(walked(file, 1600)) == 2
    with pytest.raises(
        Hdf5Error, match=r"'b' must have at most 799 bytes, it declares shape \(100,\) of 8-byte values"
    ):
        walked(file, 1599)
    file.create_dataset("never written", (50,), "f8")
    with pytest.raises(Hdf5Error, match=r"holds only 0 bytes"):
        walked(file)


def test_arrays_are_compressed_only_where_they_may_be(file):
    file.create_dataset("a", data=np.zeros(1000), compression="gzip", shuffle=True)
    assert not walked(file, compressed=True)["a"].any()
    with pytest.raises(Hdf5Error, match="'a' must be stored without filters, got HDF5 filter 2"):
        walked(file)


def test_other_types_are_no_arrays(file):
    kinds = [
        h5py.enum_dtype({"a": 0}),
        h5py.ref_dtype,
        h5py.string_dtype(),
        np.dtype([("a", "i4")]),
        np.dtype("V3"),
    ]
    for number, kind in enumerate(kinds):
        file.create_dataset(str(number), (3,), kind)
        with pytest.raises(Hdf5Error, match="must be an array of numbers, truth values or bytes"):
            Members(1 << 20).array(file[str(number)].id, str(number))
    file["kind"] = np.dtype("f4")
    with pytest.raises(Hdf5Error, match="'kind' must be an array"):
        Members(1 << 20).array(file["kind"].id, "kind")


def test_attributes_are_text_or_numbers(file):
    file["a"] = np.zeros(3)
    file.create_group("g").attrs["text"] = "word"
    file["a"].attrs.update({"shape": np.array([1, 2]), "empty": h5py.Empty("f4"), "many": np.zeros(8000, "u1")})
    file["a"].attrs["place"] = file.ref
    assert attribute(file["g"].id, "text") == "word"
    assert attribute(file["g"].id, "none") is None
    assert attribute(file["a"].id, "shape").tolist() == [1, 2]
    for name in ("empty", "place"):
        with pytest.raises(Hdf5Error, match=f"attribute {name} must be text or numbers"):
            attribute(file["a"].id, name)
