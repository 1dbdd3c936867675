"""What a search takes where nothing is said, a space and limits that fit the data; and limits that are refused.

Data need no space of their own: four spaces ship, and their resolutions are read as shares of the data's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import ceil, inf, sqrt
from typing import Any

import numpy as np

from nachos_min.nas.configuration import (
    AUTO,
    FAR,
    Configuration,
    ConfigurationError,
    Problem,
    configure,
    load_problem,
)
from nachos_min.nas.genome import Genome, GenomeCoder, IntArray, as_genome
from nachos_min.nas.limits import COUNTED, Floats, Limits, StaticCheck
from nachos_min.nas.space import Space, load_space
from nachos_min.options import flag, show_count

# The spaces of `auto`, each with the size in pixels below which it is taken. From 8x8 a stem of stride 2 leaves too
# little; from 48x48 on three stages have to shrink the maps.
FITTED = {"flex8": 12, "flex16": 24, "flex32": 48, "flex64": inf}

DRAWS, SHARE = 2_000, 4  # a limit is usual if one random member of SHARE can keep it
NONE = Limits(None, 0.0)
_SEED = 96_112  # any number would do; the limits of all runs follow from it
_STARTS = 4  # members from which the nearest is sought


def fitted_space(image_shape: tuple[int, int, int]) -> Space:
    """Return the space that `auto` stands for: a shipped one, its resolutions as shares of the data's own side.

    The side is the shorter one of an image (H, W, C); of a signal, an image of height 1, it is the length.

    >>> [fitted_space((side, side, 1)).resolutions for side in (8, 16, 28, 96)]
    [(), (12, 16), (14, 21, 28), (48, 72, 96)]
    """
    height, width, _ = image_shape
    # A stride divides the cells of an image by four and those of a signal by two: each of them counts twice.
    side, size = (width, sqrt(2 * width)) if height == 1 else (min(height, width), sqrt(height * width))
    space = load_space(next(name for name, below in FITTED.items() if size < below))
    sides = {max(1, round(side * each / space.resolutions[-1])) for each in space.resolutions}
    return replace(space, resolutions=tuple(sorted(sides)))


def prepared(asked: Mapping[str, Any], source: Any = None) -> Problem:
    """Return the problem of a search with the `resolved` options, with all that depends on its data decided.

    `source` is the data set as `load` takes it; None: the name or path among the options. InputError if the options
    exclude each other, data or space cannot be read, or no network can keep the limits on static counts.
    """
    problem = load_problem(configure(asked), source, max_bytes=asked["max_bytes"])
    problem = replace(problem, configuration=configure(decided(asked, problem.coder)))
    rules = problem.configuration.rules
    check_counts(replace(problem.coder, static=rules.static and not rules.placed), problem.configuration)
    return problem


def decided(asked: Mapping[str, Any], coder: GenomeCoder) -> dict[str, Any]:
    """Return the `resolved` options with the limits that depend on the data, for images as `coder` has them.

    `max_macs` is by default what a quarter of random members can keep; with the recipe deep `max_worst_macs` is
    FAR times that, or what a quarter can keep if that is more: a tight `max_macs` alone must not exclude all.
    """
    found = dict(asked)
    far = asked["max_worst_macs"] is None and asked["recipe"] == "deep" and asked["max_macs"] is not None
    if far or asked["max_macs"] == AUTO:
        usual = usual_limits(replace(coder, static=False))
        if asked["max_macs"] == AUTO:
            found["max_macs"] = usual["max_macs"]
        if far:
            found["max_worst_macs"] = max(FAR * found["max_macs"], usual["max_worst_macs"])
    return found


def usual_limits(coder: GenomeCoder) -> dict[str, int]:
    """Return what a quarter of random members keep of each limit on counts, rounded up, by the names in COUNTED.

    ConfigurationError if none of them is a network whose exits keep the order of their costs.
    """
    costs, legal = StaticCheck(coder, NONE).population(drawn(coder))
    if not legal.any():
        rule = f"space {described(coder)} must have networks whose exits keep the order of their costs"
        raise ConfigurationError(f"{rule}, got none in {DRAWS:,}; try --space {AUTO}")
    counts = {limit: np.sort(getattr(costs, count)[legal]) for limit, count in COUNTED.items()}
    return {limit: rounded_up(int(each[(len(each) - 1) // SHARE])) for limit, each in counts.items()}


def rounded_up(count: int) -> int:
    """Return the least number of two digits and zeros that is >= `count`.

    >>> rounded_up(40_000), rounded_up(112_340), rounded_up(7)
    (40000, 120000, 7)
    """
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def check_counts(coder: GenomeCoder, configuration: Configuration) -> None:
    """Raise ConfigurationError if no member of the space keeps the limits on static counts.

    The message gives what the cheapest network takes, and limits and a space that work.
    """
    asked, share = configuration.limits, 1 - Fraction(str(configuration.margin))
    limits = asked.tightened(configuration.margin)
    if not (near := nearest(coder, limits)).excess:
        return

    def needed(counts: Mapping[str, int]) -> dict[str, int]:
        """Return the limits that keep these counts, from which the margin is taken once more."""
        return {name: ceil(count / share) if name == "max_macs" else count for name, count in counts.items()}

    usual, counts = needed(usual_limits(coder)), needed(near.counts)
    flags = [
        f"{flag(name)} {show_count(rounded_up(max(usual[name], counts[name])))}"
        for name, limit in asked.counted.items()
        if counts[name] > limit
    ]
    spaces = [(AUTO, fitted_space(coder.image_shape)), *((name, load_space(name)) for name in FITTED)]
    fits = (name for name, space in spaces if not nearest(replace(coder, space=space), limits).excess)
    flags += [f"or --space {name}" for name in islice(fits, 1)]
    advice = f"try {' '.join(flags)}"
    for name, limit in limits.counted.items():
        alone = nearest(coder, replace(NONE, **{name: limit}))
        if alone.excess:
            least = f"{needed(alone.counts)[name]:,}, the least that a network of space {described(coder)} takes"
            raise ConfigurationError(f"{name} must be >= {least}, got {getattr(asked, name):,}; {advice}")
    given = " and ".join(f"{name} {limit:,}" for name, limit in asked.counted.items())
    broken = " and ".join(f"{counts[name]:,}" for name, limit in asked.counted.items())
    raise ConfigurationError(
        f"{given} must together leave a network of space {described(coder)}, the nearest takes {broken}; {advice}"
    )


@dataclass(frozen=True)
class Nearest:
    """The member of a space that exceeds limits on static counts least."""

    genome: Genome
    excess: float  # sum of shares of the limits; 0 if it is admissible
    counts: Mapping[str, int]  # what it takes of each limit, by the names in COUNTED


def nearest(coder: GenomeCoder, limits: Limits) -> Nearest:
    """Return the member that exceeds the limits on static counts least, all together.

    From the best random members on, a gene is changed as long as the excess falls, or two where one does not help.
    The excess is infinite where no network is met.
    """
    check = StaticCheck(coder, NONE)

    def excess_of(genomes: IntArray) -> Floats:
        costs, legal = check.population(genomes)
        return np.where(legal, limits.excess(costs), inf)

    rows = drawn(coder)
    excess, found = excess_of(rows), list[tuple[float, Genome]]()
    for start in np.argsort(excess, kind="stable")[:_STARTS]:
        genome, least = rows[start], float(excess[start])
        while least:
            changed = coder.canonical(single_changes(coder, genome))
            each = excess_of(changed)
            if not each.min() < least:
                changed = coder.canonical(np.vstack([single_changes(coder, other) for other in changed]))
                each = excess_of(changed)
            if not each.min() < least:
                break
            genome, least = changed[each.argmin()], float(each.min())
        found.append((least, as_genome(genome)))
    least, chosen = min(found)
    costs, _ = check.population(np.array([chosen]))
    return Nearest(chosen, least, {name: int(getattr(costs, count)[0]) for name, count in COUNTED.items()})


def drawn(coder: GenomeCoder) -> IntArray:
    """Return the random members by which limits are judged, canonical genomes (n <= DRAWS, length)."""
    return coder.draw(np.random.default_rng(_SEED), DRAWS)


def single_changes(coder: GenomeCoder, genome: IntArray) -> IntArray:
    """Return `genome`, int64 (length,), with each gene at each of its other values: (n, length)."""
    places = np.repeat(np.arange(coder.length), coder.upper)
    values = np.concatenate([np.arange(most) for most in coder.upper])
    rows = np.repeat(genome[None], len(places), axis=0)
    rows[np.arange(len(places)), places] = values + (values >= genome[places])
    return rows


def described(coder: GenomeCoder) -> str:
    """Return the space and the images of `coder` for a message."""
    return f"{coder.space.name} for {'x'.join(map(str, coder.image_shape))} images"
