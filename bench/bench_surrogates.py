"""How well surrogates order candidates they have not seen: Kendall's tau on a tabular benchmark, or on a run.

    python bench/bench_surrogates.py bench/micro-digits.h5
    python bench/bench_surrogates.py runs/digits                # what a finished search evaluated
    python bench/bench_surrogates.py bench/micro-digits.h5 --points curve --seeds 10 --json

A random sample of the members that a search may train is what surrogates learn from. Each is then asked about
points it has not seen, in two ways: *out of fold*, each tenth of the sample from the other nine, all that a search
can know; and about *all other members*, which only a table can answer. `switching` is the one with the largest
mean minus deviation of tau over the folds, of what it was fitted to, as in a search; its figure out of fold is that
of a winner and so a little too good, that on the other members is not.

How much there is to learn, the end of the output says: tau between two trainings of the same members. What differs
between those is chance, which no surrogate can foresee.

Average MACs are learnt in two ways: as a share of the most expensive path, whose exact cost is known, and kept
between the cheapest and the most expensive path (what the search does), or as they are. Both with genes alone and
with exact costs beside them.
"""

import json as json_format
from pathlib import Path
from typing import Any

from fire import Fire
from measuring import machine, on_threads, show

FEWEST = 10  # others to ask about: the tau of fewer says little
TARGETS = ("error", "MACs by exact cost_E", "MACs as they are")


class Members:
    """All members of a table that a search may train: what is known of them before, and after."""

    def __init__(self, path: str, max_macs: int, seed: int, points: str) -> None:
        """Read the table and answer everything once; a folder is a run, whose limits and points are its own."""
        import numpy as np
        from asked import of_table
        from tabulation import archive_of

        from nachos_min.nas.aims import Features
        from nachos_min.nas.configuration import load_problem
        from nachos_min.nas.limits import StaticCheck
        from nachos_min.nas.result import Archive
        from nachos_min.nas.runs import stored_evaluations, stored_problem
        from nachos_min.nas.tabular import read_table

        if Path(path).is_dir():
            problem = stored_problem(path)
            archive = Archive(problem, stored_evaluations(path))
        else:
            table = read_table(path)
            problem = load_problem(of_table(table, max_macs, 0.9, seed, points=points))
            archive = archive_of(table, problem)
        check = StaticCheck(problem.coder, problem.configuration.acting.limits)
        genomes = np.array([found.genome for found in archive.evaluations])
        kept = check.population(genomes)[1]
        self.genomes = genomes[kept]
        self.costs = check.population(self.genomes)[0]
        reached = np.array([found.ends for found in archive.evaluations])[kept]
        self.error, self.macs = reached.T
        scale = archive.largest.worst_macs, archive.largest.params
        self.features = {
            name: Features(problem.coder.upper, name == "costs", scale)(self.genomes, self.costs)
            for name in ("genes", "costs")
        }


def taus(members: Members, target: str, features: str, count: int, seed: int) -> dict[str, list[float]]:
    """Return for each surrogate and for switching tau out of fold (mean of the folds), and on all other members."""
    import numpy as np

    from nachos_min.nas.aims import SURROGATES
    from nachos_min.nas.surrogates.surrogate import deal_folds, kendall_tau, score

    rng = np.random.default_rng([seed, count])  # the same sample for every target and kind of features
    order = rng.permutation(len(members.genomes))
    sample, others = order[:count], order[count:]
    worst = members.costs.worst_macs.astype(np.float64)
    by_cost = target == "MACs by exact cost_E"
    scale = worst if by_cost else np.ones(len(worst))
    truth = members.error if target == "error" else members.macs
    X, y = members.features[features], truth / scale

    def predicted(model: Any, asked: Any) -> Any:
        found = model.predict(X[asked]) * scale[asked]
        return np.clip(found, members.costs.cheapest[asked], worst[asked]) if by_cost else found

    folds = deal_folds(count, rng)
    subsets = np.concatenate([~folds, np.ones((1, count), bool)])
    scores, out_of_fold, unseen = {}, {}, {}
    for surrogate, stream in zip(SURROGATES, rng.spawn(len(SURROGATES)), strict=True):
        *partial, whole = surrogate.fit_each(X[sample], y[sample], subsets, stream)
        asked = [(sample[fold], model) for fold, model in zip(folds, partial, strict=True)]
        # A search compares surrogates by what they are fitted to, and goes on with their predictions in MACs.
        scores[surrogate.name] = score([kendall_tau(model.predict(X[at]), y[at]) for at, model in asked])
        out_of_fold[surrogate.name] = [kendall_tau(predicted(model, at), truth[at]) for at, model in asked]
        unseen[surrogate.name] = kendall_tau(predicted(whole, others), truth[others])
    winner = max(scores, key=lambda name: scores[name])
    found = {name: [float(np.mean(out_of_fold[name])), unseen[name]] for name in scores}
    return found | {"switching": found[winner]}


def main(
    table: str,
    max_macs: int = 40_000,
    sizes: Any = (40, 100, 200),
    seeds: int = 20,
    points: str = "best",
    json: bool = False,
) -> None:
    """Print tau with 95 % intervals; with --json one JSON object.

    Args:
        table: file made by make_table.py, or folder of a run.
        max_macs: limit on average MACs, which thresholds keep.
        sizes: points to learn from; those that leave fewer than ten others are left out.
        seeds: samples of each size; odd seeds are answered by the second training, as in a search.
        points: best or curve, as of `search`.
        json: print JSON.
    """
    on_threads(1)
    from intervals import mean_interval

    from nachos_min.nas.surrogates.surrogate import kendall_tau

    trainings = [Members(table, max_macs, seed, points) for seed in (0, 1)]
    rows, printed = [], []
    for target in TARGETS:
        for features in ("genes", "costs"):
            for count in sizes if isinstance(sizes, tuple | list) else (sizes,):
                if count > len(trainings[0].genomes) - FEWEST:
                    continue
                found = [taus(trainings[seed % 2], target, features, count, seed) for seed in range(seeds)]
                row: dict[str, Any] = {"target": target, "features": features, "points": count}
                line = dict(row)
                for name in found[0]:
                    for place, where in enumerate(("out of fold", "others")):
                        row[f"{name}, {where}"] = mean_interval([each[name][place] for each in found])
                    line[f"{name}, folds"] = f"{row[f'{name}, out of fold'].value:.3f}"
                    line[f"{name}, others"] = row[f"{name}, others"].text(3)
                rows.append(row)
                printed.append(line)
    facts, first = machine(1), trainings[0]
    agreement: dict[str, float] = {}
    if Path(table).is_file():  # a run has one training of each
        second = trainings[1]
        agreement = {what: kendall_tau(getattr(first, what), getattr(second, what)) for what in ("error", "macs")}
    if json:
        told = {"machine": facts, "members": len(first.genomes), "agreement": agreement, "rows": rows}
        print(json_format.dumps(told, default=vars))
        return
    show(facts, printed)
    if agreement:
        error, macs = agreement["error"], agreement["macs"]
        print(f"two trainings of the same members: tau {error:.3f} of their errors, {macs:.3f} of their MACs")


if __name__ == "__main__":
    Fire(main)
