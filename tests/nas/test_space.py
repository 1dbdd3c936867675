"""Spaces: those that ship, and every complaint about a user's own file."""

from pathlib import Path

import pytest

from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import SpaceError, load_space, make_divisible, shipped_spaces

SPACES = Path(__file__).parent.parent.parent / "nachos_min" / "nas" / "spaces"
TINY = (SPACES / "tiny.toml").read_text()
FLEX8 = (SPACES / "flex8.toml").read_text()


def test_seven_spaces_ship() -> None:
    assert shipped_spaces() == ("flex16", "flex32", "flex8", "micro", "ofa-mbv3", "small32", "tiny")


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_is_a_toml_file_like_any_other(name: str, tmp_path: Path) -> None:
    copy = tmp_path / f"{name}.toml"
    copy.write_text((SPACES / f"{name}.toml").read_text())
    assert load_space(str(copy)) == load_space(name)


def test_genes_of_the_paper_space() -> None:
    space = load_space("ofa-mbv3")
    assert GenomeCoder(space, (32, 32, 3), 10).length == 49
    assert space.depths == (2, 3, 4)
    assert space.slots == 4


def test_the_last_map_of_tiny_is_2x2_on_8x8_images() -> None:
    coder = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
    assert coder.largest().exit_maps()[-1][:2] == (2, 2)


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [(72, 8, 72), (18, 8, 24), (3, 8, 8), (10, 8, 16), (12, 4, 12), (4, 8, 8)],
)
def test_make_divisible(value: int, divisor: int, expected: int) -> None:
    assert make_divisible(value, divisor) == expected


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        SpaceError,
        match=r"one of flex16, flex32, flex8, micro, .*, tiny, or a path to a \.toml file, got 'huge'",
    ):
        load_space("huge")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SpaceError, match=r"nowhere\.toml.*No such file"):
        load_space("nowhere.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("depths = [1, 2, 3]", "depths = [3, 1]", r"depths must be in ascending order without repeats"),
        ("depths = [1, 2, 3]", "depths = []", r"depths must be a list of length >= 1, got '\[\]'"),
        ("depths = [1, 2, 3]", "depths = 3", r"depths must be a list, got '3'"),
        (
            "depths = [1, 2, 3]",
            "depths = [0, 1]",
            r"depths must be a list of integers from 1 to 2\^20, got .*0, 1",
        ),
        ("depths = [1, 2, 3]", "deths = [1, 2, 3]", r"a field must be one of .*, got .*deths"),
        ("kernels = [3, 5]", "kernels = [3, 4]", r"kernels must be odd, got '\[3, 4\]'"),
        ("divisor = 4", "divisor = true", r"divisor must be an integer from 1 to 2\^20, got 'True'"),
        ("divisor = 4", "divisor = 0", r"divisor must be an integer from 1 to 2\^20, got '0'"),
        ("stride = 1", "stride = 0", r"stride must be an integer from 1 to 2\^20, got '0'"),
        ("kernel = 3", "kernel = 2", r"stem: kernel must be odd, got '2'"),
        (
            'activation = "hswish"',
            'activation = "gelu"',
            r"activation must be one of relu, hswish, got .*gelu",
        ),
        ("squeeze_excite = false", "squeeze_excite = 0", r"squeeze_excite must be true or false, got '0'"),
        ("[stem]", "[stern]", r"a field must be one of .*, got .*stern"),
        ("[final]", "[[final]]", r"final must be a table"),
        ("[stem]", "trunk = 3\n[stem]", r"trunk must be a list, got '3'"),
        ("[stem]", "[stem", r"is not TOML"),
        ("divisor = 4", "divisor = " + "9" * 5000, r"is not TOML: Exceeds the limit"),
        ("divisor = 4", "divisor = " + "[" * 100_000, r"is not TOML: maximum recursion depth"),
        (
            "depths = [1, 2, 3]",
            "depths = [1, 86]",
            r"depths must be such that \d+ stages have at most 256 layers in all, got '\[1, 86\]'",
        ),
        ("exit_widths = [8]", "", r"early exits must be described by exit_widths or by exit_heads, got '\[\]'"),
        ("exit_widths = [8]", "exit_heads = []", r"exit_heads must be a list of length >= 1, got '\[\]'"),
        ("[4, 8]", "[8, 4]", r"stem: channels must be in ascending order without repeats, got '\[8, 4\]'"),
        ("[6, 8, 12, 16]", "[]", r"stages 1: channels must be a list of length >= 1, got '\[\]'"),
        (
            "[6, 8, 12, 16]",
            "[4, 0]",
            r"stages 1: channels must be a list of integers from 1 to 2\^20, got .*4, 0",
        ),
        ("[6, 8, 12, 16]", "'4'", r"stages 1: channels must be an integer from 1 to 2\^20, got .*'4'"),
        ("stride = 1 ", "stride = [2, 2] ", r"stem: stride must be in ascending order without repeats"),
        (
            "stride = 2\n",
            "stride = [1, 2]\n",
            r"stages 1: stride must be an integer from 1 to 2\^20, got .*1, 2",
        ),
        ("cells = 2", "cells = 0", r"exit_heads 1: cells must be an integer from 1 to 2\^20, got '0'"),
        (
            "widths = []",
            "widths = [0]",
            r"exit_heads 1: widths must be a list of integers from 1 to",
        ),
        ("widths = []", "width = []", r"exit_heads 1: a field must be one of cells, widths, got .*width"),
        (
            "divisor = 4 ",
            "exit_widths = [8]\ndivisor = 4 ",
            r"must be described by exit_widths or by exit_heads, got .*\['exit_widths', 'exit_heads'\]",
        ),
    ],
)
def test_every_broken_rule_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = TINY if old in TINY else FLEX8
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpaceError, match=message):
        load_space(str(path))


def test_one_stage_is_too_few_for_an_early_exit(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    head, *stages = TINY.split("[[stages]]")
    path.write_text(head + "[[stages]]" + stages[-1])
    with pytest.raises(SpaceError, match=r"stages must be a list of length >= 2, got"):
        load_space(str(path))
