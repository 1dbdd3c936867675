"""Graphs of records from ONNX files (`onnx_reader.py`) and from PyTorch modules (`torch_reader.py`)."""
