"""`search` and `retrain` show their progress by themselves at a prompt and in a notebook, not in a script."""

import sys
import time
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any, final

from nachos_min.errors import cut, some
from nachos_min.nas import nachos, retraining
from nachos_min.nas.plan import Plan, duration
from nachos_min.nas.progress import Progress
from nachos_min.nas.result import SearchResult
from nachos_min.report.search_report import SearchProgress, activity_text, running_text, show_plan, time_left

PAUSE = 0.2  # seconds between two updates: each is a message to the browser


def watched(training: Callable[..., SearchResult]) -> Callable[..., SearchResult]:
    """Return `training` with its progress shown where somebody watches."""

    @wraps(training)
    def shown(*of: Any, **given: Any) -> SearchResult:
        if not {"on_progress", "on_plan"}.isdisjoint(given):
            return training(*of, **given)
        if in_notebook():
            with NotebookProgress() as display:
                return training(*of, **given, on_progress=display, on_plan=display.plan)
        if "ps1" in vars(sys):  # an interactive prompt
            with SearchProgress(quiet=False) as progress:
                return training(*of, **given, on_progress=progress, on_plan=show_plan)
        return training(*of, **given)

    return shown


search, retrain = watched(nachos.search), watched(retraining.retrain)


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


@final
class NotebookProgress:
    """A display below a notebook's cell, to call with every `Progress` of a search; a context manager.

    It needs no widgets. The plan and the last line stay when the search ends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from IPython.display import display

        self._clock, self._begun, self._shown_at = clock, clock(), 0.0
        self._plan, self._evaluated = "", 0
        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def __enter__(self) -> "NotebookProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        done = f"{some(self._evaluated, 'network')} in {duration(self._clock() - self._begun)}"
        stopped = f"Stopped after {done}; the same search continues." if kind is KeyboardInterrupt else ""
        self._show(f"Done: {done}." if kind is None else stopped)

    def plan(self, plan: Plan | retraining.Retraining) -> None:
        """Show what the search is about to do."""
        self._plan = "\n".join([*map(cut, plan.lines()), "", ""])

    def __call__(self, progress: Progress) -> None:
        """Show `progress`, unless another was shown a moment ago."""
        self._evaluated, best, now = progress.evaluated, progress.best, self._clock()
        if now - self._shown_at >= PAUSE:
            self._shown_at = now
            counts = f"{progress.evaluated}/{progress.evaluations} networks, {time_left(progress.seconds_left)}"
            counts += f", best {best.metric:.1%} at {best.average_macs:,.0f} MACs" if best else ""
            running = [running_text(progress)] if progress.running else []
            self._show("\n".join([activity_text(progress), *running, counts]), progress.share)

    def _show(self, text: str, share: float | None = None) -> None:
        """Replace what is shown: as HTML, and as text for a front end without."""
        bar = "" if share is None else f"<progress value='{share:.3f}' style='width: 100%'></progress>"
        html = f"<pre style='white-space: pre-wrap'>{escape(self._plan + text)}</pre>{bar}"
        self._handle.update({"text/html": html, "text/plain": self._plan + text}, raw=True)
