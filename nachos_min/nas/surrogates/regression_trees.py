"""A bag of regression trees on random gene subsets, grown level by level, all trees at once.

A regression tree splits the points by "gene g <= t" again and again and predicts the mean of the training values in
a leaf. Each tree of a bag sees its own bootstrap sample and half of the genes; their mean varies less than each.
A gene has few distinct values, so it becomes a small integer code, and a split is "code <= cut". The sums for all
nodes of a level, all genes and all codes are one histogram (`np.bincount`). Its running sums along the codes are
the left sides of all splits. Left out: pruning, unordered categories, new genes at every node (random forests).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nachos_min.nas.surrogates.surrogate import Floats, Surrogate

Ints = NDArray[np.int64]

MAX_CUTS = 31  # genes have 2 to 9 values; only real-valued columns are coarsened to this many quantiles
BEYOND = np.iinfo(np.int64).max  # beyond every code


class Level(NamedTuple):
    """The nodes of one depth of all trees, in the order of their numbers; arrays (nodes,)."""

    gene: Ints  # 0 in a leaf
    cut: Ints  # go right when code > cut; BEYOND in a leaf
    left: Ints  # number of the left child, the right one is next; a leaf's own number
    mean: Floats  # of the training values


@dataclass(frozen=True)
class TreesModel:
    """A fitted bag. Nodes of all trees are numbered together, level by level; tree t starts at node t."""

    thresholds: Floats  # (genes, cuts) ascending, padded with inf
    nodes: Level
    trees: int
    depth: int

    def predict(self, X: Floats) -> Floats:
        """Return the trees' mean prediction, (m,), at X (m, genes)."""
        codes = _encode(X, self.thresholds)
        row = np.arange(len(X))[:, None]
        node = np.tile(np.arange(self.trees), (len(X), 1))
        for _ in range(self.depth):  # a leaf leads to itself, so all walks take the same number of steps
            right = codes[row, self.nodes.gene[node]] > self.nodes.cut[node]
            node = self.nodes.left[node] + right
        return np.asarray(self.nodes.mean[node].mean(axis=1))


@dataclass(frozen=True)
class RegressionTrees(Surrogate):
    """The recipe: trees in the bag, fewest samples of the bootstrap in a leaf, share of the genes a tree sees.

    Source:
        L. Breiman, "Bagging predictors", 1996; T. K. Ho, "The random subspace method for constructing decision
        forests", 1998.
    """

    name: ClassVar[str] = "trees"
    trees: int = 40
    leaf: int = 2
    genes: float = 0.5

    def fit(self, X: Floats, y: Floats, rng: np.random.Generator) -> TreesModel:
        """Return the bag grown on these points; `rng` draws each tree's bootstrap sample and genes."""
        n, genes = X.shape
        seen = max(1, round(self.genes * genes))
        copies = rng.multinomial(n, np.full(n, 1 / n), size=self.trees)
        subsets = rng.permuted(np.tile(np.arange(genes), (self.trees, 1)), axis=1)[:, :seen]
        thresholds = _thresholds(X)
        levels = grow(_encode(X, thresholds), y, copies, subsets, self.leaf)
        nodes = Level(*(np.concatenate(column) for column in zip(*levels, strict=True)))
        return TreesModel(thresholds, nodes, self.trees, len(levels) - 1)


def grow(codes: Ints, y: Floats, copies: Ints, subsets: Ints, leaf: int) -> list[Level]:
    """Return the levels of all trees, from the roots down; each split lowers the squared error most.

    `codes` int64 (n, genes) are small integers >= 0 in the order of the gene's values; y is (n,). `copies` (trees,
    n) says how often a sample is in the tree's bootstrap sample, `subsets` (trees, seen) which genes a tree may
    split, and `leaf` the fewest samples, with copies, on either side of a split.

    Source:
        L. Breiman et al., "Classification and Regression Trees", 1984, chapter 8. The histogram: derived here.
    """
    values = int(codes.max()) + 1
    trees, seen = subsets.shape
    offset = y.mean()  # around zero, so that S^2 / n loses no digits when y is nearly constant
    centred = y - offset
    smallest_gain = 1e-12 * float(centred @ centred)  # below this it is rounding, not information
    tree, sample = np.nonzero(copies)  # one pair per (tree, sample in its bag)
    copy = copies[tree, sample].astype(np.float64)
    node = tree
    levels: list[Level] = []
    first, size = 0, trees  # this level's nodes are first .. first + size - 1
    while True:
        code = codes[sample[:, None], subsets[tree]]  # (pairs, seen)
        cell = (((node - first)[:, None] * seen + np.arange(seen)) * values + code).ravel()

        shape = (size, seen, values)
        n_left, s_left = _left_sums(cell, copy, shape), _left_sums(cell, copy * centred[sample], shape)
        gain = _gain(n_left, s_left, leaf).reshape(size, seen * values)
        best = gain.argmax(axis=1)
        split = gain[np.arange(size), best] > smallest_gain

        owner = np.zeros(size, dtype=np.int64)  # which tree a node belongs to
        owner[node - first] = tree
        number = first + np.arange(size)
        children = first + size + 2 * (split.cumsum() - 1)
        levels.append(
            Level(
                gene=np.where(split, subsets[owner, best // values], 0),
                cut=np.where(split, best % values, BEYOND),
                left=np.where(split, children, number),
                mean=offset + s_left[:, 0, -1] / n_left[:, 0, -1],  # left of the last cut is everything
            )
        )
        if not split.any():
            return levels
        going_on = split[node - first]
        tree, sample, copy, node = tree[going_on], sample[going_on], copy[going_on], node[going_on] - first
        level = levels[-1]
        node = level.left[node] + (codes[sample, level.gene[node]] > level.cut[node])
        first, size = first + size, 2 * int(split.sum())


def _left_sums(cell: Ints, weight: Floats, shape: tuple[int, int, int]) -> Floats:
    """Return sums of weight over the pairs of a node whose code is at most the last index (nodes, seen, values)."""
    histogram = np.bincount(cell, np.repeat(weight, shape[1]), minlength=math.prod(shape))
    return np.asarray(histogram.reshape(shape).cumsum(axis=2))


def _gain(n_left: Floats, s_left: Floats, leaf: int) -> Floats:
    """Return how much each split lowers the sum of squared errors (nodes, seen, values), -inf if forbidden.

    S_L^2 / n_L + S_R^2 / n_R - S^2 / n    of n values with sum S, split into left and right
    """
    n, s = n_left[:, :1, -1:], s_left[:, :1, -1:]
    n_right, s_right = n - n_left, s - s_left
    forbidden = (n_left < leaf) | (n_right < leaf)
    gain = s_left**2 / np.maximum(n_left, 1) + s_right**2 / np.maximum(n_right, 1) - s**2 / n
    gain[forbidden] = -np.inf
    return np.asarray(gain)


def _thresholds(X: Floats) -> Floats:
    """Return (genes, cuts): the midpoints between a gene's neighbouring values, padded with inf."""
    cuts = []
    for column in X.T:
        values = np.unique(column)
        middles = (values[1:] + values[:-1]) / 2
        if len(middles) > MAX_CUTS:
            middles = middles[np.linspace(0, len(middles) - 1, MAX_CUTS).round().astype(int)]
        cuts.append(middles)
    padded = np.full((len(cuts), max(map(len, cuts))), np.inf)
    for row, middles in zip(padded, cuts, strict=True):
        row[: len(middles)] = middles
    return padded


def _encode(X: Floats, thresholds: Floats) -> Ints:
    """Return int64 (n, genes): how many of its gene's thresholds a value exceeds."""
    return np.asarray((X[:, :, None] > thresholds).sum(axis=2))
