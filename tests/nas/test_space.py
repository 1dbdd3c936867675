"""Spaces: those that ship, and every complaint about a user's own file."""

from pathlib import Path

import pytest

from nachos_min.nas.space import SpaceError, load_space, shipped_spaces

SPACES = Path(__file__).parent.parent.parent / "nachos_min" / "nas" / "spaces"
TINY = (SPACES / "tiny.toml").read_text()
ALL_STAGES_BUT_ONE = TINY[TINY.index("[[stages]]") : TINY.rindex("[[stages]]")]
FLEX8 = (SPACES / "flex8.toml").read_text()


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_is_a_toml_file_like_any_other(name: str, tmp_path: Path) -> None:
    copy = tmp_path / f"{name}.toml"
    copy.write_text((SPACES / f"{name}.toml").read_text())
    assert load_space(str(copy)) == load_space(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("huge", r"one of flex16, .*, or a path to a \.toml file, got 'huge'"), ("none.toml", r"none\.toml.*No such")],
)
def test_unknown_spaces_are_named(name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        load_space(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("depths = [1, 2, 3]", "depths = [3, 1]", r"depths must be in ascending order without repeats"),
        ("depths = [1, 2, 3]", "depths = []", "depths must be a list of length >= 1"),
        ("depths = [1, 2, 3]", "depths = [0, 1]", r"depths must be a list of integers from 1 to 2\^20"),
        ("depths = [1, 2, 3]", "deths = [1, 2, 3]", "a field must be one of .*, got .*deths"),
        ("depths = [1, 2, 3]", "depths = [1, 86]", r"depths must be such that \d+ stages have at most 256 layers"),
        ("kernels = [3, 5]", "kernels = [3, 4]", r"kernels must be odd, got '\[3, 4\]'"),
        ("divisor = 4", "divisor = 0", "divisor must be an integer"),
        ("divisor = 4", "divisor = " + "9" * 5000, "is not TOML: Exceeds the limit"),
        ("divisor = 4", "divisor = " + "[" * 100_000, "is not TOML: maximum recursion depth"),
        ("stride = 1", "stride = 0", "stride must be an integer"),
        ("kernel = 3", "kernel = 2", "stem: kernel must be odd"),
        ('activation = "hswish"', 'activation = "gelu"', "activation must be one of relu, hswish"),
        ("squeeze_excite = false", "squeeze_excite = 0", "squeeze_excite must be true or false"),
        ("[final]", "[[final]]", "final must be a table"),
        ("[stem]", "trunk = 3\n[stem]", "trunk must be a list"),
        ("[stem]", "[stem", "is not TOML"),
        ("exit_widths = [8]", "", "early exits must be described by exit_widths or by exit_heads"),
        ("divisor = 4 ", "exit_widths = [8]\ndivisor = 4 ", "early exits must be described by"),
        ("exit_widths = [8]", "exit_heads = []", "exit_heads must be a list of length >= 1"),
        ("[4, 8]", "[8, 4]", "stem: channels must be in ascending order without repeats"),
        ("[6, 8, 12, 16]", "[]", "stages 1: channels must be a list of length >= 1"),
        ("[6, 8, 12, 16]", "'4'", "stages 1: channels must be an integer"),
        ("stride = 2\n", "stride = [1, 2]\n", "stages 1: stride must be an integer"),
        ("cells = 2", "cells = 0", "exit_heads 1: cells must be an integer"),
        (ALL_STAGES_BUT_ONE, "", "stages must be a list of length >= 2, got"),
        ("widths = []", "widths = [0]", "exit_heads 1: widths must be a list of integers"),
        ("widths = []", "width = []", "exit_heads 1: a field must be one of cells, widths"),
    ],
)
def test_every_broken_rule_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = TINY if old in TINY else FLEX8
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpaceError, match=message):
        load_space(str(path))
