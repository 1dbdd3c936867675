"""One frozen record per operator: its shapes, and from them its multiplications, parameters and other work.

A network is a `Graph`: a tuple of `Node` in execution order. Nothing is built or run; the records know shapes
only, of one sample, channels last: (H, W, C) for a map, (..., features) for anything else. All figures are
Python integers, so nothing overflows and nothing is rounded.

One MAC is one multiplication whose product feeds an accumulator, in a convolution, transposed convolution,
linear layer or matrix product. All other work is counted in columns of its own:

    bias_adds         output elements that get a bias            norm_elems  elements normalised
    act_elems:<kind>  elements through an activation, by kind    mul_elems   elements of a product
    pool_in pool_out  elements into and out of a pool            add_elems   elements of a sum
    mean_out          elements out of a mean                     pointwise:<kind> reduce_in:<kind>
                                                                 resize_out:<mode>  the rest

`macs` counts taps on padded zeros, as is usual; `valid_macs` leaves them out. Before this read `axis.py` and
`record.py`; the records stand in `windows.py` (convolutions, pools), `products.py`, `norms.py`,
`elementwise.py`, `resampling.py` and `moves.py`, and can be imported from here. Sums over a graph are in
`count.py`; what another tool would count is in `conventions/`.
"""

from dataclasses import dataclass

from nachos_min.macs.elementwise import Activation as Activation
from nachos_min.macs.elementwise import Add as Add
from nachos_min.macs.elementwise import Multiply as Multiply
from nachos_min.macs.elementwise import Pointwise as Pointwise
from nachos_min.macs.elementwise import Softmax as Softmax
from nachos_min.macs.moves import Flatten as Flatten
from nachos_min.macs.moves import Move as Move
from nachos_min.macs.moves import Slice as Slice
from nachos_min.macs.moves import Source as Source
from nachos_min.macs.norms import BatchNorm as BatchNorm
from nachos_min.macs.norms import GroupNorm as GroupNorm
from nachos_min.macs.norms import InstanceNorm as InstanceNorm
from nachos_min.macs.norms import LayerNorm as LayerNorm
from nachos_min.macs.products import Einsum as Einsum
from nachos_min.macs.products import Linear as Linear
from nachos_min.macs.products import MatMul as MatMul
from nachos_min.macs.record import CountError as CountError
from nachos_min.macs.record import Operator
from nachos_min.macs.resampling import AdaptiveAvgPool as AdaptiveAvgPool
from nachos_min.macs.resampling import AdaptiveMaxPool as AdaptiveMaxPool
from nachos_min.macs.resampling import GlobalAvgPool as GlobalAvgPool
from nachos_min.macs.resampling import Reduce as Reduce
from nachos_min.macs.resampling import Resize as Resize
from nachos_min.macs.windows import AvgPool as AvgPool
from nachos_min.macs.windows import Conv2d as Conv2d
from nachos_min.macs.windows import ConvTranspose2d as ConvTranspose2d
from nachos_min.macs.windows import MaxPool as MaxPool
from nachos_min.macs.written import Written


@dataclass(frozen=True)
class Node:
    """One execution of an operator in a graph. A layer called twice is two nodes; one never called is none.

    Args:
        name: what tables call it.
        op: the operator's record, of one sample.
        inputs: positions in the graph of the nodes whose arrays it reads; -1 is the network's input.
        exit: 0 for the backbone, i >= 1 for the head of exit i (the final classifier is the last head).
        shares: position of the earlier node whose weights it uses again, so that they are counted once.
        batch: samples that the operator treats in this one execution, >= 1; work is multiplied by it.
        relaid: whether the arrays arrive with other axes (channels first, a batch axis, flattened), as in a
            network read from elsewhere; then the numbers of elements must agree, not the shapes.
        written: how it was written in PyTorch; None for a network that never was.
        trained: trained values that it brings, if not all of its operator's `params` (its weights are computed,
            constant, or partly another node's); None for all.
    """

    name: str
    op: Operator
    inputs: tuple[int, ...]
    exit: int = 0
    shares: int | None = None
    batch: int = 1
    relaid: bool = False
    written: Written | None = None
    trained: int | None = None


Graph = tuple[Node, ...]  # execution order: backbone up to exit 1, head 1, backbone up to exit 2, head 2, ...
