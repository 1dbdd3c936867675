"""The first candidates of a search: random, spread evenly over what can be counted before training, or by rules.

Read `limits.py` first. A random first sample leaves holes by chance. Costs are exact before any weight exists, so
holes can be seen and filled: `spread_genomes` draws many candidates and keeps those farthest from each other in the
space of their costs.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from nachos_min.nas.genome import Genome
from nachos_min.nas.limits import StaticCheck
from nachos_min.nas.methods import placed, placements
from nachos_min.nas.populations import PopulationCosts

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Draws without a hit after which a random sample gives up: a space in which fewer than one genome in some
# thousand is new and statically admissible is better served by other limits than by more draws.
_DRAWS = 3000
# Candidates drawn for each one kept: more change little, since the farthest are found in any large sample.
_POOL = 8


def random_genomes(
    check: StaticCheck, wanted: int, rng: np.random.Generator, seen: Iterable[Genome] = ()
) -> list[Genome]:
    """Return up to `wanted` distinct random genomes that are statically admissible and not in `seen`.

    Args:
        check: draws them, and knows the limits.
        wanted: how many, >= 0; fewer are returned where the space has no more, or hardly any.
        rng: which ones; asked for more, the same come first.
        seen: canonical genomes that are not wanted.
    """
    taken = set(seen)
    chosen: list[Genome] = []
    misses = 0  # since the last hit
    drawn = check.drawn(rng)
    while len(chosen) < wanted and misses < _DRAWS:
        genome, admissible = next(drawn)
        if genome in taken or not admissible:
            misses += 1
        else:
            misses = 0
            taken.add(genome)
            chosen.append(genome)
    return chosen


def spread_genomes(check: StaticCheck, wanted: int, rng: np.random.Generator) -> list[Genome]:
    """Return up to `wanted` distinct admissible genomes, each the farthest from those before it in its costs.

    Args:
        check: draws them, counts them, and knows the limits.
        wanted: how many, >= 1.
        rng: the candidates they are chosen from.

    Returns:
        Genomes in the order of choice: the first k of them are spread out, too. The first has the smallest sum of
        `cost_features`.

    Source:
        Farthest-point traversal: T. Gonzalez, "Clustering to minimize the maximum intercluster distance",
        Theoretical Computer Science 38, 1985. Here on `cost_features`.
    """
    pool = random_genomes(check, _POOL * wanted, rng)
    if not pool:
        return []
    genomes = np.array(pool)
    features = cost_features(check.population(genomes)[0])
    place = int(features.sum(axis=1).argmin())
    distance = np.full(len(pool), np.inf)
    chosen: list[Genome] = []
    while len(chosen) < min(wanted, len(pool)):
        chosen.append(pool[place])
        distance = np.minimum(distance, ((features - features[place]) ** 2).sum(axis=1))
        distance[place] = -np.inf
        place = int(distance.argmax())
    return chosen


def cost_features(costs: PopulationCosts) -> Floats:
    """Return what is known of genomes before training as numbers of order 1, float64 (n, S + 1).

    Args:
        costs: of n genomes in a space of S stages.

    Returns:
        For each stage the MACs of leaving there, 0 where there is no exit, as a share of the largest network
        here; then the parameters in the same way.
    """
    macs = costs.exit_costs.astype(np.float64)
    params = costs.params.astype(np.float64)[:, None]
    return np.column_stack([macs / max(macs.max(initial=1.0), 1.0), params / max(params.max(initial=1.0), 1.0)])


def rule_genomes(check: StaticCheck) -> list[Genome]:
    """Return what an engineer tries without a search: distinct canonical genomes, statically admissible ones only.

    Args:
        check: of genomes with exits; knows the space and the limits.

    Returns:
        The smallest network, and that of the cheapest stem and first stage and the largest rest. Where the space
        has genes of widths or stem, both again with their middle values, at the largest resolution. Exits are
        everywhere, or at the first of `placements` that is admissible. Heads are those of `placed`.
    """
    coder, stages, upper = check.coder, len(check.coder.space.stages), check.coder.upper
    smallest, staged = np.zeros_like(upper), upper.copy()
    staged[0] = 0
    staged[stages : coder.exit_genes.start].reshape(2, stages, -1)[:, 0] = 0  # kernels and expansions of stage 1
    middle = {place: (upper[place] + 1) // 2 for place in coder.places.values()}
    for name, place in coder.places.items():
        if name in ("width 1", "stem channels"):
            staged[place] = 0
        elif name == "stem stride":  # the larger, the cheaper
            smallest[place] = staged[place] = upper[place]
        elif name == "resolution":
            middle[place] = upper[place]
    rules = [smallest, staged, smallest.copy(), staged.copy()]
    for rule in rules[2:]:
        rule[list(middle)] = list(middle.values())
    chosen = (next(filter(None, (placed(check, rule, bits) for bits in placements(coder))), None) for rule in rules)
    return list(dict.fromkeys(filter(None, chosen)))
