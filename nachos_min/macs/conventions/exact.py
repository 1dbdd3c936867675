"""Our own conventions: every multiplication that feeds an accumulator, with or without taps on padded zeros.

Read `convention.py` first.
"""

from nachos_min.macs.conventions.convention import Convention, Rule, Term, each_product, products
from nachos_min.macs.ops import Conv2d, ConvTranspose2d, Einsum, Linear, MatMul, Node
from nachos_min.macs.record import Operator


def _valid(node: Node) -> tuple[Term, ...]:
    missed = node.op.valid_macs - node.op.macs
    return (products(node), Term("products with padded zeros", 1, node.batch * missed))


_PADDED: tuple[type[Operator], ...] = (Conv2d, ConvTranspose2d)
_WHOLE: tuple[type[Operator], ...] = (Linear, MatMul, Einsum)
_RULES: dict[type[Operator], Rule] = dict.fromkeys((*_PADDED, *_WHOLE), each_product)

EXACT = Convention(
    name="exact",
    tool="",
    unit="MACs",
    about="Multiplications whose product feeds an accumulator; taps on padded zeros are counted.",
    rules=_RULES,
)

EXACT_VALID = Convention(
    name="exact-valid",
    tool="",
    unit="MACs",
    about="The same without products of which one factor is a padded zero.",
    rules=_RULES | dict.fromkeys(_PADDED, _valid),
)
