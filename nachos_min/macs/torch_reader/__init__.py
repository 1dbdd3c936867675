"""Counts from a PyTorch module: read `steps.py`, then the rules, `recorder.py` and `reading.py`, in that order."""

from nachos_min.macs.torch_reader.reading import example_inputs, load_torch_target, read_torch

__all__ = ["example_inputs", "load_torch_target", "read_torch"]
