"""What a person sees of a study while it runs, and at its end."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from golu_core.training.messages.text_sinks import console as plain_console
from golu_core.training.runs.results import RESULT_FILE, read_result

from .local import Job, State

_SECONDS_BETWEEN_REDRAWS = 1.0


class StudyView:
    """One view over all runs: redrawn in place on a terminal, one line per run elsewhere.

    Args:
        jobs: The jobs of the study.
        parallel: how many run at a time.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int) -> None:
        self._jobs = jobs
        self._parallel = parallel
        self._console = plain_console(file=sys.stdout, soft_wrap=True)
        self._live: Live | None = None
        self._stack = ExitStack()
        self._drawn = 0.0
        self._earlier = self._seconds_of_finished()

    def __enter__(self) -> StudyView:
        if self._console.is_terminal:
            self._live = self._stack.enter_context(Live(self._picture(), console=self._console, auto_refresh=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
        self._stack.close()

    def started(self, job: Job) -> None:
        self._say(job, "started" if not job.run.folder.exists() else "goes on", "")

    def ended(self, job: Job) -> None:
        outcome = job.outcome() if job.state is State.FINISHED else job.reason
        took = "" if job.seconds is None else f"{duration(job.seconds)}  "
        self._say(job, job.state.value, took + outcome)

    def look(self) -> None:
        if self._live is not None and time.monotonic() - self._drawn > _SECONDS_BETWEEN_REDRAWS:
            self._drawn = time.monotonic()
            self._live.update(self._picture(), refresh=True)

    def _say(self, job: Job, what: str, more: str) -> None:
        counts = Counter(other.state for other in self._jobs)
        done = f"[{counts[State.FINISHED]}/{len(self._jobs)}]"
        left = "" if what in ("started", "goes on") else f"  ({self.left()})"
        self._console.print(f"{done:>9}  {what:<9} {job.run.name:<36} {more}{left}".rstrip())

    def left(self) -> str:
        """How long the study still takes, from the runs of it that are finished."""
        seconds = self._seconds_left()
        return "time left unknown yet" if seconds is None else f"{duration(seconds)} left"

    def _seconds_left(self) -> float | None:
        known: dict[str, list[float]] = defaultdict(list)
        for recipe, values in self._earlier.items():
            known[recipe] += values
        for job in self._jobs:
            if job.state is State.FINISHED and job.seconds is not None:
                known[job.run.config.recipe].append(job.seconds)
        if not known:
            return None
        means = {recipe: statistics.fmean(values) for recipe, values in known.items()}
        usual = statistics.fmean(means.values())
        total = 0.0
        for job in self._jobs:
            expected = means.get(job.run.config.recipe, usual)
            if job.state in (State.NEW, State.STOPPED, State.ELSEWHERE):
                total += expected
            elif job.state is State.RUNNING:
                total += max(0.0, expected - (time.monotonic() - job.started))
        return total / self._parallel

    def _seconds_of_finished(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        for job in self._jobs:
            if job.state is State.FINISHED:
                result = read_result(job.run.folder / RESULT_FILE)
                found[result.recipe].append(result.train_seconds + result.eval_seconds)
        return found

    def _picture(self) -> Group:
        counts = Counter(job.state for job in self._jobs)
        finished, failed = counts[State.FINISHED], counts[State.FAILED] + counts[State.WAITS]
        bar = ProgressBar(total=len(self._jobs), completed=finished + failed, width=40)
        waiting = counts[State.NEW] + counts[State.STOPPED] + counts[State.ELSEWHERE]
        heading = Text(
            f"{finished} of {len(self._jobs)} runs finished, {counts[State.RUNNING]} running, {waiting} waiting, "
            f"{failed} failed; {self.left()}",
            style="bold",
        )
        bar_line = Table.grid()  # a bar alone does not end its line
        bar_line.add_row(bar)
        rows = Table.grid(padding=(0, 2))
        for job in self._jobs:
            if job.state is State.RUNNING:
                rows.add_row(job.run.name, duration(time.monotonic() - job.started), job.last_step())
        return Group(heading, bar_line, rows)


def summary(jobs: Sequence[Job], console: Console | None = None) -> None:
    """Prints how many runs of each recipe are finished, and names those that are not with the reason."""
    console = console or plain_console(file=sys.stdout, soft_wrap=True)
    table = Table(box=None, header_style="bold")
    states = [state for state in State if any(job.state is state for job in jobs)]
    for column in ("recipe", *(state.value for state in states)):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    counts: dict[str, Counter[State]] = defaultdict(Counter)
    for job in jobs:
        name = " ".join(part for part in (job.run.config.recipe, job.run.variant) if part)
        counts[name][job.state] += 1
    for recipe, of_recipe in counts.items():
        table.add_row(recipe, *(str(of_recipe[state] or "-") for state in states))
    console.print(table)
    for job in jobs:
        if job.state in (State.FAILED, State.WAITS, State.ELSEWHERE):
            log = f"; log: {job.log}" if job.log.exists() else ""
            console.print(f"{job.state.value}: {job.run.name}: {job.reason}{log}")


def duration(seconds: float) -> str:
    """`47 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
