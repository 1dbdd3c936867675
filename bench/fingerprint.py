"""A hash of everything that a refactoring must not change, one line a thing.

    python bench/fingerprint.py > before.txt                 # then change the code
    python bench/fingerprint.py > after.txt; diff before.txt after.txt
    python bench/fingerprint.py --only table --seeds 3       # or data, training, search, ...

Hashes are compared between two commits on one machine, never stored: another processor rounds otherwise.
To compare commits with one version of this file, run it with PYTHONPATH=COMMIT:COMMIT/kernels. Every option is
named here, so that a new default changes no line. A thing that fails shows its error instead of a hash.
"""

import json
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache, partial
from hashlib import sha256
from inspect import signature
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from warnings import catch_warnings

from fire import Fire
from measuring import on_threads

ROOT = Path(__file__).parents[1]
Things = Iterator[tuple[str, Callable[[], Any]]]

SPACES = {"micro": (8, 8, 1), "tiny": (8, 8, 1), "small32": (32, 32, 3), "ofa-mbv3": (32, 32, 3)}
SPACES |= {"flex8": (8, 8, 1), "flex16": (16, 16, 1), "flex32": (32, 32, 3)}
# The paper's method; `call` leaves out the options that a version lacks.
PAPER: dict[str, Any] = {
    "recipe": "paper",
    "standardise": "pixel",
    "confidence": "learned",
    "validation": "whole",
    "augment": "none",
    "backbone": "joint",
    "beta": 1.0,
    "gamma": 1.0,
    "max_macs": 40_000,
    "min_accuracy": 0.9,
    "margin": 0.0,
    "constraints": "domination",
    "thresholds": "exact",
    "points": "curve",
    "method": "nachos",
    "start": "spread",
    "surrogate": "switching",
    "features": "genes",
    "aims": "ends",
    "finalists": 0,
    "workers": 1,
}
DEEP: dict[str, Any] = {
    "recipe": "deep",
    "standardise": "channel",
    "confidence": "best",
    "validation": "halves",
    "augment": "auto",
    "beta": 0.0,
    "gamma": 0.0,
    "max_worst_macs": 120_000,
    "finalists": 2,
    "start": "rule",
    "aims": "budgets",
    "surrogate": "gp",
    "features": "costs",
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {"thresholds": "grid-repair", "points": "best", "start": "random"},
    {"constraints": "adaptive-penalty", "max_macs": 25_000},
    {"features": "costs", "margin": 0.01},
    {"max_macs": None, "max_worst_macs": 60_000, "max_params": 9_000},
    *({"surrogate": name} for name in ("rbf", "trees", "mlp")),
    *({"method": name} for name in ("random", "two-stage", "static")),
)
FIGURES = ("accuracy", "correct", "samples", "total_macs", "average_macs", "exit_counts")
SOLUTION = ("genome", "exits", "thresholds", "exit_costs", "worst_macs", "params", *FIGURES)
RESULT = ("seed", "evaluated", "failed", "admissible", "constraints", "hypervolume")


def main(only: str = "", seeds: int = 20) -> None:
    """Print every thing and its hash.

    Args:
        only: data, training, table, search, nsga2, macs or autograd; all of them unless given.
        seeds: searches answered from the table.
    """
    on_threads(1)
    import nachos_min

    print(f"of {nachos_min.__file__}", file=sys.stderr)
    parts: dict[str, Callable[[], Things]] = {"table": partial(table, seeds)}
    parts |= {part.__name__: part for part in (data, training, search, nsga2, macs, autograd)}
    for part in [only] if only else parts:
        for name, thing in parts[part]():
            try:
                found = digest(thing())
            except Exception as error:
                found = type(error).__name__
                print(f"{part} {name}: {error}", file=sys.stderr)
            print(f"{part} {name}  {found}", flush=True)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of nested lists, mappings, numbers, texts and arrays."""

    def plain(found: Any) -> Any:
        if isinstance(found, Mapping):
            return {str(name): plain(member) for name, member in found.items()}
        if isinstance(found, list | tuple):
            return [plain(member) for member in found]
        if isinstance(found, str | int | float | None):
            return found
        return [found.dtype.str, found.shape, sha256(found.tobytes()).hexdigest()]

    return sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what `function` does, without the options that its version lacks."""
    known = signature(function).parameters
    return function(*arguments, **{name: option for name, option in options.items() if name in known})


def data() -> Things:
    """Yield the splits of the built-in data sets."""
    import numpy as np

    from nachos_min.data import load

    def splits(name: str) -> Any:
        found = call(load, name, standardise="pixel", validation="whole")
        return [(np.asarray(split.images), split.labels) for split in (found.train, found.validation, found.test)]

    for name in ("digits", "digits32"):
        yield name, partial(splits, name)


@cache
def members(space: str) -> tuple[Any, list[tuple[int, ...]]]:
    """Return the coder of a space, and three random members of it."""
    import numpy as np

    from nachos_min.nas.genome import GenomeCoder
    from nachos_min.nas.limits import Limits, StaticCheck
    from nachos_min.nas.sampling import random_genomes
    from nachos_min.nas.space import load_space

    coder = GenomeCoder(load_space(space), SPACES[space], 10)
    return coder, random_genomes(StaticCheck(coder, Limits(None, 0.0)), 3, np.random.default_rng(0))


def training() -> Things:
    """Yield losses and weights of three members of each space, by each recipe."""
    from types import SimpleNamespace

    import numpy as np

    from nachos_min.data import Images, Split
    from nachos_min.nas import evaluate
    from nachos_min.nas.limits import Limits

    def trained(space: str, member: int, name: str) -> Any:
        coder, genomes = members(space)
        rng = np.random.default_rng(0)
        labels = rng.permutation(np.arange(256) % 10)
        classes, noise = (rng.standard_normal((n, *coder.image_shape), np.float32) for n in (10, 256))
        images: Any = SimpleNamespace(train=Split(Images(classes[labels] + noise), labels))
        limits = Limits(max_macs=PAPER["max_macs"], min_accuracy=0.0)
        asked = configured(evaluate, seed=0, limits=limits, thresholds="exact", recipe=recipe(name))
        network, losses = evaluate.train(coder, images, asked, genomes[member])
        return losses, sorted(digest(weights) for weights in network.state().values())  # whatever their names

    for space in SPACES:
        for member in range(3):
            for name in ("joint", "frozen", "deep"):
                yield f"{space} {member} {name}", partial(trained, space, member, name)


def configured(room: Any, **options: Any) -> Any:
    """Return what `room.train` takes: a Configuration, or the Settings of older versions."""
    if "Settings" in vars(room):
        return room.Settings(**options)
    from nachos_min.nas.configuration import Configuration

    return Configuration("digits", "any", **options)


def recipe(name: str) -> Any:
    """Return the recipe `deep`, or the paper's three phases, the backbone `joint` or `frozen`: one epoch each."""
    try:
        from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe
    except ImportError:  # a version without a choice of recipes
        from nachos_min.eenn.training import Recipe as PaperRecipe
    if name == "deep":
        return DeepRecipe(epochs=1)
    return PaperRecipe(backbone_epochs=1, warmup_epochs=1, support_epochs=1, joint=name == "joint")


def searched(options: Mapping[str, Any]) -> Any:
    """Return the result of a search of the digits, reduced to what is compared, and all genomes evaluated."""
    import nachos_min
    from nachos_min.nas.runs import stored_evaluations

    with TemporaryDirectory() as folder:
        found = call(nachos_min.search, **{**PAPER, "data": "digits", "out": folder, **options}).as_dict()
        genomes = sorted(each.genome for each in stored_evaluations(folder))
    front = [
        [{name: point[name] for name in SOLUTION}, {name: point["test"][name] for name in FIGURES}]
        for point in found["front"]
    ]
    return {name: found[name] for name in RESULT}, front, genomes


def table(seeds: int) -> Things:
    """Yield searches answered from the shipped table: over seeds, then one of each variant."""
    options = {"space": "micro", "table": ROOT / "bench" / "micro-digits-paper.h5", "evaluations": 60}
    for seed in range(seeds):
        yield f"seed {seed}", partial(searched, {**options, "seed": seed})
    for variant in VARIANTS:
        yield " ".join(map(str, variant.values())), partial(searched, options | variant)


def search() -> Things:
    """Yield searches that train: the default's, then the paper's, the backbone trained on and frozen."""
    yield "deep", partial(searched, DEEP | {"space": "flex8", "evaluations": 12, "epochs": 1, "seed": 0})
    for backbone in ("joint", "frozen"):
        yield backbone, partial(searched, {"space": "tiny", "evaluations": 12, "seed": 0, "backbone": backbone})


def nsga2() -> Things:
    """Yield what NSGA-II finds on the test problems, and on one of integers."""
    import numpy as np
    from problems import PROBLEMS

    from nachos_min.nas.nsga2 import minimize

    def found(evaluate: Any, lower: Any, upper: Any, objectives: int, **options: Any) -> Any:
        sizes: dict[str, Any] = {"n_objectives": objectives, "population": 40, "generations": 40, "seed": 0}
        result = minimize(evaluate, lower=lower, upper=upper, **sizes, **options)
        return result.X, result.F, result.G

    for each in PROBLEMS:
        ends, objectives = (each.lower, each.upper), len(each.reference)
        yield each.name, partial(found, each.evaluate, *ends, objectives, n_constraints=each.constraints)
    yield (
        "integers",
        partial(found, lambda X: np.abs(X[:, :2] - [[3, 7]]) + X[:, 2:], [0] * 4, [9] * 4, 2, integer=True),
    )


def macs() -> Things:
    """Yield the counts of networks from every kind of source, each by all conventions."""
    from nachos_min.cli import main as command
    from nachos_min.eenn.architecture import architecture_to_json

    def counted(target: str, *options: str) -> Any:
        with redirect_stdout(StringIO()) as printed:
            command(["macs", target, *options, "--layers", "--json"])
        found = json.loads(printed.getvalue())
        return [found.get(name) for name in ("macs", "params", "columns", "exits", "totals", "layers")]

    def exported(network: str, side: int) -> Any:
        import torch
        from torch_networks import mobilenet_v3_large, resnet20_a, two_exits

        module = {each.__name__: each for each in (mobilenet_v3_large, resnet20_a, two_exits)}[network]()
        with TemporaryDirectory() as kept:
            path = str(Path(kept, f"{network}.onnx"))
            with catch_warnings(action="ignore"):
                torch.onnx.export(module.eval(), (torch.zeros(1, 3, side, side),), path, dynamo=False)
            return counted(path)

    sys.path.append(str(ROOT))  # where the targets in PyTorch are
    with TemporaryDirectory() as folder:
        for space, (height, width, channels) in SPACES.items():
            coder, genomes = members(space)
            whole, genes = Path(folder, "architecture.json"), Path(folder, "genome.json")
            whole.write_text(architecture_to_json(coder.decode(genomes[0])))
            image = {"input": [channels, height, width], "classes": 10}
            genes.write_text(json.dumps({"space": space, "genome": genomes[1], **image}))
            yield f"{space} architecture", partial(counted, str(whole))
            yield f"{space} genome", partial(counted, str(genes))
    configuration = str(ROOT / "tests" / "data_files" / "cnas_example.json")
    yield "cnas", partial(counted, configuration)
    yield "cnas unpadded", partial(counted, configuration, "--unpadded")
    for network, side in (("mobilenet_v3_large", 224), ("resnet20_a", 32), ("two_exits", 32)):
        yield (
            f"torch {network}",
            partial(counted, f"torch:bench.torch_networks:{network}", f"--input=3,{side},{side}"),
        )
        yield f"onnx {network}", partial(exported, network, side)


def autograd() -> Things:
    """Yield value and gradients of the cases that the tests have of each operator, in both types."""
    import numpy as np

    from nachos_min.autograd import OPERATORS, Tensor

    cases = runpy.run_path(str(ROOT / "tests" / "autograd" / "test_vjps.py"))["CASES"]

    def differentiated(operator: str) -> Any:
        found: list[Any] = []
        for case in (case for case in cases if case.operator == operator):
            for dtype in (np.float32, np.float64):
                rng = np.random.default_rng(0)
                leaves = [Tensor(np.asarray(draw(rng), dtype), requires_grad=True) for draw in case.inputs]
                value = case.ours(*leaves)
                value.backward(np.asarray(rng.normal(size=value.shape), dtype))
                found.append([value.data, *(leaf.grad for leaf in leaves)])
        return found

    for operator in sorted(OPERATORS):
        yield operator, partial(differentiated, operator)


if __name__ == "__main__":
    Fire(main)
