"""Five hundred malformed inputs, some of each class, end as they must; `bench/bench_hostile.py` tries thousands."""

import sys
from pathlib import Path

import pytest
from hostile import cases
from hostile.child import faults
from hostile.runner import judge

pytest.importorskip("bench.tabulation", reason="an installed copy has no bench")


@pytest.mark.skipif(sys.platform != "linux", reason="what a process uses is read from /proc")
def test_malformed_inputs(tmp_path: Path) -> None:
    wanted = [(kind, number) for kind, count in cases.numbers(500).items() for number in range(count)]
    wrong = [
        f"python bench/bench_hostile.py --only {kind} --case {number}: {found['wrong']}"
        for kind, number, found in judge(0, wanted, tmp_path)
        if found["wrong"]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("expected", "status", "out", "err", "wrong"),
    [
        (cases.REFUSED, 2, "", "error: x\n", []),
        (cases.EITHER, 0, "", "", []),
        (cases.SAME, 0, '{"front": 1, "reused": 2}', "", []),
        (cases.REFUSED, 0, "", "", ["wrong acceptance"]),
        (cases.SAME, 0, '{"front": 2, "reused": 2}', "", ["wrong acceptance"]),
        (cases.EITHER, 130, "", "error: x\n", ["wrong acceptance"]),
        (cases.EITHER, 2, "", "error: x\ny\n", ["escape"]),
        (cases.EITHER, 2, "", "", ["escape"]),
        (cases.EITHER, 0, "\x1b[0m", "", ["escape"]),
        (cases.EITHER, 2, "", f"error: {'x' * 501}\n", ["escape"]),
    ],
)
def test_what_must_not_happen_is_noticed(expected: str, status: int, out: str, err: str, wrong: list[str]) -> None:
    case = cases.Case([], expected, truth='{"front": 1, "reused": 3}')
    assert [what for what, _ in faults(case, status, out, err)] == wrong
