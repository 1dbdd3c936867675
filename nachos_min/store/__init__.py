"""Runs on the disk: `run.py` is the front door."""

from nachos_min.store.run import OtherRunError, Run, clear_folder, create_or_open, open_run, own_folder
from nachos_min.store.values import StoreError

__all__ = ["OtherRunError", "Run", "StoreError", "clear_folder", "create_or_open", "open_run", "own_folder"]
