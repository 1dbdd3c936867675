"""Exact counts from shapes alone: records of operators, graphs of them, and sums over a graph."""

from nachos_min.macs.count import ExitCosts, Totals, count, exit_costs, peak_activation_bytes
from nachos_min.macs.record import CountError

__all__ = ["CountError", "ExitCosts", "Totals", "count", "exit_costs", "peak_activation_bytes"]
