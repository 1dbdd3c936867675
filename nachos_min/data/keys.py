"""The names that arrays have in people's files, and which array of a data set each name means."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from nachos_min.data.dataset import DataError

PREFIXES = ("", "test_", "validation_")  # of the arrays of each split, in the order of the digest
NAMES = tuple(prefix + name for prefix in PREFIXES for name in ("images", "labels", "difficulty"))
PAIRS = (("images", "labels"), ("x", "y"), ("data", "target"))
_SPLITS = {"train": "", "test": "test_", "validation": "validation_", "val": "validation_"}
_MOST_LISTED = 12  # arrays in a message


def meaning(name: str) -> tuple[str, int] | None:
    """Return which of `NAMES` a name in a file means, and the number of its pair; None for another name.

    >>> meaning("X_train"), meaning("val_labels"), meaning("weights")
    (('images', 1), ('validation_labels', 0), None)
    """
    words = name.lower().split("_")
    split = next((word for word in words if word in _SPLITS), "train")
    rest = [word for word in words if word != split]
    for pair, nouns in enumerate(PAIRS):
        if len(rest) == 1 and len(words) <= 2 and rest[0] in nouns:
            return _SPLITS[split] + PAIRS[0][nouns.index(rest[0])], pair
    return None


def choose(
    source: str | Path,
    names: Iterable[str],
    describe: Callable[[str], str],
    groups: Collection[str] = (),
    *,
    labelled: bool = True,
) -> dict[str, str]:
    """Return which array of a data set is under which name in a file: those of `NAMES`, and "class_names".

    `names` are all in the file; those of `groups` are no arrays. `describe` gives shape and type for messages.
    Unless `labelled`, one split without labels is enough, or a single array of any name. DataError if images or
    labels are missing, or two names mean the same array and neither is its own.
    """
    names = list(names)
    arrays = [name for name in names if name not in groups]
    chosen = {name: name for name in (*NAMES, "class_names") if name in arrays}
    own = set(chosen)
    for name in arrays:
        if (meant := meaning(name)) is None or meant[0] in own:
            continue
        if meant[0] in chosen:
            raise DataError(f"{source}: one array must be the {meant[0]}, got {chosen[meant[0]]} and {name}")
        chosen[meant[0]] = name
    if not labelled:
        if len(arrays) == 1:
            return {"images": arrays[0]}
        enough = any(f"{prefix}images" in chosen for prefix in PREFIXES)
    else:
        enough = {"images", "labels"} <= chosen.keys()
    if not enough:
        listed = [f"{name} {describe(name)}" for name in names[:_MOST_LISTED]]
        listed += [f"{len(names) - _MOST_LISTED} more"] if len(names) > _MOST_LISTED else []
        known = ", ".join(" and ".join(pair) for pair in PAIRS)
        raise DataError(
            f"{source}: images and labels are needed under known names ({known}; also as x_train, test_images, "
            f"val_labels); it holds {', '.join(listed) or 'nothing'}"
        )
    return chosen
