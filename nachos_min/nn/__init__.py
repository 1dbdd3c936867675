"""Modules, layers, blocks and optimisers on `autograd`."""
