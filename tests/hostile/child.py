"""A process that runs cases one after another, with bounded memory, and judges each.

It reads lines of JSON, [seed, class, number], from standard input, and answers each with a line of JSON on the
descriptor that standard output was. A command runs in this process, so that a case takes milliseconds.
"""

import contextlib
import faulthandler
import gc
import json
import os
import re
import resource
import shutil
import stat
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

# Of a case that did not come to its end.
NOTHING = {"line": [], "status": None, "seconds": 0.0, "processor": 0.0, "peak": 0, "now": 0, "said": ""}
MEMORY = 2 << 30  # bytes above what the process has after its imports: more is refused by the system
MOST_BYTES, MOST_SECONDS, MOST_LETTERS = 1 << 30, 5.0, 500
# What the system's refusal of memory looks like, whoever caught it.
REFUSED_MEMORY = re.compile("no more memory|Unable to allocate|MemoryError|Cannot allocate|bad_alloc|malloc failed")


def serve(folder: Path) -> None:
    """Answer cases until standard input ends; each has its own folder below `folder`."""
    answers = os.fdopen(os.dup(1), "w")
    faults = open(folder / "faults.txt", "w")  # noqa: SIM115  (open until the process ends)
    faulthandler.enable(faults)
    warm(folder)
    gc.collect()
    gc.freeze()  # what is imported is not looked through again after each case
    with open("/proc/self/statm") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(judged(*json.loads(line), folder)), file=answers, flush=True)


def warm(folder: Path) -> None:
    """Import everything that commands import, and load their kernels, so that no case pays for it."""
    from hostile.valid import PAPER, SEARCH, TABLE, put

    place = Path(tempfile.mkdtemp(dir=folder))
    put(place, "own.npz", "small.toml", "table.h5")
    (place / "net.json").write_text('{"space": "tiny", "genome": [0], "input": [1, 8, 8], "classes": 10}')
    (place / "net.onnx").write_bytes(b"")
    lines = [SEARCH, [*PAPER[:-1], "paper"], [*TABLE[:-1], "tabled"]]
    lines += [["data", "own.npz"], ["show", "run"], ["macs", "run#0"], ["predict", "run#0", "own.npz"]]
    lines += [["report", "run"], ["compare", "run", "run"], ["macs", "net.json"], ["macs", "net.onnx"]]
    lines += [["export", "run#0", "--npz", "x.npz", "--onnx", "x.onnx"], ["macs", "x.onnx", "--explain", "thop"]]
    for line in lines:
        run(line, place)
    shutil.rmtree(place)


def run(line: list[str], folder: Path) -> tuple[int | None, str, str, str]:
    """Run a command in `folder`; return its status, both streams, whoever wrote there, and a traceback."""
    from nachos_min.cli import main

    status, trouble = None, ""
    kept = [os.dup(1), os.dup(2)]
    streams = [tempfile.TemporaryFile(dir=folder.parent) for _ in kept]  # noqa: SIM115  (closed below)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
    own = [open(number, "w", errors="backslashreplace", closefd=False) for number in (1, 2)]  # noqa: SIM115  (end below)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(own[0]), contextlib.redirect_stderr(own[1]):
            status = main(line)
    except BaseException:  # whatever leaves `main` would be a traceback; also SystemExit
        trouble = traceback.format_exc()
    for number, (stream, before) in enumerate(zip(own, kept, strict=True), start=1):
        with contextlib.suppress(OSError):
            stream.flush()
        os.dup2(before, number)
        os.close(before)
    said = []
    for stream in streams:
        stream.seek(0)
        said.append(stream.read(1 << 26).decode(errors="surrogateescape"))
        stream.close()
    return status, said[0], said[1], trouble


def judged(seed: int, kind: str, number: int, parent: Path) -> dict[str, Any]:
    """Run one case; return its figures, and in "wrong" what must not have happened."""
    from hostile import cases
    from hostile.valid import ROOT

    place = Path(tempfile.mkdtemp(dir=parent))
    folder, beside, temporary = place / "case", place / "beside", place / "tmp"
    for each in (folder, beside, temporary):
        each.mkdir()
    (beside / "kept.h5").write_bytes(b"kept")
    tempfile.tempdir = str(temporary)
    try:
        case = cases.write(seed, kind, number, folder)
    except Exception:
        shutil.rmtree(place)
        return NOTHING | {"wrong": {"traceback": f"of the generator: {traceback.format_exc()}"}}
    before = state(folder), state(beside), state(ROOT)
    gc.collect()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    began, spent = time.monotonic(), processor_time()
    status, out, err, trouble = run(case.line, folder)
    taken, spent = time.monotonic() - began, processor_time() - spent
    after = state(folder), state(beside), state(ROOT)
    wrong = dict(faults(case, status, out, err))
    if trouble:
        wrong["traceback"] = trouble
    if spent > MOST_SECONDS:
        wrong["over 5 s"] = f"{spent:.1f} s of the processor"
    if (most := peak_bytes()) > MOST_BYTES or REFUSED_MEMORY.search(err + trouble):
        wrong["over 1 GB"] = f"{most / 1e9:.1f} GB; {err[-200:]}"
    changed = [
        path
        for old, new, ours in zip(before, after, (case.changes, (), ()), strict=True)
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path) and path.split("/")[0] not in ours
    ]
    changed += [f"left in the temporary folder: {name}" for name in os.listdir(temporary)]
    if changed:
        wrong["escape"] = "; ".join(changed)[:500]
    wide(place)
    shutil.rmtree(place)
    return {
        "line": case.line, "status": status, "seconds": round(taken, 3), "processor": round(spent, 3),
        "peak": most, "now": max(now_bytes(), most // 2), "said": (err or out)[:300], "wrong": wrong,
    }  # fmt: skip


def faults(case: Any, status: int | None, out: str, err: str) -> Any:
    """Yield what is wrong with the way in which a command ended, and with what it printed."""
    from hostile.cases import REFUSED, SAME
    from hostile.valid import plain

    accepted = status in (0, 3, 4)
    if status is not None and status not in (0, 2, 3, 4):
        yield "wrong acceptance", f"it ended with status {status}: {err[:200]}"
    if accepted and case.expected == REFUSED:
        yield "wrong acceptance", f"status {status}, but it must be refused: {case.line}"
    if accepted and case.expected == SAME and plain(out) != plain(case.truth):
        yield "wrong acceptance", f"other result than undamaged: {difference(plain(case.truth), plain(out))}"
    lines = err.splitlines()
    if status == 2 and (len(err.split("\n")) != 2 or not err.startswith("error: ")):
        yield "escape", f"a refusal must be one line, got {err[:300]!r}"
    for text in (out, err):
        if steering := [letter for letter in text if letter != "\n" and not letter.isprintable()]:
            yield "escape", f"steering characters {steering[:5]} in {text[:200]!r}"
    if any(len(line) > MOST_LETTERS + len("error: ") for line in lines):
        yield "escape", f"a line of {max(map(len, lines))} letters: {err[:200]!r}"


def difference(there: Any, got: Any, place: str = "") -> str:
    """Return the first place where two JSON values differ, with both."""
    if isinstance(there, dict) and isinstance(got, dict) and there.keys() == got.keys():
        pairs: Any = [(key, there[key], got[key]) for key in there]
    elif isinstance(there, list) and isinstance(got, list) and len(there) == len(got):
        pairs = [(place, *pair) for place, pair in enumerate(zip(there, got, strict=True))]
    else:
        return f"{place}: {str(there)[:100]} is {str(got)[:100]}"
    return next((difference(old, new, f"{place}.{key}") for key, old, new in pairs if old != new), "")


def state(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return what is in a folder, by path: links are not followed, nothing is opened but links."""
    found: dict[str, tuple[Any, ...]] = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode)
            found[os.path.relpath(path, folder)] = (
                stat.S_IFMT(status.st_mode),
                os.readlink(path) if stat.S_ISLNK(status.st_mode) else status.st_ino,
                (status.st_size, status.st_mtime_ns) if regular else None,
            )
    return found


def wide(folder: Path) -> None:
    """Let everything in a folder be removed."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(path := os.path.join(root, name)):
                os.chmod(path, 0o755)


def processor_time() -> float:
    """Return the seconds that this process and those that it waited for have used."""
    return sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak_bytes() -> int:
    """Return the most memory that this process had since its peak was reset, or one that it ever waited for."""
    return max(_status("VmHWM"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def now_bytes() -> int:
    """Return the memory that this process has."""
    return _status("VmRSS")


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith(field)), 0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
