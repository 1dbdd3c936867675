"""Signals and tables of features, which are maps of height 1, and images that are not square: every part agrees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import instant
from hypothesis import given
from hypothesis import strategies as st

import nachos_min
from nachos_min.autograd import count_macs as counted
from nachos_min.data import Dataset, Images, Split, load
from nachos_min.eenn.architecture import architecture_from_json, architecture_to_json
from nachos_min.eenn.inference import exit_answers
from nachos_min.eenn.lowering import lower, static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.recipes import DeepRecipe
from nachos_min.macs.count import count
from nachos_min.nas import nachos
from nachos_min.nas.configuration import Configuration
from nachos_min.nas.evaluate import as_seen, build, evaluate, measure
from nachos_min.nas.evaluation import Trial
from nachos_min.nas.genome import GenomeCoder, as_genome
from nachos_min.nas.limits import Limits
from nachos_min.nas.populations import count_each
from nachos_min.nas.space import load_space
from nachos_min.targets import count_macs, read_target

FLEX8, FLEX16 = load_space("flex8"), load_space("flex16")


def waves() -> tuple[np.ndarray, np.ndarray]:
    """Signals (240, 48): two, four or seven periods, of any phase, in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    periods, phase = np.array([2, 4, 7])[labels, None], rng.uniform(0, 2 * np.pi, (240, 1))
    return np.sin(2 * np.pi * periods * np.arange(48) / 48 + phase) + rng.normal(0, 0.3, (240, 48)), labels


def table() -> tuple[np.ndarray, np.ndarray]:
    """Eight columns of 240 samples; the class depends on the sum of two that are not neighbours."""
    columns = np.random.default_rng(1).standard_normal((240, 8))
    return columns, (columns[:, 1] + columns[:, 6] > 0).astype(np.int64)


def problem(name: str) -> tuple[Dataset, GenomeCoder]:
    data = load({"waves": waves, "table": table}[name](), layout="signal")
    return data, GenomeCoder(FLEX8, data.image_shape, data.classes)


@pytest.mark.parametrize(("name", "least"), [("waves", 0.8), ("table", 0.7)])
def test_networks_of_signals_and_tables_learn_and_run_as_counted(name: str, least: float) -> None:
    data, coder = problem(name)
    assert data.image_shape == (1, 48 if name == "waves" else 8, 1)
    recipe, trial = DeepRecipe(epochs=8), Trial(coder.sample(np.random.default_rng(2)))
    asked = Configuration("in memory", "flex8", seed=0, limits=Limits(60_000, 0.0), recipe=recipe)
    found = evaluate(coder, data, asked, trial)
    network = build(coder, found.genome, seed=9)
    network.load_state(found.weights)
    assert found.costs == static_costs(network.architecture)
    for point in found.points:  # `measure` runs with early stopping, and raises unless it runs what is counted
        assert measure(network, data.test, point.thresholds, found.confidence, found.costs) == point.test
    assert found.chosen.test.accuracy > least


def test_signals_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = problem("waves")
    asked = Configuration("in memory", "flex8", seed=0, limits=Limits(20_000, 0.0), recipe=DeepRecipe(epochs=1))
    monkeypatch.setattr(nachos, "Workers", instant(lambda coder, trial: evaluate(coder, data, asked, trial)))
    options: dict[str, Any] = {"layout": "signal", "space": "flex8", "max_macs": 20_000, "min_accuracy": 0.0}
    sizes = {"evaluations": 3, "epochs": 1, "finalists": 0}
    result = nachos_min.search(data=waves(), out=tmp_path / "run", **options, **sizes)
    assert result.evaluated == 3
    assert all(row.average_macs <= 20_000 for row in result.front)
    for row in result.front:
        architecture = GenomeCoder(FLEX8, (1, 48, 1), 3).decode(row.genome)
        assert static_costs(architecture).exit_costs == row.exit_costs


# Shapes


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_a_resolution_is_the_shorter_side_and_of_signals_the_length(
    height: int, width: int, resolution: int
) -> None:
    coder = GenomeCoder(FLEX8, (height, width, 2), 3)
    rows, columns, channels = coder.input_shape(resolution)
    assert channels == 2
    assert coder.input_shape(None) == (height, width, 2)
    if height == 1:
        assert (rows, columns) == (1, resolution)
    else:
        assert min(rows, columns) == resolution
        assert abs(rows * width - columns * height) <= max(height, width)  # the aspect, to a rounded pixel
        assert coder.input_shape(min(height, width)) == (height, width, 2)


@pytest.mark.parametrize("image", [(1, 1, 1), (1, 4, 2), (1, 1000, 1), (5, 40, 3), (40, 5, 1), (2, 90, 1)])
@pytest.mark.parametrize("space", ["flex8", "flex16", "tiny"])
def test_thin_shapes_have_networks_that_run_as_counted(space: str, image: tuple[int, int, int]) -> None:
    coder, rng = GenomeCoder(load_space(space), image, 2), np.random.default_rng(0)
    genome = next(row for row in coder.draw(rng, 200) if count_each(coder, row[None]).legal)
    network = build(coder, as_genome(genome), seed=0)
    seen = as_seen(Split(Images(rng.standard_normal((3, *image), np.float32)), np.array([0, 1, 0])), network)
    with counted() as executed:
        found = exit_answers(network, seen.images)
    costs = static_costs(network.architecture)
    assert (executed.total, found.logits.shape[1]) == (3 * costs.worst_macs, len(costs.exit_costs))
    assert costs.worst_macs <= static_costs(coder.largest()).worst_macs


# The same network as others write it


def test_a_flat_network_counts_as_pytorchs_one_dimensional_layers() -> None:
    import oracles_torch
    from oracles_nn import architecture, initialised

    from nachos_min.macs.readers.torch_reader import read_torch

    torch = oracles_torch.torch

    class OneDimensional(torch.nn.Module):
        def __init__(self, network: EarlyExitNetwork) -> None:
            super().__init__()
            self.peer, self.architecture = oracles_torch.Peer(network), network.architecture

        def forward(self, x: Any) -> Any:
            return self.peer.network(x, self.architecture)

    for length in (19, 48, 7):
        network = initialised(architecture(1, 2, 3, image=(1, length, 2)))
        network.train(False)
        ours = count(lower(network.architecture))
        theirs = count(read_torch(OneDimensional(network), (torch.zeros(1, 2, length),)))
        assert (ours.macs, ours.valid_macs) == (theirs.macs, theirs.valid_macs)


def test_json_describes_flat_networks_as_it_does_others(tmp_path: Path) -> None:
    coder = GenomeCoder(FLEX16, (1, 300, 2), 4)
    genome = coder.sample(np.random.default_rng(3))
    architecture = coder.decode(genome)
    text = architecture_to_json(architecture)
    assert architecture_from_json(json.loads(text)) == architecture
    fields = {"space": "flex16", "genome": list(genome), "input": [2, 1, 300], "classes": 4}
    for name, content in (("network.json", text), ("genome.json", json.dumps(fields))):
        (tmp_path / name).write_text(content)
        assert count_macs(tmp_path / name) == static_costs(architecture).worst_macs


def test_cnas_configurations_are_read_for_images_of_any_aspect() -> None:
    path = str(Path(__file__).parent.parent / "data_files" / "cnas_example.json")
    for image in ((3, 24, 40), (3, 40, 24), (1, 1, 64), (3, 32, 32)):
        architecture = read_target(path, image).architecture
        assert architecture is not None
        assert architecture.input_shape == (image[1], image[2], image[0])
