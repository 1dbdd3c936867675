"""Counts of the paper's architecture against reference integers, and counted = executed for random members."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nachos_min.autograd import Tensor, count_macs, no_grad
from nachos_min.eenn.lowering import lower
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.macs.count import count, exit_costs
from nachos_min.nas.genome import GenomeCoder, from_cnas
from nachos_min.nas.space import load_space

RECORDS = json.loads((Path(__file__).parent.parent / "data_files" / "ofa_macs.json").read_text())
PARTS = {
    "stem": "first_conv",
    "trunk": "first_block",
    "final.expand": "final_expand",
    "final.mix": "feature_mix",
}


@pytest.mark.parametrize("record", RECORDS, ids=[f"{r['r']}px-{r['macs']}" for r in RECORDS])
def test_ofa_counts_equal_the_reference(record: dict) -> None:
    space = load_space("ofa-mbv3")
    side = record["r"]
    coder = GenomeCoder(replace(space, resolutions=(side,)), (side, side, 3), 10)
    configuration = json.dumps({name: record[name] for name in ("ks", "e", "d", "r")})
    graph = lower(coder.backbone(from_cnas(coder, configuration)))

    counted = count(graph)
    assert (counted.macs, counted.params) == (record["macs"], record["params"])
    assert counted.columns["norm_elems"] == record["norm_elems"]
    # The tool that measured the products also met the one inside x * relu6(x + 3) / 6.
    products = counted.columns["mul_elems"] + counted.columns["act_elems:hswish"]
    assert products == record["products"]
    assert counted.valid_macs == record["valid_macs"]

    macs = params = 0
    cumulative: dict[str, tuple[int, int]] = {}
    for node in graph:
        macs, params = macs + node.op.macs, params + node.op.params
        top = node.name.split(".")[0]
        part = ".".join(node.name.split(".")[:2]) if top == "final" else top
        part = {"final.mean": "final.expand", "final.linear": "classifier"}.get(part, part)
        cumulative[PARTS.get(part, part)] = (macs, params)
    assert {part: found[0] for part, found in cumulative.items()} == record["cumulative_macs"]
    assert {part: found[1] for part, found in cumulative.items()} == record["cumulative_params"]


@pytest.mark.parametrize(("space", "image", "members"), [("tiny", (8, 8, 1), 300), ("micro", (8, 8, 1), 300)])
def test_executed_macs_equal_counted_macs(space: str, image: tuple[int, int, int], members: int) -> None:
    coder = GenomeCoder(load_space(space), image, 10)
    rng = np.random.default_rng(0)
    for _ in range(members):
        assert_executed_equals_counted(coder, coder.sample(rng), rng)


@pytest.mark.parametrize("mask", range(1, 16))
def test_executed_macs_equal_counted_macs_of_the_paper_space(mask: int) -> None:
    coder = GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 10)
    rng = np.random.default_rng(mask)
    genome = np.array(coder.sample(rng))
    genome[coder.exit_genes] = [mask >> bit & 1 for bit in range(4)]
    assert_executed_equals_counted(coder, tuple(map(int, genome)), rng)


def assert_executed_equals_counted(coder: GenomeCoder, genome: tuple[int, ...], rng: np.random.Generator) -> None:
    architecture = coder.decode(genome)
    costs = exit_costs(lower(architecture))
    network = EarlyExitNetwork(architecture, rng, rng)
    network.train(False)
    x = Tensor(rng.standard_normal((2, *architecture.input_shape)).astype(np.float32))
    executed = []
    with no_grad(), count_macs() as counter:
        for segment, head in zip(network.segments, network.heads, strict=True):
            x = segment(x)
            head(x)
            executed.append(counter.total)
    assert executed == [2 * cost for cost in costs.costs]
    assert sum(t.data.size for t in network.named_parameters().values()) == count(lower(architecture)).params
    orders = [b + h for b, h in zip(costs.backbone, costs.heads, strict=True)]
    assert orders == sorted(set(orders))
