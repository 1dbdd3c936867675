"""How a candidate is trained, as frozen data: two recipes, chosen by name. `training.py` runs them.

deep     every exit learns from every sample from the first step on; the default
paper    the three phases of NACHOS
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from nachos_min.errors import InputError

AUGMENTATIONS = ("auto", "none", "shift", "shift-flip")
PHASES = ("backbone_epochs", "warmup_epochs", "support_epochs")
LEAST_SHIFTED = 12  # pixels of the shorter side: shifted by one, a digit of 8x8 loses what tells it apart
STEPS, FEWEST, MOST = 1_500, 4, 40  # gradient steps of a candidate, and the epochs they may take

LONG = 4  # a finalist trains LONG times a candidate's epochs; a network chosen by a rule up to LONG times


class RecipeError(InputError):
    """A recipe does not have the value that is given for it."""


@dataclass(frozen=True)
class DeepRecipe:
    """Deep supervision: one phase, one schedule, all weights."""

    epochs: int | None = None  # passes over the training set; None: for about 1,500 steps, from 4 to 40
    batch: int = 16  # samples per gradient step; a last batch of one sample is left out (batch norm needs two)
    rate: float = 0.06  # learning rate after the warm-up, from where it falls to 0 as a cosine
    warmup: float = 0.05  # share of the steps in which the rate rises to it
    momentum: float = 0.9  # of SGD with Nesterov's momentum
    weight_decay: float = 5e-4
    # One of AUGMENTATIONS; `auto`: `shift` for images of at least 12x12. Maps of height 1 may be tables, whose
    # columns have no order, so they are shifted on request alone.
    augment: str = "auto"
    # Weight of the final exit's cross-entropy, where early exits have 1: the blocks before it serve those, too.
    last: float = 2.0
    confidence: float = 0.5  # weight of the confidence's term
    distillation: float = 0.5  # weight of the distillation from the mean of all exits' logits to each exit
    temperature: float = 2.0
    beta: float = 0.0  # weight of the cost term
    gamma: float = 0.0  # weight of the peak term
    support_share: float = 0.1  # share of the training set that measures the peak term's target in an epoch

    def passes(self, samples: int) -> int:
        """Return how many epochs a training set of `samples` is trained for.

        >>> [DeepRecipe().passes(samples) for samples in (500, 1_200, 2_400, 16_000)]
        [40, 20, 10, 4]
        """
        if self.epochs is not None:
            return self.epochs
        return min(MOST, max(FEWEST, round(STEPS * self.batch / max(samples, 1))))

    def augmentation(self, height: int, width: int) -> str:
        """Return how images of `height` x `width` pixels are augmented: `none`, `shift` or `shift-flip`."""
        if self.augment != "auto":
            return self.augment
        return "shift" if min(height, width) >= LEAST_SHIFTED else "none"


@dataclass(frozen=True)
class PaperRecipe:
    """The paper's phases, loss and optimiser; rates chosen for `digits`. Other fields are as of `DeepRecipe`."""

    backbone_epochs: int = 10  # passes over the training set in each phase
    warmup_epochs: int = 5
    support_epochs: int = 5
    batch: int = 32
    backbone_rate: float = 0.1  # at the start of the cosine of phase 1
    exits_rate: float = 0.05  # at the start of that of phases 2 and 3 together
    momentum: float = 0.9
    weight_decay: float = 5e-5
    support_share: float = 0.1
    alpha: float = 1.0  # weight of the classification term
    beta: float = 1.0  # of the cost term
    gamma: float = 1.0  # of the peak term
    joint: bool = True  # whether the backbone is trained in phases 2 and 3, too; the paper freezes it
    augment: str = "none"  # one of AUGMENTATIONS but `auto`; `none` with a frozen backbone

    def passes(self, _samples: int) -> int:
        """Return the epochs of all phases together."""
        return self.backbone_epochs + self.warmup_epochs + self.support_epochs


Recipe = DeepRecipe | PaperRecipe
RECIPES: Mapping[str, type[DeepRecipe] | type[PaperRecipe]] = {"deep": DeepRecipe, "paper": PaperRecipe}


def steps_of(samples: int, batch: int) -> int:
    """Return the gradient steps of an epoch of `samples` >= 1; a last batch of one sample is left out.

    >>> steps_of(32, 16), steps_of(33, 16), steps_of(34, 16)
    (2, 2, 3)
    """
    return -(-(samples - 1) // batch)


def lengthened(recipe: Recipe, times: int, samples: int) -> Recipe:
    """Return `recipe` with `times` as many passes over a training set of `samples`."""
    if isinstance(recipe, DeepRecipe):
        return replace(recipe, epochs=times * recipe.passes(samples))
    return replace(recipe, **{phase: times * getattr(recipe, phase) for phase in PHASES})


def as_record(recipe: Recipe) -> dict[str, Any]:
    """Return `recipe` as plain values; `paper` and its augmentation `none` are not named, as in older runs."""
    if isinstance(recipe, DeepRecipe):
        return {"name": "deep"} | asdict(recipe)
    return {name: value for name, value in asdict(recipe).items() if (name, value) != ("augment", "none")}


def from_record(record: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `as_record` made `record` from; KeyError if a field is missing."""
    known = record if "name" in record else {"name": "paper", "augment": "none", **record}
    kind = RECIPES[known["name"]]
    return kind(**{entry.name: known[entry.name] for entry in fields(kind)})


def passing(recipe: Recipe, epochs: int) -> Recipe:
    """Return `recipe` with `epochs` >= 1 passes in all, which the paper's phases share 2:1:1 as nearly as can be.

    Its exits train from the second on: RecipeError if there is none.
    """
    if isinstance(recipe, DeepRecipe):
        return replace(recipe, epochs=epochs)
    if epochs < 2:
        raise RecipeError(f"epochs must be >= 2 with the recipe paper, whose exits train last, got {epochs}")
    warmup, support = (epochs + 2) // 4, (epochs + 1) // 4
    return replace(recipe, backbone_epochs=epochs - warmup - support, warmup_epochs=warmup, support_epochs=support)


def recipe_of(
    name: str,
    usual: Mapping[str, Any],
    *,
    epochs: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    augment: str = "auto",
    beta: float | None = None,
    gamma: float | None = None,
    backbone: str = "joint",
) -> Recipe:
    """Return the recipe `name` with the `usual` values of a data set, and those given, in place of its own.

    `epochs` are as of `passing`. `rate` is that of its first phase; the other keeps its proportion. `augment` is
    one of AUGMENTATIONS, `backbone` `joint` or `frozen`. RecipeError if the recipe does not have such a value.
    """
    given = {key: value for key, value in (("batch", batch), ("beta", beta), ("gamma", gamma)) if value is not None}
    made = RECIPES[name](**{**usual, **given})
    if epochs is not None:
        made = passing(made, epochs)
    if isinstance(made, DeepRecipe):
        if backbone != "joint":
            raise RecipeError(f"backbone must be joint with the recipe deep, which has one phase, got {backbone!r}")
        return replace(made, augment=augment, rate=rate or made.rate)
    if backbone == "frozen" and augment not in ("auto", "none"):
        raise RecipeError(
            f"augment must be none with a frozen backbone, whose maps are computed once, got {augment!r}"
        )
    if rate is not None:
        made = replace(made, backbone_rate=rate, exits_rate=rate * made.exits_rate / made.backbone_rate)
    return replace(made, augment="none" if augment == "auto" else augment, joint=backbone == "joint")
