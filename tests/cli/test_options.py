"""Values as typed: what every kind of option accepts, exactly, and the line it answers to anything else."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min import options as of
from nachos_min.errors import InputError
from nachos_min.options import Kind, read_count, show_count

COUNTS = {"60000": 60_000, "60k": 60_000, "60K": 60_000, "2.7M": 2_700_000, "2.7m": 2_700_000, "1g": 10**9}
COUNTS |= {"2.777777M": 2_777_777, "0.001k": 1}
COUNTS |= {"9007199254740993": 2**53 + 1, "9007199254740.993k": 2**53 + 1}  # a float would lose the 1
NOT_COUNTS = "banana -5 0 0k 2.7777777M 1.5 1e6 60_000 60,000 k .5M 5. 0x10 inf nan +5 ٦٠ None [1]"
NUMBERS = {"0": 0.0, ".5": 0.5, "9e-1": 0.9}
NOT_NUMBERS = ["-0.1", "nan", "inf", "", "1_0", "1e999", "0,9", "90%"]
SHAPE = "one to eight whole numbers from 1 to 2^40 with commas between them, such as 3,32,32"
# name -> kind, text and its value, the rule, refused texts
KINDS: dict[str, tuple[Kind, dict[str, Any], str, list[str]]] = {
    "count": (
        of.COUNT,
        COUNTS,
        "a whole number from 1 to 2^63 - 1 such as 60000, 60k or 2.7M",
        [*NOT_COUNTS.split(), "", "60 k", "1\n2", str(2**63), "9223372037G"],
    ),
    "whole from 0": (
        of.whole(0),
        {"0": 0, "00": 0, str(2**63 - 1): 2**63 - 1},
        "a whole number from 0 to 2^63 - 1",
        ["abc", "-1", "1.0", "1e3", "0x10", "1_0", "", " 1", "True ", str(2**63), "٦"],
    ),
    "whole from 1": (of.whole(1), {"8": 8}, "a whole number from 1 to 2^63 - 1", ["0", "-1"]),
    "share": (of.SHARE, NUMBERS | {"1": 1.0, "1.": 1.0}, "a number from 0 to 1", [*NOT_NUMBERS, "1.5"]),
    "margin": (of.MARGIN, NUMBERS, "a number >= 0 and below 1", [*NOT_NUMBERS, "1"]),
    "chance": (of.CHANCE, {"0.9": 0.9}, "a number above 0 and below 1", [*NOT_NUMBERS, "0", "1"]),
    "weight": (of.WEIGHT, NUMBERS | {"4": 4.0, "1e2": 100.0}, "a number >= 0", NOT_NUMBERS),
    "choice": (
        of.choice("exact", "grid-repair"),
        {"exact": "exact", "grid-repair": "grid-repair"},
        "one of exact, grid-repair",
        ["Exact", "grid", "", "exact "],
    ),
    "text": (
        of.text("name or file"),
        {text: text for text in ("digits", "123", "None", "a,b", "True", "-x")},
        "a name or file",
        ["", "  ", "a\0b", "\ud800"],
    ),
    "switch": (
        of.SWITCH,
        {"True": True, "False": False, "true": True, "FALSE": False},
        "given without a value, or as true or false",
        ["maybe", "1", "", "yes"],
    ),
    "sides": (
        of.SIDES,
        {"1,2": (1, 2), "(1,2)": (1, 2), "3, 32, 32": (3, 32, 32)},
        SHAPE,
        ["(1,2", "1,2)", "((1,2))", ")1,2(", "0,1", "1,,2", "1,1,1,1,1,1,1,1,1", "1099511627777"],
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_reads_its_values_and_names_its_rule(name: str) -> None:
    kind, accepted, rule, refused = KINDS[name]
    for text, value in accepted.items():
        found = kind.typed("--it", text)
        assert (found, type(found)) == (value, type(value))
        assert name == "switch" or kind.typed("--it", kind.show(value)) == value
    for text in refused:
        with pytest.raises(InputError, match="^" + re.escape(f"--it must be {rule}, got {text!r}") + "$"):
            kind.typed("--it", text)


def test_a_value_of_another_type_is_refused_and_never_compared() -> None:
    assert not of.choice("a", "b").holds(np.array(["a", "b"]))
    assert not of.choice("a", "b").holds({})
    assert of.text("address").rule == "an address"


@pytest.mark.parametrize("kind", [of.COUNT, of.WEIGHT, of.whole(1), of.SIDES, of.SWITCH, of.choice("a", "b")])
@pytest.mark.parametrize("ending", ["", ".", "x", ".5x", "e", ",", "G"])
def test_a_long_value_is_read_at_once_and_shortened(kind: Kind, ending: str) -> None:
    with pytest.raises(InputError) as refusal:
        kind.typed("--it", "9" * 1_000_000 + ending)
    assert "9" * 40 in str(refusal.value)
    assert len(str(refusal.value)) < 200


@given(st.integers(0, 10**14))
def test_a_shown_count_reads_back(count: int) -> None:
    assert read_count(show_count(count)) == count
