"""Cheap models of an expensive evaluation: `surrogate.py` says what they offer, the others how they predict."""
