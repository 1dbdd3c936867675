"""Modules, layers, initialisers and optimisers on `autograd`. Start with `module.py`."""
