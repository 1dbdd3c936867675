"""How a layer was written in PyTorch, as far as some tool's count depends on it.

The exact count depends on shapes alone. Other tools watch a network from a certain place, and what they see
depends on how the same work was written: thop hooks modules and misses `F.relu`; fvcore traces and drops what
the output does not depend on. A node carries what such a tool would see; `conventions/` reads it. Read nothing
before it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """How a node was written.

    Args:
        function: what Python called, such as "F.conv2d" (also for torch.conv2d, the same function), "F.relu",
            "torch.relu", "torch.add", "Tensor.add", or, for an operator sign, "x + y", "x * y", "x @ y", "x += y".
            For one of our own operators that PyTorch code spells out, the expression:
            "x * relu6(x + 3) / 6", "relu6(x + 3) / 6", "mean(3).mean(2)".
        module: class of the innermost module that was running: its bare name for a class of torch.nn
            ("Conv2d"), with its package for any other ("timm.layers.SqueezeExcite"); "" outside any module.
        layer: the class of torch.nn that `module` is or derives from ("Conv2d"), "" if none but Module.
        leaf: whether that module has no modules inside.
        paths: under how many parents' names that module stands in the network, 0 if it is kept in a plain list;
            a second name under one parent does not count.
        used: whether the network's output depends on the node; a tracing tool drops what it does not.
        training: whether the module was in training mode.
        padding: "same" or "valid" when a convolution's padding was given by that word.
        samples: first axis of the network's first input; a tool that counts one sample divides by it.
        facts: what else the shapes do not show. "vector": the right array of a product had one axis; "size": an
            interpolation was told its output's size, not a factor; "side": it was told by one number for all axes;
            "strided": a linear layer's input was not contiguous, or the rows of an array that a vector is
            multiplied by cannot be seen as one matrix; "swapped": it would be, with one index of its second axis;
            "dots": an Einstein sum's equation had some; "unbatched": a layer's array had no axis of samples;
            "statistics": a norm used its input's, not its own; "slopes": PReLU has one for each channel; "fused":
            attention was executed as one operator; "scaled": a product whose first array attention scales.
    """

    function: str
    module: str = ""
    layer: str = ""
    leaf: bool = True
    paths: int = 1
    used: bool = True
    training: bool = False
    padding: str = ""
    samples: int = 1
    facts: frozenset[str] = frozenset()
