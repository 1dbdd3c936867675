"""Our own conventions, and all conventions by the name a user types, in the order of the tables."""

from nachos_min.errors import shorten
from nachos_min.macs import ops
from nachos_min.macs.conventions import bill
from nachos_min.macs.conventions.convention import Convention
from nachos_min.macs.conventions.hooks import THOP, TORCHINFO
from nachos_min.macs.conventions.nachos_official import NACHOS_OFFICIAL
from nachos_min.macs.conventions.onnx_tool import ONNX_TOOL
from nachos_min.macs.conventions.patches import CALFLOPS, CALFLOPS_FLOPS, PTFLOPS, PTFLOPS_ATEN, TORCH
from nachos_min.macs.conventions.traces import FVCORE, TORCHPROFILE, TORCHPROFILE_0_0_2
from nachos_min.macs.ops import Node
from nachos_min.macs.record import CountError, Operator


def _exact(node: Node) -> tuple[bill.Term, ...]:
    real = f"{node.real} real multiplications each, of complex numbers" if node.real > 1 else ""
    return (bill.products(node).taken_for(node.macs, real),)


_PRODUCTS: dict[type[Operator], bill.Rule] = dict.fromkeys((*bill.LAYERS, ops.Recurrent), _exact)


def _valid(node: Node) -> tuple[bill.Term, ...]:
    return *_exact(node), bill.Term("products with padded zeros", 1, node.valid_macs - node.macs)


EXACT = Convention(
    name="exact",
    unit="MACs",
    about="Multiplications whose product feeds an accumulator; those with padded zeros are counted.",
    prices=_PRODUCTS,
)

EXACT_VALID = Convention(
    name="exact-valid",
    unit="MACs",
    about="The same without products of which one factor is a padded zero.",
    prices=_PRODUCTS | dict.fromkeys((ops.Conv2d, ops.ConvTranspose2d), _valid),
)

_FIRST = (EXACT, EXACT_VALID, THOP, FVCORE, PTFLOPS, PTFLOPS_ATEN, TORCHPROFILE, TORCHPROFILE_0_0_2)
_SECOND = (CALFLOPS, CALFLOPS_FLOPS, TORCHINFO, TORCH, ONNX_TOOL, NACHOS_OFFICIAL)
CONVENTIONS: dict[str, Convention] = {convention.name: convention for convention in (*_FIRST, *_SECOND)}


def find_convention(name: str) -> Convention:
    """Return the convention called `name`; CountError, which lists all, if there is none."""
    if name not in CONVENTIONS:
        raise CountError(f"convention must be one of {', '.join(CONVENTIONS)}, got {shorten(name)}")
    return CONVENTIONS[name]
