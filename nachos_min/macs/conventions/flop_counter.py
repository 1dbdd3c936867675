"""torch: PyTorch's own FlopCounterMode watches what its dispatcher executes; it reports twice the products.

It sees convolutions and matrix products of at least two axes each, however they were written, and nothing else.
Read `dispatcher.py` first.
"""

from nachos_min.macs.conventions.convention import Convention, Term, products
from nachos_min.macs.conventions.dispatcher import dispatched
from nachos_min.macs.ops import Conv2d, ConvTranspose2d, Einsum, Linear, MatMul, Node


def _twice(node: Node) -> tuple[Term, ...]:
    return (products(node, 2),)


TORCH = Convention(
    name="torch",
    tool="torch 2.13.0 (torch.utils.flop_counter)",
    unit="FLOPs",
    about="Two operations, a multiplication and an addition, for each product; nothing else.",
    rules=dict.fromkeys((Conv2d, ConvTranspose2d, Linear, MatMul, Einsum), _twice),
    sees=dispatched,
)
