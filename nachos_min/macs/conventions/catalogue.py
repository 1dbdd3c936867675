"""All conventions by the name a user types, in the order of the tables.

Read `convention.py` first.
"""

from nachos_min.errors import shorten
from nachos_min.macs.conventions.calflops import CALFLOPS, CALFLOPS_FLOPS
from nachos_min.macs.conventions.convention import Convention
from nachos_min.macs.conventions.exact import EXACT, EXACT_VALID
from nachos_min.macs.conventions.flop_counter import TORCH
from nachos_min.macs.conventions.fvcore import FVCORE
from nachos_min.macs.conventions.nachos_official import NACHOS_OFFICIAL
from nachos_min.macs.conventions.onnx_tool import ONNX_TOOL
from nachos_min.macs.conventions.ptflops import PTFLOPS
from nachos_min.macs.conventions.ptflops_aten import PTFLOPS_ATEN
from nachos_min.macs.conventions.thop import THOP
from nachos_min.macs.conventions.torchinfo import TORCHINFO
from nachos_min.macs.conventions.torchprofile import TORCHPROFILE, TORCHPROFILE_0_0_2
from nachos_min.macs.record import CountError

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        EXACT,
        EXACT_VALID,
        THOP,
        FVCORE,
        PTFLOPS,
        PTFLOPS_ATEN,
        TORCHPROFILE,
        TORCHPROFILE_0_0_2,
        CALFLOPS,
        CALFLOPS_FLOPS,
        TORCHINFO,
        TORCH,
        ONNX_TOOL,
        NACHOS_OFFICIAL,
    )
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
        raise CountError(f"convention must be one of {', '.join(CONVENTIONS)}, got {shorten(name)}")
    return CONVENTIONS[name]
