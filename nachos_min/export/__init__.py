"""The network out: ONNX, C, plain arrays."""

from nachos_min.export.c_source import write_c
from nachos_min.export.npz_file import write_npz
from nachos_min.export.onnx_file import write_onnx

__all__ = ["write_c", "write_npz", "write_onnx"]
