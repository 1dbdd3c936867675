"""Which rows of a front people look at first: of each network its most accurate, its knee and its cheapest."""

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line's help reads this file
    from nachos_min.nas.result import Network

SETTINGS = ("accurate", "knee", "cheap")


def undominated(front: Iterable["Network"]) -> list["Network"]:
    """Return the rows that no other row dominates, one of equals; the most accurate first."""
    fewest, rows = inf, []
    for row in sorted(front, key=lambda row: (-row.metric, row.average_macs)):
        if row.average_macs < fewest:
            fewest = row.average_macs
            rows.append(row)
    return rows


def settings(front: Iterable["Network"]) -> tuple[dict[str, "Network"], ...]:
    """Return for each network its rows by SETTINGS, the most accurate network first.

    Rows that a row of any network dominates do not count, and a network without others is left out. "accurate" and
    "cheap" are the ends of what remains. "knee" is the row farthest above the line between them, or "accurate".
    """
    networks: dict[Any, list[Network]] = {}
    for row in undominated(front):
        networks.setdefault(row.evaluation.trial, []).append(row)
    return tuple(map(_named, networks.values()))


def picked(front: Iterable["Network"], setting: str) -> "Network":
    """Return the row of a whole front, of any network, that one of SETTINGS names; `front` as of `settings`."""
    return _named(undominated(front))[setting]


def _named(rows: list["Network"]) -> dict[str, "Network"]:
    return {"accurate": rows[0], "knee": _knee(rows), "cheap": rows[-1]}


def setting_names(chosen: Iterable[dict[str, "Network"]]) -> dict[int, str]:
    """Return the name in `settings` of each solution, by its number; of a row with several names the first."""
    return {row.solution: name for rows in chosen for name, row in reversed(rows.items())}


def _knee(rows: list["Network"]) -> "Network":
    """Return the row farthest above the line from the first to the last; the first if none is above."""
    first, last = rows[0].point.shown, rows[-1].point.shown

    def above(row: "Network") -> int:  # the distance times a constant, in whole numbers: 0 at both ends
        gain, extra = row.point.shown.score - last.score, row.total_macs - last.total_macs
        return gain * (first.total_macs - last.total_macs) - (first.score - last.score) * extra

    return max(rows, key=above)
