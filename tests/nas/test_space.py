"""Spaces: those that ship, and every complaint about a user's own file."""

import os
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
        ("divisor = 4", "divisor = " + "[" * 10_000, "is not TOML: maximum recursion depth"),
        ("divisor = 4", "divisor = 0x" + "f" * 4000, r"divisor must be an integer from 1 to 2\^20, got int that"),
        ("depths = [1, 2, 3]", f"depths = [0x{'f' * 4000}]", r"depths must be a list of integers.* got list that"),
        (
            "kernels = [3, 5]",
            f"kernels = {[*range(1, 259, 2)]}",
            "kernels must be a list of length <= 128, got '129'",
        ),
        ("divisor = 4", "divisor = nan", "divisor must be an integer.* got 'nan'"),
        ("divisor = 4", "divisor = 1979-05-27", "divisor must be an integer.* got 'datetime.date"),
        ("divisor = 4", "divisor = 4\ndivisor = 4", "is not TOML: Cannot overwrite a value"),
        (
            "divisor = 4",
            ".".join("a" * 600) + " = 4",
            "must have at most 65,536 characters, 500 of them points, it has",
        ),
        ("divisor = 4", "#" * 65_536, "it must have at most 65,536 bytes, it has"),
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


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.toml", tmp_path / "endless.toml"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    for name, kind in (("pipe", "a pipe"), ("endless", "a device"), ("folder", "a folder")):
        with pytest.raises(SpaceError, match=f"{name}.toml': it is {kind}, not a file"):
            load_space(str(tmp_path / f"{name}.toml"))
    with pytest.raises(SpaceError, match="null"):
        load_space("a\0.toml")


def test_a_file_in_utf_8_may_be_of_any_system(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TINY.replace("\n", "\r\n").encode())
    found = load_space(str(path))
    assert found == load_space("tiny")
    assert found.text == TINY
    path.write_bytes(TINY.encode("utf-16"))
    with pytest.raises(SpaceError, match="is not TOML: 'utf-8' codec"):
        load_space(str(path))
