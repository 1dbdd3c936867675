"""Numba loops of nachos_min: arrays and scalars in, arrays out. Start with `_jit.py`."""
