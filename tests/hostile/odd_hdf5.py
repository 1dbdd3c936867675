"""HDF5 files that lead elsewhere, declare too much, or hold what is no array of numbers or text.

Each function of `ODD` adds its `images` to an open file that has `labels`; they must be refused.
"""

from collections.abc import Callable

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

Odd = Callable[[h5py.File], None]
SAMPLES = 30
IMAGES = np.arange(SAMPLES * 16, dtype=np.uint8).reshape(SAMPLES, 4, 4) % 251


def write(path, odd: Odd | None = None, **layout):
    """Write a file with plain labels, and plain images or odd ones; return its path."""
    with h5py.File(path, "w", **layout) as file:
        file["labels"] = np.arange(SAMPLES) % 3
        (odd or plain)(file)
    return path


def plain(file):
    file["images"] = IMAGES


def soft_link(file):
    file["own"] = IMAGES
    file["images"] = h5py.SoftLink("/own")


def dangling_link(file):
    file["images"] = h5py.SoftLink("/nowhere")


def external_link(file):
    file["images"] = h5py.ExternalLink("elsewhere.h5", "/images")


def device_link(file):
    file["images"] = h5py.ExternalLink("/dev/zero", "/images")


def link_to_the_root(file):
    file["images"] = file["/"]


def external_storage(file):
    file.create_dataset("images", (SAMPLES, 4, 4), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual_onto_itself(file):
    layout = h5py.VirtualLayout((SAMPLES, 4, 4), "u1")
    layout[:] = h5py.VirtualSource(".", "images", (SAMPLES, 4, 4))
    file.create_virtual_dataset("images", layout)


def virtual_of_another_file(file):
    layout = h5py.VirtualLayout((SAMPLES, 4, 4), "u1")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "images", (SAMPLES, 4, 4))
    file.create_virtual_dataset("images", layout)


def _typed(kind: h5t.TypeID) -> Odd:
    def add(file):
        h5d.create(file.id, b"images", kind, h5s.create_simple((SAMPLES, 4, 4)))

    return add


def _narrow(of: h5t.TypeID, **changed) -> h5t.TypeID:
    kind = of.copy()
    for name, value in changed.items():
        getattr(kind, f"set_{name}")(value)
    return kind


def empty(file):
    file["images"] = h5py.Empty("u1")


def scalar(file):
    file["images"] = np.float32(3)


def text_of_a_megabyte(file):
    """Every label is the same text of the heap, as often as there are samples."""
    file["images"] = IMAGES
    del file["labels"]
    kind = h5py.string_dtype()
    file.create_dataset("labels", data=["x" * (1 << 20), *(["short"] * (SAMPLES - 1))], dtype=kind)


def fixed_text_of_a_megabyte(file):
    file["images"] = IMAGES
    del file["labels"]
    file.create_dataset("labels", data=np.array([b"a", b"b"] * 15, f"S{1 << 20}"), compression="gzip")


def declared_alone(file):
    file.create_dataset("images", (1 << 20, 32, 32), "u1", chunks=(32, 32, 32))


def one_chunk_of_a_gigabyte(file):
    images = file.create_dataset(
        "images", (1 << 10, 1 << 10, 1 << 10), "u1", chunks=(1 << 10,) * 3, compression="gzip"
    )
    images.id.write_direct_chunk((0, 0, 0), b"\x78\x9c" + bytes(1 << 20))


def chunks_of_a_byte(file):
    file.create_dataset("images", (1 << 12, 1 << 12), "u1", chunks=(1, 1))


def terabytes(file):
    file.create_dataset("images", (1 << 20, 1 << 20), "f8", chunks=(1, 1 << 10))


def sum_beyond_64_bits(file):
    file.create_dataset("images", (1 << 40, 1 << 40), "f8", chunks=(1, 1 << 10))


def a_filter(file):
    """The filter's number is changed to one of a plugin."""
    made = h5p.create(h5p.DATASET_CREATE)
    made.set_chunk((SAMPLES, 4, 4))
    made.set_scaleoffset(h5py.h5z.SO_INT, 0)
    h5d.create(file.id, b"images", h5t.STD_U8LE, h5s.create_simple((SAMPLES, 4, 4)), made)


ENUM = h5py.enum_dtype({"a": 0, "b": 1, "c": 2}, "u1")
ODD: dict[str, Odd] = {
    **{each.__name__: each for each in (
        soft_link, dangling_link, external_link, device_link, link_to_the_root, external_storage,
        virtual_onto_itself, virtual_of_another_file, empty, scalar, text_of_a_megabyte,
        fixed_text_of_a_megabyte, declared_alone, a_filter,
        one_chunk_of_a_gigabyte, chunks_of_a_byte, terabytes, sum_beyond_64_bits,
    )},
    "integers_of_24_bits": _typed(_narrow(h5t.STD_I32LE, size=3)),
    "integers_of_5_bits": _typed(_narrow(h5t.STD_U8LE, precision=5)),
    "integers_of_16_bytes": _typed(_narrow(h5t.STD_I64LE, size=16)),
    "floats_with_another_bias": _typed(_narrow(h5t.IEEE_F32LE, ebias=100)),
    "time": _typed(h5t.UNIX_D32LE),
    "bits": _typed(h5t.STD_B8LE),
    "opaque": _typed(h5t.py_create(np.dtype("V5"))),
    "compound": _typed(h5t.py_create(np.dtype([("a", "u1"), ("b", "f4")]))),
    "references": _typed(h5t.STD_REF_OBJ),
    "enumeration": _typed(h5t.py_create(ENUM, logical=True)),
    "arrays": _typed(h5t.array_create(h5t.STD_U8LE, (3,))),
    "lists_of_numbers": _typed(h5t.vlen_create(h5t.STD_U8LE)),
}  # fmt: skip
