"""Counts from an ONNX file: read `wire.py`, `arrays.py`, `assembly.py`, `rules.py`, `walk.py`, in that order."""

from nachos_min.macs.onnx_reader.reading import Branch, OnnxReading, read_onnx

__all__ = ["Branch", "OnnxReading", "read_onnx"]
