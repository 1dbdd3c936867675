"""Disturb a search in every way that a machine has, run the same command again, compare with an undisturbed run.

    python bench/bench_kills.py            all cases, in about a quarter of an hour on two processors
    python bench/bench_kills.py --quick    one of each class, without compiling

A case is a small search that is killed (parent, one worker, the whole group), stopped for a while, or whose folder,
disk or kernel cache is taken away. Moments are drawn by --seed: a share of the time that the search takes, or an
event on the disk. What must hold: every process ends, standard error has at most one line, and the same command,
once the trouble is over, prints the same JSON and leaves the same bytes in every file of the run, and no others.

Linux only. Disks of a given size need a mount: the script runs in a mount namespace of its own (`unshare`), which
ends with it. Where that is refused those cases are left out.
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import children, command_of, machine, tell

ROOT = Path(__file__).parents[1]
APART = "NACHOS_MIN_APART"  # set in the environment inside the mount namespace
SEARCHES = {
    "deep": ["--evaluations", "5", "--finalists", "1", "--epochs", "1"],
    "paper": ["--recipe", "paper", "--space", "micro", "--evaluations", "8", "--epochs", "4"],
}
LONGEST = 300  # seconds that any run may take
SOON = 10  # seconds in which all processes of a run that ends are gone
CAP_DAC_OVERRIDE, CAPBSET_DROP = 1, 24  # of prctl(2)
KILL = signal.SIGKILL

Moment = float | tuple[str, str, int]  # a share of the time, or: in "run" or "cache", so many files of this form


class WrongError(Exception):
    """What must hold does not."""


@dataclass(frozen=True)
class Kind:
    """A search, and where it begins."""

    search: str
    workers: int
    cold: bool = False  # its kernels are not compiled yet


@dataclass
class Undisturbed:
    """What every case must end with."""

    status: int
    result: dict[str, Any]
    files: dict[str, str]  # path in the run -> SHA-256


@dataclass
class Place:
    """The folders of one case."""

    root: Path
    kind: Kind
    warm: Path  # a cache with all kernels

    @cached_property
    def run(self) -> Path:
        """The run, a folder in one that may become a disk of its own."""
        return self._made("disk") / "run"

    @cached_property
    def cache(self) -> Path:
        """The folder of Numba's cache."""
        return self._made("cache") if self.kind.cold else self.warm

    @cached_property
    def temporary(self) -> Path:
        """What the run is told to be the system's temporary folder."""
        return self._made("tmp")

    def _made(self, name: str) -> Path:
        made = self.root / name
        made.mkdir(parents=True)
        return made


@dataclass
class Running:
    """A search on its way."""

    place: Place
    expected: float  # seconds
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        place = self.place
        command = [sys.executable, "-m", "nachos_min", "search", *SEARCHES[place.kind.search], "--json", "--quiet"]
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
            "NUMBA_CACHE_DIR": str(place.cache),
            "TMPDIR": str(place.temporary),
        }
        self.process = subprocess.Popen(
            [*command, "--workers", str(place.kind.workers), "--out", "run"],
            cwd=place.run.parent,
            env=environment,
            start_new_session=True,
            preexec_fn=_as_others,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._begun = time.monotonic()

    def wait(self, moment: Moment) -> None:
        """Return at a moment, or when the search has ended."""
        while self.process.poll() is None and not self._reached(moment):
            time.sleep(0.002)

    def _reached(self, moment: Moment) -> bool:
        if isinstance(moment, float):
            return time.monotonic() - self._begun >= moment * self.expected
        where, form, count = moment
        folder = self.place.run if where == "run" else self.place.cache
        return len(list(islice(folder.glob(form), count))) == count

    def ended(self) -> tuple[int, str, str]:
        """Return status, output and errors, when every process has ended; WrongError if one stays."""
        try:
            said = self.process.communicate(timeout=LONGEST)
            begun = time.monotonic()
            while left := list(_members(self.process.pid)):
                if time.monotonic() - begun > SOON:
                    raise WrongError(f"{len(left)} processes stay")
                time.sleep(0.01)
        except subprocess.TimeoutExpired:
            raise WrongError(f"it does not end in {LONGEST} s") from None
        finally:
            for process in _members(self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(process, KILL)
        return self.process.returncode, *said


def _as_others() -> None:
    """Let modes of files count for root, too, and signals in the background. Runs in the new process."""
    ctypes.CDLL(None).prctl(CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _members(session: int) -> Iterator[int]:
    """Yield the living processes of a session."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                yield int(entry.parent.name)


def workers_of(process: int) -> list[int]:
    """Return the workers that a search has started; not what reads a file, nor what removes leftovers."""
    found = list[int]()
    for child in children(process):
        with suppress(OSError):
            found += [child] if "spawn_main" in command_of(str(child)) else []
    return found


# Troubles


class Trouble:
    """What happens to a search. Each method does nothing unless a trouble needs it."""

    ends: frozenset[int] = frozenset()  # statuses that are right beside that of an undisturbed search
    mount = False

    def before(self, place: Place) -> None:
        """Prepare the place of the search."""

    def during(self, running: Running) -> None:
        """Disturb the search."""

    def after(self, place: Place) -> None:
        """End what disturbs."""


@dataclass
class Signal(Trouble):
    """A signal to the parent, to the whole group, or to one worker."""

    number: int
    whom: str
    moment: Moment
    seconds: float | None = None  # after which it goes on

    def during(self, running: Running) -> None:
        """Send it."""
        running.wait(self.moment)
        process = running.process.pid
        with suppress(ProcessLookupError):
            if self.whom == "worker":
                while not (workers := workers_of(process)) and running.process.poll() is None:
                    time.sleep(0.002)
                os.kill(workers[-1] if workers else process, self.number)
            else:
                (os.killpg if self.whom == "group" else os.kill)(process, self.number)
            if self.seconds is not None:
                time.sleep(self.seconds)
                os.killpg(process, signal.SIGCONT)

    def __post_init__(self) -> None:
        dies = {-KILL} if self.number == KILL else {130, -self.number}  # the latter before the program has begun
        self.ends = frozenset({130} if self.whom == "worker" else dies)


@dataclass
class Folder(Trouble):
    """The folder of the run is moved, deleted or made read-only."""

    how: str
    moment: Moment
    ends = frozenset({2})

    def during(self, running: Running) -> None:
        """Take it away."""
        running.wait(self.moment)
        run = running.place.run
        if not run.exists():
            return
        if self.how == "deleted":
            while run.exists():  # while files are made in it
                shutil.rmtree(run, ignore_errors=True)
        elif self.how == "moved":
            run.rename(run.with_name("aside"))
        else:
            _set_modes(run, 0o555)

    def after(self, place: Place) -> None:
        """Bring it back."""
        aside = place.run.with_name("aside")
        if aside.exists():
            if place.run.exists():
                raise WrongError(f"moved away, made again: {sorted(os.listdir(place.run))}")
            aside.rename(place.run)
        elif self.how == "read-only":
            _set_modes(place.run, 0o755)


def _set_modes(run: Path, mode: int) -> None:
    for folder in (run, *[each for each in run.rglob("*") if each.is_dir()]):
        folder.chmod(mode)


@dataclass
class Disk(Trouble):
    """A disk of a given size, for the run or for the cache."""

    kilobytes: int
    of: str
    ends = frozenset({2})
    mount = True

    def before(self, place: Place) -> None:
        """Mount it."""
        self._mount(place, f"size={self.kilobytes}k,mode=755")

    def after(self, place: Place) -> None:
        """Let it have room."""
        self._mount(place, "remount,size=100m")

    def _mount(self, place: Place, options: str) -> None:
        folder = str(place.run.parent if self.of == "run" else place.cache)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)


@dataclass
class Damage(Trouble):
    """Every file of a cache with all kernels is damaged before the search."""

    how: str
    chance: random.Random

    def before(self, place: Place) -> None:
        """Damage them."""
        shutil.copytree(place.warm, place.cache, dirs_exist_ok=True)
        for file in sorted(each for each in place.cache.rglob("*") if each.is_file()):
            content = bytearray(file.read_bytes())
            if self.how == "flipped":
                content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
            else:
                del content[len(content) // 2 if self.how == "halved" else 0 :]
            file.write_bytes(content)


# Cases


@dataclass
class Case:
    """A search with a trouble, and how it went."""

    name: str  # of its class
    kind: Kind
    trouble: Trouble
    went_on: bool = False  # it ended as if there had been no trouble
    said: str = ""
    wrong: str = ""
    seconds: float = 0.0


DEEP, DEEP2, PAPER, PAPER2 = (Kind(search, workers) for search in SEARCHES for workers in (0, 2))
# What appears in the folder of a run, and how often.
EVENTS = {"lock": 1, "run.h5*": 1, "evaluations": 1, "examples.h5*": 1, "shared/*": 5, "shared/task": 1}
EVENTS |= {"order.h5*": 1, "evaluations/*": 6, "evaluations/*.h5": 5}


def moment_of(kind: Kind, chance: random.Random) -> Moment:
    """Return a random moment of a search."""
    if chance.random() < 0.5:
        return chance.uniform(0.05, 0.9)
    if kind.cold:
        return "cache", chance.choice(["*/*", "*/*", "*/*.tmp.*"]), chance.choice([1, 2, 5, 10, 20])
    events = EVENTS | {"backbones/*": 7} if kind.search == "paper" else EVENTS
    form, most = chance.choice([*events.items()])
    return "run", form, chance.randint(1, most)


def all_cases(chance: random.Random) -> Iterator[Case]:
    """Yield every case, 100 of them kills; moments are drawn by `chance`."""

    def kill(name: str, kind: Kind, number: int, whom: str) -> Case:
        return Case(name, kind, Signal(number, whom, moment_of(kind, chance)))

    for count, number in ((24, KILL), (12, signal.SIGTERM), (12, signal.SIGINT), (12, signal.SIGHUP)):
        for index in range(count):
            whom, kind = ("parent", "group")[index % 2], (DEEP, DEEP2, PAPER, PAPER2)[index // 2 % 4]
            yield kill(f"{signal.Signals(number).name} to the {whom}", kind, number, whom)
    for index in range(20):
        number = (KILL, KILL, signal.SIGTERM, KILL, signal.SIGHUP)[index % 5]
        yield kill("a signal to one worker", (DEEP2, PAPER2)[index % 2], number, "worker")
    for index in range(20):
        kind, number = Kind("deep", 2 * (index % 2), cold=True), (KILL, KILL, signal.SIGTERM, KILL)[index % 4]
        whom = ("group", "worker", "parent")[index // 2 % 3] if kind.workers else "parent"
        yield kill("a signal while kernels are compiled", kind, number, whom)
    for whom in ("parent", "worker", "group"):
        for kind in (DEEP2, PAPER2):
            trouble = Signal(signal.SIGSTOP, whom, moment_of(kind, chance), seconds=2.0)
            yield Case("SIGSTOP, then SIGCONT", kind, trouble)
    for how in ("moved", "deleted", "read-only"):
        for kind in (DEEP, DEEP2, PAPER, PAPER2):
            yield Case(f"folder {how}", kind, Folder(how, moment_of(kind, chance)))
    for index, kilobytes in enumerate((8, 64, 128, 320, 640, 1000, 1300, 1600, 1900, 2200)):
        yield Case("disk of the run full", (DEEP, PAPER2, DEEP2, PAPER)[index % 4], Disk(kilobytes, "run"))
    for kilobytes in (8, 1000):
        yield Case("disk of the kernel cache full", Kind("deep", 0, cold=True), Disk(kilobytes, "cache"))
    for how in ("halved", "empty", "flipped"):
        yield Case("kernel cache damaged", Kind("deep", 0, cold=True), Damage(how, chance))


# Running them


def files_of(run: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run, and "" of a folder."""
    found = {str(each.relative_to(run)): each for each in sorted(run.rglob("*"))}
    return {name: sha256(each.read_bytes()).hexdigest() if each.is_file() else "" for name, each in found.items()}


def undisturbed(place: Place) -> tuple[Undisturbed, float]:
    """Return what the search of a place ends with, and the seconds that it takes."""
    begun = time.monotonic()
    status, out, err = Running(place, 0.0).ended()
    assert not err, err
    return Undisturbed(status, result_of(out), files_of(place.run)), time.monotonic() - begun


def result_of(out: str) -> dict[str, Any]:
    """Return the JSON that a search printed, without how much of it was there before."""
    found: dict[str, Any] = json.loads(out)
    return found | {"reused": None}


def check_final(place: Place, ended: tuple[int, str, str], wanted: Undisturbed, *, files: bool, last: bool) -> None:
    """Raise a WrongError unless a search ended as the undisturbed one, with its files if `files`."""
    status, out, err = ended
    if status != wanted.status or err:
        raise WrongError(f"status {status}, {err.strip()!r}")
    if result_of(out) != wanted.result:
        raise WrongError("another result")
    found = files_of(place.run) if files else wanted.files
    if not last:  # the next run removes what a killed worker had begun to write
        found = {name: content for name, content in found.items() if not name.endswith(".tmp")}
    if different := [name for name in sorted({*found, *wanted.files}) if found.get(name) != wanted.files.get(name)]:
        raise WrongError(f"not the same files: {', '.join(different[:4])}")
    if left := os.listdir(place.temporary):
        raise WrongError(f"left in the temporary folder: {left}")


def run_case(case: Case, place: Place, wanted: Undisturbed, expected: float) -> None:
    """Run a case and note how it went."""
    begun = time.monotonic()
    try:
        case.trouble.before(place)
        running = Running(place, expected)
        case.trouble.during(running)
        status, out, err = running.ended()
        case.said = err.strip()
        killed = status == -KILL  # then the resource tracker of Python says in two lines what it removes
        if "Traceback" in err or (err.count("\n") > 1 and not killed):
            raise WrongError(f"it says {err!r}")
        if status == wanted.status:
            case.went_on = True
            check_final(place, (status, out, ""), wanted, files=not isinstance(case.trouble, Folder), last=False)
        elif status not in case.trouble.ends:
            raise WrongError(f"status {status}, {case.said!r}")
        case.trouble.after(place)
        check_final(place, Running(place, expected).ended(), wanted, files=True, last=True)
    except WrongError as error:
        case.wrong = f"{case.kind} {case.trouble}: {error}"
    except Exception as error:  # a defect of this script must not hide the other cases
        case.wrong = f"{case.kind} {case.trouble}: {type(error).__name__}: {error}"
    case.seconds = time.monotonic() - begun


def rows_of(cases: list[Case]) -> list[dict[str, Any]]:
    """Return the table, a row for each class."""
    rows = list[dict[str, Any]]()
    for name in dict.fromkeys(case.name for case in cases):
        mine = [case for case in cases if case.name == name]
        right = [case for case in mine if not case.wrong]
        rows.append(
            {
                "what happened": name,
                "cases": len(mine),
                "went on, same bytes": sum(case.went_on for case in right),
                "ended, then same bytes": sum(not case.went_on for case in right),
                "WRONG": len(mine) - len(right),
                "seconds": sum(case.seconds for case in mine) / len(mine),
            }
        )
    sums = {key: sum(row[key] for row in rows) for key in list(rows[0])[1:-1]}
    return [*rows, {"what happened": "all"} | sums | {"seconds": None}]


def apart() -> bool:
    """Go on in a mount namespace of this process's own, where that is possible; return whether it is one."""
    if APART in os.environ or (unshare := shutil.which("unshare")) is None:
        return APART in os.environ
    for how in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        namespace = [unshare, *how, "--propagation", "private"]
        test = [*namespace, "mount", "-t", "tmpfs", "none", "/dev/shm"]
        if subprocess.run(test, capture_output=True, check=False).returncode == 0:
            os.execve(unshare, [*namespace, sys.executable, *sys.argv], os.environ | {APART: "1"})
    return False


def main() -> int:
    """Run the cases; return 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one case of each class whose kernels are compiled")
    parser.add_argument("--only", default="", help="classes whose name holds this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at the same time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    can_mount = apart()
    if can_mount:  # semaphores that are left are seen there
        subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/shm"], check=True)
    cases = [case for case in all_cases(random.Random(asked.seed)) if asked.only in case.name]
    if asked.quick:
        cases = [*{case.name: case for case in cases if not case.kind.cold}.values()]
    if not can_mount:
        print("left out, no disk can be mounted here:", sum(case.trouble.mount for case in cases), file=sys.stderr)
        cases = [case for case in cases if not case.trouble.mount]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(asked.jobs) as pool:
        warm, wanted, seconds = Path(folder, "warm"), dict[str, Undisturbed](), dict[Kind, float]()
        for kind in (Kind("deep", 0, cold=True), PAPER, DEEP, DEEP2, PAPER2):
            place = Place(Path(folder, str(kind)), replace(kind, cold=False), warm)  # the first fills the cache
            found, seconds[kind] = undisturbed(place)
            assert wanted.setdefault(kind.search, found) == found, f"two undisturbed searches differ: {kind}"
        seconds[Kind("deep", 2, cold=True)] = seconds[Kind("deep", 0, cold=True)]

        def run(numbered: tuple[int, Case]) -> None:
            number, case = numbered
            place = Place(Path(folder, str(number)), case.kind, warm)
            run_case(case, place, wanted[case.kind.search], seconds[case.kind])
            if can_mount and case.trouble.mount:
                subprocess.run(
                    ["umount", str(place.run.parent), str(place.cache)], capture_output=True, check=False
                )
            print(
                f"{number + 1} of {len(cases)}: {case.name}: {case.wrong or case.said}", file=sys.stderr, flush=True
            )

        list(pool.map(run, enumerate(cases)))
    tell(machine(1), rows_of(cases), asked.json)
    for case in cases:
        if case.wrong:
            print(f"WRONG: {case.name}: {case.wrong}")
    print(f"semaphores left: {len(list(Path('/dev/shm').glob('sem.*')))}")
    return int(any(case.wrong for case in cases))


if __name__ == "__main__":
    sys.exit(main())
