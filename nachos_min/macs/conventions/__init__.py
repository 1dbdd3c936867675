"""What other tools would count, as terms over the same records; each file says where its tools stand."""

from nachos_min.macs.conventions.bill import Term
from nachos_min.macs.conventions.catalogue import CONVENTIONS, find_convention
from nachos_min.macs.conventions.convention import Convention, Difference, amounts, explain

__all__ = ["CONVENTIONS", "Convention", "Difference", "Term", "amounts", "explain", "find_convention"]
