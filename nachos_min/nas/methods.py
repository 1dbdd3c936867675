"""What NACHOS is held against: other methods under the same budget, each a small configuration of the same loop.

    nachos       backbone and exits searched jointly, limits and both regularisers at work
    random       the start that `start="random"` has with the same seed, going on until the evaluations are used up
    two-stage    backbones searched without exits; then exits, placed by a fixed rule on the best of them; what it
                 returns are the best of both
    static       networks without early exits, searched like the others
    edanas       no limits in the search and no regularisers; which networks are admissible is judged at the end
    rule         two networks by a rule, trained longer and then with more seeds until the evaluations are used up
    largest      the larger of the two, in the same way: thresholds alone trade MACs

All share training, thresholds, surrogates, NSGA-II and the archive, so that a difference between two of them has
one cause. Read the table below before `nachos.py`, which acts by it. Left out: other codes' own implementations.

Source: NACHOS, arXiv 2401.13330, its comparisons; EDANAS, Gambella and Roveri, "EDANAS: Adaptive Neural
Architecture Search for Early Exit Neural Networks", IJCNN 2023, reduced to what sets it apart from NACHOS.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from nachos_kernels.dominance import non_dominated_ranks
from nachos_min.nas.evaluate import Evaluation, Trial
from nachos_min.nas.genome import Genome, GenomeCoder, IntArray, as_genome
from nachos_min.nas.limits import StaticCheck


@dataclass(frozen=True)
class Method:
    """Which parts of the loop are at work.

    Attributes:
        guided: surrogates and NSGA-II propose candidates; otherwise all are random.
        limited: the limits act on what is searched, trained and tuned; otherwise on the result alone.
        regularised: the loss of the exits has its cost and its peak term.
        static: networks without early exits are searched.
        placed: exits are placed by hand on what was searched, for the second half of the evaluations.
        ruled: no search: these many networks, the last of `rule_genomes`, are trained for all the evaluations.
    """

    guided: bool = True
    limited: bool = True
    regularised: bool = True
    static: bool = False
    placed: bool = False
    ruled: int = 0


METHODS = {
    "nachos": Method(),
    "random": Method(guided=False),
    "two-stage": Method(static=True, placed=True),
    "static": Method(static=True),
    "edanas": Method(limited=False, regularised=False),
    "rule": Method(guided=False, ruled=2),
    "largest": Method(guided=False, ruled=1),
}
# How many times the epochs of a candidate those are trained for that a search ends with, or that a rule chose.
LONG = 4


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
    """Return the canonical genome of a backbone with exits placed, or None if it is inadmissible by static count.

    Where heads have genes all exits have the last one of the space's list that has no convolution. If that is
    inadmissible, they have the last that is not. In a small network a convolution costs more than it brings.

    Args:
        check: of genomes with exits.
        backbone: genome, int64 (length,), whose exit bits and heads are not read.
        bits: the exit bits.
    """
    coder = check.coder
    for head in linear_heads(coder)[::-1]:
        genome = backbone.copy()
        genome[coder.exit_genes], genome[coder.head_genes] = bits, head
        found = as_genome(coder.canonical(genome[None])[0])
        if not isinstance(check.costs(found), str):
            return found
    return None


def linear_heads(coder: GenomeCoder) -> list[int]:
    """Return the genes of the heads without convolution; 0 where heads have no genes."""
    return [gene for gene, head in enumerate(coder.space.exit_heads) if not head.widths] or [0]


def place_by_hand(coder: GenomeCoder, check: StaticCheck, backbones: Sequence[Evaluation]) -> Iterator[Genome]:
    """Yield genomes with exits placed by a fixed rule: what a designer without a search would try, in this order.

    First an exit after every stage, on each backbone in turn, from the best non-dominated front (error, MACs)
    to the worst; then the placements with fewer exits. Those inadmissible by static count are left out.

    Args:
        coder: of the genomes.
        check: of genomes with exits.
        backbones: evaluated without exits.
    """
    figures = [(1 - found.validation.accuracy, found.validation.average_macs) for found in backbones]
    points = np.array(figures, np.float64).reshape(-1, 2)
    ranks = non_dominated_ranks(points, np.zeros(len(points))).tolist()
    order = sorted(range(len(backbones)), key=lambda place: (ranks[place], figures[place], backbones[place].genome))
    for bits in placements(coder):
        for place in order:
            if (genome := placed(check, np.array(backbones[place].genome), bits)) is not None:
                yield genome
