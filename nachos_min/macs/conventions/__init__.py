"""What other tools would count, as terms over the same records: see `convention.py`, then any tool's file."""

from nachos_min.macs.conventions.catalogue import CONVENTIONS, find_convention
from nachos_min.macs.conventions.convention import Convention, Entry, Sight, Tally, Term

__all__ = ["CONVENTIONS", "Convention", "Entry", "Sight", "Tally", "Term", "find_convention"]
