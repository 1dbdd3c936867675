"""The network out: ONNX, C, plain arrays."""
