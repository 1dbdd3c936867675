"""Early-exit networks: as data, as modules, trained, and run with true early stopping."""
