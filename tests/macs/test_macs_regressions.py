"""Counts that were once wrong: each was refused or told by another number than what PyTorch or a tool has."""

import pytest
from macs.torch_cases import nn, torch

from nachos_min.macs import CountError
from nachos_min.macs.conventions import CONVENTIONS, explain
from nachos_min.macs.conventions.peers import installed, reported
from nachos_min.macs.ops import AvgPool, MaxPool
from nachos_min.macs.readers.torch_reader import read_torch


@pytest.mark.parametrize("side", [1, 2, 3, 4])
@pytest.mark.parametrize(("record", "layer"), [(MaxPool, nn.MaxPool2d), (AvgPool, nn.AvgPool2d)])
def test_a_window_larger_than_the_map_counts_if_it_may_hang_over(record, layer, side: int) -> None:
    """SqueezeNet and GoogLeNet on small images: 3x3 with stride 2 on a map of 2x2."""
    module = layer(3, stride=2, ceil_mode=True)
    if side == 1:
        with pytest.raises(
            CountError, match="the window's height with dilation must fit the padded map's 2, got 3"
        ):
            record((side, side, 1), (3, 3), (2, 2), ceil=True)
        return
    (node,) = read_torch(module, (1, 1, side, side))
    height, width = module(torch.zeros(1, 1, side, side)).shape[2:]
    assert node.op.output == (height, width, 1)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*is deprecated:FutureWarning")
def test_ptflops_hook_does_not_see_how_a_layer_computes_its_weight() -> None:
    if not installed("ptflops"):
        pytest.skip("ptflops is not installed")
    module = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3))).eval()
    x = torch.zeros(1, 4)
    assert reported("ptflops", module, (x,)) == (CONVENTIONS["ptflops"].total(read_torch(module, x)), "")


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("first", [True, False])
def test_ptflops_aten_feeds_one_sample_to_attention(batch: int, first: bool) -> None:
    """For one sample an input with the axis of samples second is in one block, so its bias is counted."""
    if not installed("ptflops-aten"):
        pytest.skip("ptflops is not installed")
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=first).eval()
    module = nn.Sequential(layer)
    x = torch.zeros(batch, 5, 16)
    predicted = CONVENTIONS["ptflops-aten"].total(read_torch(module, x))
    assert reported("ptflops-aten", module, (x,)) == (predicted, "")


def test_a_reason_for_a_quantity_is_not_given_where_nothing_is_counted() -> None:
    class Scaled(nn.Module):
        def forward(self, x):
            return x * torch.ones(2, 1, 1)

    graph = read_torch(Scaled(), (1, 2, 3, 3))
    (term,) = explain(graph, *(CONVENTIONS[name].terms(graph) for name in ("calflops-flops", "torchprofile")))
    assert term.left == "nothing (not a function it replaces (x * y))"
    assert term.right == "18"
