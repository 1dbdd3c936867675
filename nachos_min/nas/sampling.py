"""The first candidates of a search.

random    any members of the space
spread    the farthest from each other in the space of their exact costs
rule      what an engineer would try: two networks by a rule, networks whose first exit fills a budget with a
          large rest; then their neighbours. In a space of many genes most members are poor.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from nachos_kernels.dominance import non_dominated_ranks
from nachos_min.eenn.recipes import LONG
from nachos_min.nas.evaluation import Evaluation, Trial
from nachos_min.nas.fitting import nearest
from nachos_min.nas.genome import Genome, GenomeCoder, IntArray, as_genome
from nachos_min.nas.limits import StaticCheck
from nachos_min.nas.populations import Bools, PopulationCosts

Floats = np.ndarray[Any, np.dtype[np.float64]]

_DRAWS = 3000  # without a hit: then fewer than one genome in some thousand is new and admissible
_DRAWN = 2000  # networks from which those are taken whose first exit fills a share of a budget within _FILLED
_FILLED = (0.75, 0.95)
_ANEW = 0.15  # share of the genes that are drawn anew: some five of thirty
_POOL = 8  # candidates drawn for each one kept; more change little


def first_genomes(
    check: StaticCheck, start: str, initial: int, wanted: int, budgets: Sequence[float], rng: np.random.Generator
) -> list[Genome]:
    """Return the first `wanted` of about `initial` genomes of a `start`: `random`, `spread` or `rule`.

    Where it has none, they are spread; where admissible members are too rare, the nearest one and its neighbours.
    """
    genomes: list[Genome] = []
    if start == "random":
        genomes = random_genomes(check, wanted, rng)
    elif start == "rule":
        genomes = rule_genomes(check) + filling_genomes(check, budgets, rng)
        genomes += neighbour_genomes(check, initial, rng, genomes)
    genomes = genomes or spread_genomes(check, initial, rng)
    if not genomes:
        near = nearest(check.coder, check.limits)
        genomes = [] if near.excess else [near.genome]
        genomes += neighbour_genomes(check, initial, rng, genomes)
    return [*dict.fromkeys(genomes)][:wanted]


def random_genomes(
    check: StaticCheck, wanted: int, rng: np.random.Generator, seen: Iterable[Genome] = ()
) -> list[Genome]:
    """Return up to `wanted` distinct random admissible genomes not in `seen`; a larger `wanted` only adds some."""
    taken, chosen = set(seen), list[Genome]()
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

    Source:
        T. Gonzalez, "Clustering to minimize the maximum intercluster distance", TCS 38, 1985.
    """
    pool = random_genomes(check, _POOL * wanted, rng)
    if not pool:
        return []
    features = cost_features(check.population(np.array(pool))[0])
    place = int(features.sum(axis=1).argmin())  # the cheapest
    distance, chosen = np.full(len(pool), np.inf), list[Genome]()
    while len(chosen) < min(wanted, len(pool)):
        chosen.append(pool[place])
        distance = np.minimum(distance, ((features - features[place]) ** 2).sum(axis=1))
        distance[place] = -np.inf
        place = int(distance.argmax())
    return chosen


def cost_features(costs: PopulationCosts) -> Floats:
    """Return exit costs (0 where there is no exit), then parameters, as shares of the largest here: (n, S + 1)."""
    macs, params = costs.exit_costs.astype(np.float64), costs.params.astype(np.float64)
    return np.column_stack([macs / max(macs.max(initial=1.0), 1.0), params / max(params.max(initial=1.0), 1.0)])


def rule_genomes(check: StaticCheck) -> list[Genome]:
    """Return what an engineer tries without a search: distinct admissible genomes, placed as in `placed`.

    They are the smallest network, and that of the cheapest stem and first stage and the largest rest. If there are
    genes of widths or stem, both again with their middle values, at the largest resolution. Exits are at the first
    of `placements` that is admissible.
    """
    coder, upper, places = check.coder, check.coder.upper, check.coder.places
    middle = {
        place: upper[place] if name == "resolution" else (upper[place] + 1) // 2 for name, place in places.items()
    }
    small_first = _first_genes(coder)
    small_first[[place for name, place in places.items() if name == "resolution"]] = False
    smallest, staged = np.zeros_like(upper), np.where(small_first, 0, upper)
    if (stride := places.get("stem stride")) is not None:  # the larger, the cheaper
        smallest[stride] = staged[stride] = upper[stride]
    rules = [smallest, staged, smallest.copy(), staged.copy()]
    for rule in rules[2:]:
        rule[list(middle)] = list(middle.values())
    chosen = (next(filter(None, (placed(check, rule, bits) for bits in placements(coder))), None) for rule in rules)
    return list(dict.fromkeys(filter(None, chosen)))


def filling_genomes(check: StaticCheck, budgets: Sequence[float], rng: np.random.Generator) -> list[Genome]:
    """Return networks whose first exit takes most of a budget of average MACs, up to two distinct genomes for each.

    As many exits are placed as `max_exits` allows, the first ones. `rng` draws each gene of resolution, stem and
    first stage, and one size of the rest.
    """
    coder, upper = check.coder, check.coder.upper
    first = rng.integers(0, upper + 1, (_DRAWN, coder.length))
    rest = np.rint(rng.random((_DRAWN, 1)) * upper).astype(np.int64)
    genomes = np.where(_first_genes(coder), first, rest)
    most = check.limits.max_exits or coder.length
    genomes[:, coder.exit_genes] = next(bits for bits in placements(coder) if sum(bits) < most)
    genomes[:, coder.head_genes] = linear_heads(coder)[-1]
    genomes = coder.canonical(genomes)
    costs, admissible = check.population(genomes)
    chosen: dict[Genome, None] = {}
    for budget in budgets:
        filling = admissible & (costs.cheapest > _FILLED[0] * budget) & (costs.cheapest <= _FILLED[1] * budget)
        largest_rest = genomes[filling][np.argsort(-costs.worst_macs[filling], kind="stable")]
        chosen |= dict.fromkeys([*dict.fromkeys(map(as_genome, largest_rest))][:2])
    return list(chosen)


def neighbour_genomes(
    check: StaticCheck, wanted: int, rng: np.random.Generator, parents: Sequence[Genome]
) -> list[Genome]:
    """Return up to `wanted` distinct admissible genomes: `parents`, if any, with some genes drawn anew."""
    chosen: dict[Genome, None] = {}
    draws = 0
    while parents and len(chosen) < wanted and (draws := draws + 1) <= _DRAWS:
        parent = np.array(parents[int(rng.integers(len(parents)))])
        anew = rng.random(len(parent)) < _ANEW
        genomes = check.coder.canonical(np.where(anew, rng.integers(0, check.coder.upper + 1), parent)[None])
        if check.population(genomes)[1][0] and (genome := as_genome(genomes[0])) not in parents:
            chosen[genome] = None
    return list(chosen)


def _first_genes(coder: GenomeCoder) -> Bools:
    """Return which genes form the resolution, the stem and the first stage, bool (length,)."""
    stages = len(coder.space.stages)
    found: Bools = np.arange(coder.length) == 0  # its depth
    found[stages : coder.exit_genes.start].reshape(2, stages, -1)[:, 0] = True  # its kernels and expansions
    for name, place in coder.places.items():
        found[place] = name in ("resolution", "stem channels", "stem stride", "width 1")
    return found


def ruled_trials(genomes: Sequence[Genome], evaluations: int) -> list[Trial]:
    """Return trials that take as long as `evaluations` trainings: longer first, up to LONG times, then more seeds.

    >>> [(trial.genome, trial.effort, trial.repeat) for trial in ruled_trials([(0,), (1,)], 17)]
    [((0,), 4, 0), ((1,), 4, 0), ((0,), 4, 1), ((1,), 4, 1)]
    """
    effort = min(LONG, max(1, evaluations // max(len(genomes), 1)))
    repeats = max(1, evaluations // max(effort * len(genomes), 1))
    return [Trial(genome, effort, repeat) for repeat in range(repeats) for genome in genomes]


def placements(coder: GenomeCoder) -> list[tuple[int, ...]]:
    """Return all choices of exit bits that place an exit, those with most exits first, then the earlier ones.

    >>> from nachos_min.nas.space import load_space
    >>> placements(GenomeCoder(load_space("micro"), (8, 8, 1), 10))
    [(1, 1), (1, 0), (0, 1)]
    """
    bits = product((1, 0), repeat=len(coder.space.stages) - 1)
    return sorted((choice for choice in bits if any(choice)), key=lambda choice: -sum(choice))


def placed(check: StaticCheck, backbone: IntArray, bits: tuple[int, ...]) -> Genome | None:
    """Return a canonical genome: a `backbone`, int64 (length,), with exits placed by `bits`; None if inadmissible.

    All exits have the last admissible head without convolution, which in a small network costs more than it brings.
    """
    coder = check.coder
    for head in linear_heads(coder)[::-1]:
        genome = backbone.copy()
        genome[coder.exit_genes], genome[coder.head_genes] = bits, head
        rows = coder.canonical(genome[None])
        if check.population(rows)[1][0]:
            return as_genome(rows[0])
    return None


def linear_heads(coder: GenomeCoder) -> list[int]:
    """Return the genes of the heads without convolution; 0 where heads have no genes."""
    return [gene for gene, head in enumerate(coder.space.exit_heads) if not head.widths] or [0]


def place_by_hand(check: StaticCheck, backbones: Sequence[Evaluation]) -> Iterator[Genome]:
    """Yield admissible genomes with exits placed on `backbones`, which were evaluated without exits.

    All exits come first, on each backbone from the best non-dominated front (error, MACs) to the worst; then fewer.
    """
    figures = [(1 - found.chosen.validation.metric, found.chosen.validation.average_macs) for found in backbones]
    points = np.array(figures, np.float64).reshape(-1, 2)
    ranks = non_dominated_ranks(points, np.zeros(len(points))).tolist()
    order = sorted(range(len(backbones)), key=lambda place: (ranks[place], figures[place], backbones[place].genome))
    for bits in placements(check.coder):
        for place in order:
            if (genome := placed(check, np.array(backbones[place].genome), bits)) is not None:
                yield genome
