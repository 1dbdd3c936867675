"""Values as typed: what every kind of option accepts, exactly, and the line it answers to anything else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min import commands
from nachos_min.eenn.recipes import AUGMENTATIONS, RECIPES
from nachos_min.errors import InputError
from nachos_min.nas.configuration import BACKBONES, CHOICES
from nachos_min.options import (
    BARE,
    Choice,
    Count,
    Kind,
    Share,
    Switch,
    Text,
    Weight,
    WholeNumber,
    read_count,
    show_count,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("60000", 60_000),
        ("60k", 60_000),
        ("60K", 60_000),
        ("2.7M", 2_700_000),
        ("2.7m", 2_700_000),
        ("2.777777M", 2_777_777),
        ("1g", 1_000_000_000),
        ("0.001k", 1),
        ("9007199254740993", 2**53 + 1),  # a float would lose the 1
        ("9007199254740.993k", 2**53 + 1),
    ],
)
def test_counts_are_exact(text: str, count: int) -> None:
    assert Count().read("--max-macs", text) == count


@given(st.integers(0, 10**14))
def test_a_shown_count_reads_back(count: int) -> None:
    assert read_count(show_count(count)) == count


COUNT_RULE = "--max-macs must be a whole number >= 1 such as 60000, 60k or 2.7M, got "


NOT_COUNTS = """banana -5 0 0k 2.7777777M 1.5 1e6 60_000 60,000 k .5M 5. 0x10 inf nan +5 ٦٠ None [1]"""


@pytest.mark.parametrize("text", [*NOT_COUNTS.split(), "", "60 k", "9" * 5000])
def test_other_counts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="^" + re.escape(COUNT_RULE)) as refusal:
        Count().read("--max-macs", text)
    message = str(refusal.value)
    assert text[:40] in message
    assert "\n" not in message
    assert len(message) < 160


KINDS: list[tuple[Kind, list[tuple[str, object]], str, list[str]]] = [
    (
        WholeNumber(0),
        [("0", 0), ("00", 0), ("123456789012345678901234567890", 123456789012345678901234567890)],
        "a whole number >= 0",
        ["abc", "-1", "1.0", "1e3", "0x10", "1_0", "", " 1", "True "],
    ),
    (WholeNumber(1), [("8", 8)], "a whole number >= 1", ["0", "-1"]),
    (
        Share(),
        [("0", 0.0), ("1", 1.0), ("0.9", 0.9), (".5", 0.5), ("1.", 1.0), ("9e-1", 0.9)],
        "a number from 0 to 1",
        ["1.5", "-0.1", "90%", "nan", "inf", "", "1_0", "1e999", "0,9"],
    ),
    (
        Weight(),
        [("0", 0.0), ("4", 4.0), (".5", 0.5), ("1e2", 100.0)],
        "a number >= 0",
        ["-0.1", "nan", "inf", "", "1e999", "0,9"],
    ),
    (
        Choice(("exact", "grid-repair")),
        [("exact", "exact"), ("grid-repair", "grid-repair")],
        "exact or grid-repair",
        ["Exact", "grid", "", "exact "],
    ),
    (
        Text("name or file"),
        [("digits", "digits"), ("123", "123"), ("None", "None"), ("a,b", "a,b"), ("./True", "./True")],
        "a name or file",
        ["", "  ", "a\0b"],
    ),
    (
        Switch(),
        [("True", True), ("False", False), ("true", True), ("FALSE", False)],
        "given without a value, or as true or false",
        ["maybe", "1", "", "yes"],
    ),
]


@pytest.mark.parametrize(("kind", "accepted", "rule", "refused"), KINDS, ids=lambda value: type(value).__name__)
def test_a_kind_reads_its_values_and_names_its_rule(
    kind: Kind, accepted: list[tuple[str, object]], rule: str, refused: list[str]
) -> None:
    for text, value in accepted:
        assert kind.read("--it", text) == value
        assert type(kind.read("--it", text)) is type(value)
    for text in refused:
        with pytest.raises(InputError, match="^" + re.escape(f"--it must be {rule}, got {text!r}") + "$"):
            kind.read("--it", text)


@pytest.mark.parametrize("kind", [kind for kind, *_ in KINDS if not isinstance(kind, Switch)], ids=repr)
@pytest.mark.parametrize("bare", BARE)
def test_an_option_without_a_value_says_so(kind: Kind, bare: str) -> None:
    with pytest.raises(InputError, match=r"^--it must be .*, got no value$"):
        kind.read("--it", bare)


def test_a_line_break_in_a_value_stays_on_the_line() -> None:
    with pytest.raises(InputError, match=re.escape(r"got '1\n2'")):
        Count().read("--max-macs", "1\n2")


def test_the_choices_of_the_command_are_those_of_the_configuration() -> None:
    kinds = commands.option_kinds(commands.search)
    offered = {name: kind.names for name, kind in kinds.items() if isinstance(kind, Choice)}
    assert offered == CHOICES | {"backbone": BACKBONES, "recipe": tuple(RECIPES), "augment": AUGMENTATIONS}
