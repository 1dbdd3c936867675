"""Runs cases in reused children, each in a process group of its own, with a watchdog: a dead child is a crash."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

from hostile.child import NOTHING
from hostile.valid import ROOT

# A child is watched by its processor time, since other work may slow it down; a case that waits is hanging.
MOST_SECONDS, MOST_WAITING = 6.0, 30.0
MOST_CASES, MOST_BYTES = 1000, 600 << 20  # then the child is replaced


class Child:
    """A process that runs cases."""

    def __init__(self, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        environment = os.environ | {"HOSTILE_VALID": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])}
        command = [sys.executable, str(Path(__file__).with_name("child.py")), str(self.folder)]
        with open(self.folder / "stderr.txt", "w") as errors:
            self.process = subprocess.Popen(
                command, stdin=PIPE, stdout=PIPE, stderr=errors, text=True, env=environment, start_new_session=True
            )
        self.cases = 0
        assert self.answer(600.0, 600.0) == "ready", (self.folder / "stderr.txt").read_text()

    def ask(self, seed: int, kind: str, number: int) -> dict[str, Any]:
        """Return the judgement of one case."""
        assert self.process.stdin
        self.cases += 1
        print(json.dumps([seed, kind, number]), file=self.process.stdin, flush=True)
        found = self.answer(MOST_SECONDS, MOST_WAITING)
        if isinstance(found, dict):
            return found
        wrong = {"over 5 s": found} if found else {"crash": self.last_words()}
        return NOTHING | {"wrong": wrong}

    def answer(self, processor: float, waiting: float) -> Any:
        """Return the next answer; a text if the child took too long, "" if it died. It is stopped then."""
        assert self.process.stdout
        began, before = time.monotonic(), self.processor_time()
        while not select.select([self.process.stdout], [], [], 0.2)[0]:
            spent, waited = self.processor_time() - before, time.monotonic() - began
            if spent > processor or waited > waiting:
                self.stop()
                return f"stopped after {spent:.1f} s of the processor, {waited:.0f} s in all"
        line = self.process.stdout.readline()
        if not line:
            self.stop()
        return json.loads(line) if line else ""

    def processor_time(self) -> float:
        """Return the seconds that the child has used."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_words(self) -> str:
        """Return how the child ended."""
        faults = [(self.folder / name).read_text()[-1500:] for name in ("faults.txt", "stderr.txt")]
        return f"status {self.process.returncode}: {' '.join(faults)}"

    def stop(self) -> None:
        """End the child and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()


def judge(seed: int, wanted: Iterable[tuple[str, int]], parent: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield class, number and judgement of the cases `wanted`, run one after another in one child at a time."""
    child: Child | None = None
    try:
        for kind, number in wanted:
            child = child or Child(parent)
            found = child.ask(seed, kind, number)
            yield kind, number, found
            if child.process.poll() is not None or child.cases >= MOST_CASES or found["now"] > MOST_BYTES:
                child.stop()
                child = None
    finally:
        if child:
            child.stop()
