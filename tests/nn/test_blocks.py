"""Blocks against the same blocks in PyTorch, and against central differences."""

import copy
from dataclasses import asdict, replace

import numpy as np
import pytest
from oracles_nn import gradient_error, randomised

from nachos_min.autograd import Tensor
from nachos_min.eenn.architecture import MBConvSpec
from nachos_min.nn import blocks
from nachos_min.nn.blocks import ConvBatchNorm, MBConv, SqueezeExcite

FULL = MBConvSpec(4, 12, 4, kernel=3, stride=1, activation="hswish", expand=True, squeezed=8)
BLOCKS = {
    "all parts": FULL,
    "relu": replace(FULL, activation="relu"),
    "no expand": replace(FULL, middle=4, expand=False, squeezed=0),
    "no expand, excite": replace(FULL, middle=4, expand=False),
    "no excite": replace(FULL, squeezed=0),
    "stride 2": replace(FULL, stride=2),
    "5x5": replace(FULL, kernel=5),
    "other width": replace(FULL, out_channels=6),
    "stride 2, other width, no excite": replace(FULL, stride=2, out_channels=6, squeezed=0),
}


def build(block: MBConvSpec) -> MBConv:
    """Return the module that a spec describes, as `eenn/network.py` does."""
    settings = asdict(block)
    sizes = [settings.pop(name) for name in ("in_channels", "middle", "out_channels", "kernel")]
    return MBConv(*sizes, np.random.default_rng(0), **settings)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BLOCKS)
def test_mbconv_is_pytorchs_and_its_gradients_numeric_derivatives(name: str, training: bool) -> None:
    module, rng = randomised(build(BLOCKS[name])), np.random.default_rng(2)
    module.train(training)
    double, image = copy.deepcopy(module), Tensor(rng.standard_normal((3, 6, 5, 4)))
    double.astype(np.float64)
    weights = rng.standard_normal(double(image).shape)
    assert gradient_error(double, lambda: (double(image) * weights).sum(), rng) < 1e-6
    import oracles_torch

    oracles_torch.assert_same(
        module, rng.standard_normal((3, 7, 6, 4)), lambda peer, x: peer.mbconv("", x, BLOCKS[name])
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_mbconv_as_one_operator_is_its_layers_in_turn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Map, all gradients and running statistics, on a map that is small and then no longer counts as small."""
    x = np.random.default_rng(1).standard_normal((3, 7, 6, 4))
    seen = []
    for largest in (64, 0):
        monkeypatch.setattr(blocks, "LARGEST", largest)
        module, image = randomised(build(BLOCKS[name])), Tensor(x.copy(), requires_grad=True)
        module.astype(np.float64)
        y = module(image)
        y.backward(np.random.default_rng(2).standard_normal(y.shape))
        gradients = [tensor.grad for tensor in module.named_parameters().values()]
        seen.append([y.data, image.grad, *gradients, *module.named_buffers().values()])
    for one, turn in zip(*seen, strict=True):
        np.testing.assert_allclose(one, turn, rtol=1e-9, atol=1e-9)


def test_parts_of_blocks_are_pytorchs() -> None:
    import oracles_torch

    rng, x = np.random.default_rng(0), np.random.default_rng(1).standard_normal((3, 7, 6, 3))
    for f in ("identity", "hswish"):
        module = ConvBatchNorm(3, 5, 3, rng, stride=2, activation=f)
        oracles_torch.assert_same(randomised(module), x, lambda peer, x, f=f: peer.conv_norm("", x, 2, f))
    excite = randomised(SqueezeExcite(3, 4, rng))
    oracles_torch.assert_same(excite, x, lambda peer, x: peer.excite("", x))


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_block_has_its_parts_and_a_residual_when_stride_is_1_and_widths_match(block: MBConvSpec) -> None:
    """With the projection's scale and shift at 0 the block is the identity, or nothing."""
    module = build(block)
    module.project.norm.gamma.data[:] = 0
    x = np.random.default_rng(1).standard_normal((2, 4, 4, 4)).astype(np.float32)
    y = module(Tensor(x)).data
    same = block.stride == 1 and block.out_channels == 4
    assert module.residual == block.residual == same
    np.testing.assert_array_equal(y, x if same else np.zeros(y.shape))
    found = {name.split(".")[0] for name in module.named_parameters()}
    assert {"depthwise", "norm", "project"} <= found
    assert ("expand" in found, "excite" in found) == (block.expand, block.squeezed > 0)
