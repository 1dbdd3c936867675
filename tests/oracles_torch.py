"""The modules of `nn` and `eenn` once more, in PyTorch: its functions, on copies of our parameters.

Maps without an axis of height, N C W, go through its one-dimensional functions.

A parameter keeps our layout and is brought into PyTorch's inside the function that uses it, so that its
gradient comes back in our layout. Maps are N C H W here. Without PyTorch, importing this file skips the test.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from nachos_min.autograd import Tensor
from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, MBConvSpec
from nachos_min.nn.module import Module

torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a requirement")
F = torch.nn.functional
Theirs = Any  # a tensor of PyTorch


def hsigmoid(x: Theirs) -> Theirs:
    """By its definition: the gradient of PyTorch's own takes 1/6 from float32, in float64 too (2.7)."""
    return F.relu6(x + 3) / 6


ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "hswish": F.hardswish,
    "hsigmoid": hsigmoid,
    "sigmoid": torch.sigmoid,
}


def nchw(x: np.ndarray) -> Theirs:
    """A leaf tensor N C H W of a map N H W C."""
    return torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)


def nhwc(x: Theirs) -> np.ndarray:
    return np.moveaxis(x.detach().numpy(), 1, -1)


class Peer:
    """Runs the parts of a module by their dotted names, in training or inference as the module is now."""

    def __init__(self, module: Module) -> None:
        self.training = module.training
        named = module.named_parameters().items()
        self.parameters = {name: torch.tensor(parameter.data, requires_grad=True) for name, parameter in named}
        self.buffers = {name: torch.tensor(buffer) for name, buffer in module.named_buffers().items()}

    def conv(self, name: str, x: Theirs, stride: int = 1, groups: int = 1) -> Theirs:
        weight, bias = self.parameters[f"{name}weight"], self.parameters.get(f"{name}bias")
        if weight.ndim == 3:  # depthwise (KH, KW, C): as many groups as channels, one input channel each
            weight, groups = weight[:, :, None], weight.shape[2]
        weight = weight.permute(3, 2, 0, 1)
        if x.ndim == 3:
            return F.conv1d(x, weight[:, :, 0], bias, stride, weight.shape[-1] // 2, groups=groups)
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)

    def linear(self, name: str, x: Theirs) -> Theirs:
        return F.linear(x, self.parameters[f"{name}weight"].T, self.parameters.get(f"{name}bias"))

    def norm(self, name: str, x: Theirs, activation: str = "identity") -> Theirs:
        statistics = (self.buffers[f"{name}running_{each}"] for each in ("mean", "variance"))
        affine = self.parameters[f"{name}gamma"], self.parameters[f"{name}beta"]
        y = F.batch_norm(x, *statistics, *affine, self.training, momentum=0.1, eps=1e-5)
        return ACTIVATIONS[activation](y)

    def conv_norm(self, name: str, x: Theirs, stride: int = 1, activation: str = "identity") -> Theirs:
        return self.norm(f"{name}norm.", self.conv(f"{name}convolution.", x, stride), activation)

    def excite(self, name: str, x: Theirs) -> Theirs:
        squeezed = F.relu(self.linear(f"{name}reduce.", x.flatten(2).mean(dim=2)))
        gate = hsigmoid(self.linear(f"{name}expand.", squeezed))
        return x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))

    def mbconv(self, name: str, x: Theirs, block: MBConvSpec) -> Theirs:
        y = self.conv_norm(f"{name}expand.", x, activation=block.activation) if block.expand else x
        y = self.norm(f"{name}norm.", self.conv(f"{name}depthwise.", y, block.stride), block.activation)
        if block.squeezed:
            y = self.excite(f"{name}excite.", y)
        y = self.conv_norm(f"{name}project.", y)
        return x + y if block.stride == 1 and block.in_channels == block.out_channels else y

    def early_exit(self, name: str, x: Theirs, head: ExitHead) -> tuple[Theirs, Theirs]:
        y = F.relu((F.max_pool1d if x.ndim == 3 else F.max_pool2d)(x, head.pool))
        for layer in range(len(head.widths)):
            y = F.relu(self.conv(f"{name}convolutions.{layer}.", y))
        outputs = self.linear(f"{name}linear.", y.movedim(1, -1).flatten(1))
        return outputs[:, :-1], torch.sigmoid(outputs[:, -1])

    def final(self, name: str, x: Theirs, head: FinalHead) -> Theirs:
        y = self.conv_norm(f"{name}expand.", x, activation=head.activation) if head.expand else x
        y = y.flatten(2).mean(dim=2)
        if head.mix:
            y = ACTIVATIONS[head.activation](self.linear(f"{name}mix.", y))
        return self.linear(f"{name}linear.", y)

    def network(self, x: Theirs, architecture: Architecture) -> tuple[list[Theirs], list[Theirs]]:
        """Logits of all E exits and confidences of the E-1 early ones."""
        stem = architecture.stem
        x = self.conv_norm("segments.0.blocks.0.", x, stem.stride, stem.activation)
        segment, place, logits, confidences = 0, 1, [], []
        heads = {early.stage: early.head for early in architecture.exits}
        stages = [architecture.trunk + architecture.stages[0], *architecture.stages[1:]]
        for stage, blocks in enumerate(stages, start=1):
            for block in blocks:
                x = self.mbconv(f"segments.{segment}.blocks.{place}.", x, block)
                place += 1
            if stage in heads:
                answer, confidence = self.early_exit(f"heads.{segment}.", x, heads[stage])
                logits.append(answer)
                confidences.append(confidence)
                segment, place = segment + 1, 0
        logits.append(self.final(f"heads.{segment}.", x, architecture.final))
        return logits, confidences


def exits_loss(
    logits: Sequence[Theirs],
    confidences: Sequence[Theirs],
    labels: np.ndarray,
    costs: Sequence[int],
    max_macs: int,
    support: np.ndarray,
) -> Theirs:
    """The loss of the exits with all four terms, weights 1, for a budget below the dearest cost."""
    target, samples = torch.tensor(labels), len(labels)
    staying, leaving = torch.ones(samples, dtype=torch.float64), []
    for h in confidences:
        leaving.append(staying * h)
        staying = staying * (1 - h)
    leaving.append(staying)
    total = torch.zeros((), dtype=torch.float64)
    for q, z in zip(leaving, logits, strict=True):
        total = total + (q * F.cross_entropy(z, target, reduction="none")).mean()
    for place, h in enumerate(confidences):
        right = (logits[place].argmax(dim=1) == target).double()
        ones, zeros = right.sum(), (1 - right).sum()
        weight = samples / 2 * (right / ones.clamp(min=1) + (1 - right) / zeros.clamp(min=1))
        bce = F.binary_cross_entropy(h.clamp(1e-4, 1 - 1e-4), right, weight)
        peak = ((h - torch.tensor(support[labels, place])) ** 2).mean()
        total = total + (bce + peak) / len(confidences)
    expected = sum((q * cost).mean() for q, cost in zip(leaving, costs, strict=True))
    return total + torch.relu(expected - max_macs) / (costs[-1] - max_macs)


def assert_same(module: Module, x: np.ndarray, theirs: Callable[[Peer, Theirs], Theirs]) -> None:
    """Hold `module` against `theirs` in float64: value, all gradients, and the buffers left behind."""
    module.astype(np.float64)
    peer = Peer(module)
    our_x, their_x = Tensor(x, requires_grad=True), nchw(x)
    y, their_y = module(our_x), theirs(peer, their_x)
    np.testing.assert_allclose(y.data, nhwc(their_y), rtol=1e-9, atol=1e-10)
    direction = np.random.default_rng(5).standard_normal(y.shape)
    y.backward(direction)
    their_y.backward(nchw(direction))
    np.testing.assert_allclose(our_x.grad, nhwc(their_x.grad), rtol=1e-9, atol=1e-10)
    assert_same_gradients(module, peer)
    for name, buffer in module.named_buffers().items():
        np.testing.assert_allclose(buffer, peer.buffers[name].numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def assert_same_gradients(module: Module, peer: Peer) -> None:
    """Hold the gradients of all parameters against those of `peer`."""
    for name, parameter in module.named_parameters().items():
        expected = peer.parameters[name].grad.numpy()
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-8, atol=1e-10, err_msg=name)
