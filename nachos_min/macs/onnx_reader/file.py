"""An ONNX file opened: looked at from outside, stripped by `wire.py`, then parsed by the package onnx.

Read `wire.py` first. Weights' values are never loaded, and files that a model names for its weights are never
opened.
"""

import importlib
import mmap
import os
import stat
from typing import Any

from nachos_min.macs.onnx_reader.labels import label
from nachos_min.macs.onnx_reader.wire import needed
from nachos_min.macs.record import CountError

MAX_BYTES = 2 << 30  # Protocol Buffers have no longer messages


def load(path: str | os.PathLike[str]) -> tuple[Any, int]:
    """Return the model in a file, without weights, and the newest operator set that the package onnx knows.

    Args:
        path: of an .onnx file.

    Returns:
        An onnx.ModelProto, and a version number.

    Raises:
        CountError: there is no such file, it cannot be read, it is no ONNX file, or onnx is not installed.
    """
    try:
        encoded = needed(_mapped(path))
    except OSError as error:
        raise CountError(f"the file cannot be read: {error.strerror}, got {label(os.fspath(path))}") from None
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError:
        raise CountError("counting an .onnx file needs the package onnx: pip install 'nachos_min[onnx]'") from None
    decode_error: Any = importlib.import_module("google.protobuf.message").DecodeError
    try:
        return onnx.ModelProto.FromString(encoded), onnx.defs.onnx_opset_version()
    except decode_error:
        raise CountError(f"no ONNX file or a damaged one: {len(encoded)} bytes cannot be decoded") from None


def _mapped(path: str | os.PathLike[str]) -> mmap.mmap | bytes:
    """Return a file's bytes, which are read page by page as they are looked at."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CountError(f"the target must be an ordinary file, got {label(os.fspath(path))}")
    if status.st_size > MAX_BYTES:
        raise CountError(f"an .onnx file must have at most {MAX_BYTES} bytes, got {status.st_size}")
    if status.st_size == 0:
        return b""  # nothing that could be mapped
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
