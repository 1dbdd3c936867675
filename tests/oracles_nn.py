"""What tests of networks share: a small network, numeric gradients, and weights at random places."""

from collections.abc import Callable

import numpy as np

from nachos_min.autograd import Tensor, no_grad
from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, MBConvSpec, Stem
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.nn.module import Module

STEP = 6e-6
CLASSES = 4


def randomised(module: Module) -> Module:
    """Move every bias, scale, shift and statistic away from where it starts: a 0 would hide its gradient."""
    rng = np.random.default_rng(7)
    for parameter in module.named_parameters().values():
        parameter.data += 0.3 * rng.standard_normal(parameter.shape).astype(np.float32)
    for buffer in module.named_buffers().values():
        buffer += 0.5 * rng.random(buffer.shape).astype(np.float32)
    return module


def gradient_error(module: Module, loss: Callable[[], Tensor], rng: np.random.Generator) -> float:
    """Return the largest relative error of `backward` over all parameters of a float64 `module`.

    Each parameter is moved along a random direction d, all others stay: <gradient, d> must be the numeric
    derivative. Relative to the largest of both, the gradient's norm, and 1e-4 of the loss: rounding leaves
    about 1e-16 loss / step = 1e-11 loss in the numeric one, even where a batch norm takes a bias back out.
    """
    loss().backward()
    parameters = module.named_parameters()
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    floor, worst = 1e-4 * abs(loss().item()), 0.0
    for name, parameter in parameters.items():
        parameter.grad = None
        gradient = gradients[name]
        assert gradient is not None, f"{name} has no gradient"
        direction = rng.standard_normal(parameter.shape)
        start, values = parameter.data, []
        with no_grad():
            for step in (STEP, -STEP):
                parameter.data = start + step * direction
                values.append(loss().item())
        parameter.data = start
        numeric, claimed = (values[0] - values[1]) / (2 * STEP), float((gradient * direction).sum())
        size = max(abs(numeric), abs(claimed), float(np.linalg.norm(gradient)), floor)
        worst = max(worst, abs(numeric - claimed) / size)
    return worst


def architecture(*stages: int, mix: int = 5, image: tuple[int, int, int] = (7, 6, 2)) -> Architecture:
    """Every kind of part once: stride, no expand, excitation, residual, both activations, pooled head."""
    heads = {1: ExitHead(1, (3, 4)), 2: ExitHead(2, (3,)), 3: ExitHead(2, ())}
    return Architecture(
        image,
        CLASSES,
        Stem(4, 3, 1, "hswish"),
        (MBConvSpec(4, 4, 4, 3, 1, "relu", expand=False),),
        (
            (MBConvSpec(4, 8, 6, 3, 2, "relu"), MBConvSpec(6, 12, 6, 5, 1, "hswish")),
            (MBConvSpec(6, 12, 6, 3, 1, "hswish", squeezed=4),),
            (MBConvSpec(6, 6, 8, 3, 2, "relu", expand=False, squeezed=4),),
            (MBConvSpec(8, 16, 8, 3, 1, "hswish"),),
        ),
        tuple(Exit(stage, heads[stage]) for stage in stages),
        FinalHead(10, mix, "hswish"),
    )


def initialised(arch: Architecture, seed: int = 0) -> EarlyExitNetwork:
    """Return a network with the weights that `seed` draws."""
    return EarlyExitNetwork(arch, np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1]))
