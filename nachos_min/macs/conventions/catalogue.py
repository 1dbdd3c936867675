"""All conventions by the name a user types."""

from nachos_min.macs.conventions.convention import Convention
from nachos_min.macs.conventions.exact import EXACT, EXACT_VALID
from nachos_min.macs.conventions.flop_counter import TORCH
from nachos_min.macs.conventions.thop import THOP
from nachos_min.macs.record import CountError

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention for convention in (EXACT, EXACT_VALID, THOP, TORCH)
}


def find_convention(name: str) -> Convention:
    """Return the convention called `name`.

    Args:
        name: as typed.

    Returns:
        The convention.

    Raises:
        CountError: there is none of that name; the message lists all.
    """
    if name not in CONVENTIONS:
        raise CountError(f"convention must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]
