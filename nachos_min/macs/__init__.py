"""Exact counts from shapes alone: see `axis.py`, `record.py`, `ops.py`, `count.py`, in that order."""

from nachos_min.macs.count import (
    Count,
    ExitCosts,
    LayerRow,
    count,
    exit_costs,
    layer_table,
    peak_activation_bytes,
)
from nachos_min.macs.record import CountError

__all__ = [
    "Count",
    "CountError",
    "ExitCosts",
    "LayerRow",
    "count",
    "exit_costs",
    "layer_table",
    "peak_activation_bytes",
]
