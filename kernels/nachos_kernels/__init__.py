"""The compiled loops of nachos_min: arrays in, arrays out."""

from nachos_kernels._jit import Compilation, set_threads

__all__ = ["Compilation", "set_threads"]
