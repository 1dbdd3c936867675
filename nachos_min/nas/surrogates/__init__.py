"""Cheap models of an expensive evaluation: `surrogate.py` says what they offer, then a file an algorithm."""
