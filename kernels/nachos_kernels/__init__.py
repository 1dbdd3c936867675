"""The compiled loops of nachos_min: arrays in, arrays out."""

from nachos_kernels._jit import set_threads

__all__ = ["set_threads"]
