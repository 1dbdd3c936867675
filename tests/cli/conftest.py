"""Results of searches that never took place, small enough to know every figure of; the commands in a folder."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from candidates import evaluation

from nachos_min import cli
from nachos_min.eenn.architecture import architecture_to_json
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures, spent
from nachos_min.nas.evaluation import Point, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import Limits
from nachos_min.nas.progress import Progress
from nachos_min.nas.result import Network, SearchResult
from nachos_min.nas.space import load_space
from nachos_min.terminal import Guard

# The worked example of the README: a compact list, and the figures published for what its sampler built.
CNAS = {"ks": [3, 5, 5, 3, 7, 5, 3, 3, 3, 3], "e": [3] * 10, "d": [2] * 5, "r": 32}

CODER = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
GENOME = CODER.sample(np.random.default_rng(3))  # has early exits

LIMITS = Limits(60_000, 0.9)


def network(number: int, exits: tuple[int, ...], counts: tuple[int, ...], costs: tuple[int, ...]) -> Network:
    """A row of 288 validation samples, of which it has 280 - number right, and of 360 test samples."""
    trial, static = Trial((1, 0, number)), StaticCosts(costs, 23_456, 9_000)
    figures = Figures(280 - number, sum(counts), counts, spent(counts, costs))
    test = Figures(343, 360, counts, 360 * figures.total_macs // figures.samples)
    point = Point((0.5,) * (len(exits) - 1) + (0.0,), figures, test)
    return Network(evaluation(trial, figures, exits=exits, costs=static, points=(point,)), point, LIMITS, number)


@pytest.fixture
def result() -> SearchResult:
    """A finished search with three networks of two, three and four exits."""
    front = (
        network(0, (1, 2, 4), (200, 70, 18), (32_000, 52_000, 103_552)),
        network(1, (2, 4), (287, 1), (32_000, 99_000)),
        network(2, (1, 2, 3, 4), (150, 100, 37, 1), (12_000, 22_000, 31_001, 49_000)),
    )
    return SearchResult(
        "runs/digits", 0, LIMITS, 0.0, 104, 40, 2, 31, 17, 60_000.0, 50_000.0, (1.0, 200_000), front, None
    )


@pytest.fixture
def without_solution(result: SearchResult) -> SearchResult:
    """The same search when nothing is admissible."""
    return replace(result, admissible=0, front=(), hypervolume_admissible=0.0, closest=result.front[0])


@pytest.fixture
def progress(result: SearchResult) -> Progress:
    """The search half way."""
    return Progress("training the choice of iteration 3", 3, 57, 104, 40, 2, 75.0, result.front[0])


class Outcome(NamedTuple):
    """What a command line left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def outcome(*arguments: str) -> Outcome:
        with monkeypatch.context() as guarded:  # as `python -m nachos_min` begins
            for name in ("stdout", "stderr"):
                guarded.setattr(sys, name, Guard(getattr(sys, name)))
            status = cli.main(arguments)
        return Outcome(status, *capsys.readouterr())

    return outcome


@pytest.fixture
def eenn():
    """The architecture in net.json."""
    return CODER.decode(GENOME)


@pytest.fixture
def macs(run, eenn):
    """Run `macs` in a folder with net.json, the same network as genome.json, and cnas.json."""
    Path("net.json").write_text(architecture_to_json(eenn))
    genome = {"space": "tiny", "genome": list(GENOME), "input": [1, 8, 8], "classes": 10}
    Path("genome.json").write_text(json.dumps(genome))
    Path("cnas.json").write_text(json.dumps(CNAS))
    return lambda *arguments: run("macs", *arguments)


@pytest.fixture
def counted(macs):
    """Run `macs --json`; return what it prints."""

    def read(*arguments):
        outcome = macs(*arguments, "--json")
        assert (outcome.status, outcome.err) == (0, "")
        return json.loads(outcome.out)

    return read


@pytest.fixture
def refused(macs):
    """Run `macs`; return the one printable line that it has to say."""

    def line(*arguments):
        status, out, err = macs(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert err[:-1].isprintable()
        return err

    return line
