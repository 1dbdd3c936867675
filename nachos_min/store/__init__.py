"""Runs on the disk: `run.py` is the front door."""

from nachos_min.store.errors import StoreError
from nachos_min.store.run import Run, check, check_writable, create_or_open, open_run

__all__ = ["Run", "StoreError", "check", "check_writable", "create_or_open", "open_run"]
