"""Run a study on this machine, one run after the other or several in parallel.

look       read each run's state from its folder: new, stopped, finished, failed, or trained by another process
start      launch a run whose prerequisite is finished, as soon as fewer than `parallel` runs are running
collect    wait for processes to exit, and record a failure's last line of output in a note next to the log
stop       on a signal, pass SIGTERM on to all runs, and wait until they have saved a checkpoint
summarize  print the number of runs in each state; the same command continues the study
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

import psutil

from golu_core.regular_files import open_regular
from golu_core.training.distributed.signals import STOP_SIGNALS, leave_closed_terminal
from golu_core.training.messages.errors import Interrupted
from golu_core.training.runs.folder import RunFolder
from golu_core.training.runs.results import RESULT_FILE, read_result
from golu_core.training.runs.run_files import CONFIG_FILE, METRICS_FILE
from golu_core.training.storage.locks import BUSY, is_claimed
from golu_core.training.storage.ownership import STUDY_MARKER, read_marker, remove_file, write_json

from .study import PlannedRun

_SECONDS_TO_SAVE = 120.0
"""Time for a step and a checkpoint, before the processes are killed."""
_SECONDS_BETWEEN_LOOKS = 0.2
"""Short next to any run, and long enough to cost no CPU time."""
_SECONDS_BETWEEN_LOOKS_ELSEWHERE = 2.0
"""Longer, because each look opens the other process's lock file."""


class State(Enum):
    """Where a run of a study stands."""

    NEW = "new"
    STOPPED = "stopped"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    FINISHED = "finished"
    FAILED = "failed"
    WAITS = "waits in vain"


@dataclass
class Job:
    """A run of a study on this machine.

    Attributes:
        run: The planned run.
        log: its output, over all attempts.
        state: The state of the job.
        reason: The reason of a failure.
        retry: whether a failure noted before this command does not count.
        process: while it runs.
        slot: which of the parallel places it has, and so which GPUs.
        started: The start time by the clock of this process, in seconds.
        seconds: it took, if it was finished by this process.
        looked: when another process was last seen training it, by the same clock.
    """

    run: PlannedRun
    log: Path
    state: State
    reason: str = ""
    retry: bool = False
    process: subprocess.Popen[bytes] | None = None
    slot: int = 0
    started: float = 0.0
    seconds: float | None = None
    looked: float = 0.0
    file: IO[bytes] | None = None

    @property
    def failure_note(self) -> Path:
        """Present while the last attempt is known to have failed."""
        return self.log.with_suffix(".failed")

    def look(self) -> None:
        """Set the state to what is on disk; RequestError if a result cannot be read."""
        folder = self.run.folder
        if (folder / RESULT_FILE).exists():
            read_result(folder / RESULT_FILE)
            self.state, self.reason = State.FINISHED, ""
        elif is_claimed(folder):
            self.state, self.reason, self.looked = State.ELSEWHERE, "another process is training it", time.monotonic()
        elif self.failure_note.exists() and not self.retry:
            self.state, self.reason = State.FAILED, "failed before; pass --retry to train it again"
        else:
            self.state = State.STOPPED if (folder / CONFIG_FILE).exists() else State.NEW

    def last_words(self, status: int | None = None) -> str:
        """The program's own message at the end of the log, or else how it ended and the log's last line."""
        lines: list[str] = []
        with contextlib.suppress(OSError), open_regular(self.log) as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            tail = file.read().decode(errors="replace").rpartition("\n$ ")[2]
            lines = [line.strip() for line in tail.splitlines() if line.strip()]
        messages = [line for line in lines if line.startswith(f"{self.run.task.program}: ")]
        if messages:
            return messages[-1]
        ending = "it ended" if status is None else _ending(status)
        return f"{ending}; last line: {lines[-1]}" if lines else ending

    def last_step(self) -> str:
        """Where its metrics are, such as `step 150, loss 0.3`."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            path = self.run.folder / METRICS_FILE
            with open_regular(path) as file:
                file.seek(max(0, path.stat().st_size - 4096))
                line = json.loads(file.read().splitlines()[-1])
            return f"step {line['step']}, {line['split']} loss {line['loss']:.4g}"
        return "starting"

    def outcome(self) -> str:
        """The metric of a finished run."""
        return read_result(self.run.folder / RESULT_FILE).primary_metric.shown


_WAITING = (State.NEW, State.STOPPED, State.ELSEWHERE)


class View(Protocol):
    """Shows a study to a person."""

    def started(self, job: Job) -> None: ...
    def ended(self, job: Job) -> None: ...
    def look(self) -> None: ...


def make_log_folder(folder: Path) -> None:
    """Makes the folder of a study's logs, marked as this program's."""
    folder.mkdir(parents=True, exist_ok=True)
    if read_marker(folder, STUDY_MARKER) is None:
        write_json(folder / STUDY_MARKER, {"format": "golu-study-logs/1"})


def jobs_of(runs: Sequence[PlannedRun], logs: Path, retry: bool) -> list[Job]:
    """The runs with their states on disk.

    Args:
        runs: The runs of the study.
        logs: folder of the log files.
        retry: take those that failed before as stopped.

    Raises:
        RequestError: the run of another config lies where one of them would lie, or a result cannot be read.
    """
    jobs = []
    for run in runs:
        job = Job(run, logs / f"{run.name}.log", State.NEW, retry=retry)
        RunFolder(run.folder).check_owner(run.config)
        job.look()
        jobs.append(job)
    return jobs


@dataclass
class LocalStudy:
    """The runs of a study and the places of this machine.

    Attributes:
        jobs: The jobs, in the order in which they run.
        parallel: how many run at a time.
        devices: GPUs of this machine as CUDA_VISIBLE_DEVICES names them; none on a CPU.
        view: shows it.
    """

    jobs: list[Job]
    parallel: int
    devices: list[str]
    view: View
    _asked_to_stop: int | None = field(default=None, init=False)

    def run(self) -> None:
        """Runs what is not finished.

        Raises:
            Interrupted: after a signal, once the runs have saved; the same command continues the study.
        """
        for job in self.jobs:
            if job.state is State.ELSEWHERE:
                self.view.ended(job)
        with self._signals():
            try:
                while any(job.state in (*_WAITING, State.RUNNING) for job in self.jobs):
                    self._collect()
                    if self._asked_to_stop is not None:
                        raise Interrupted(self._asked_to_stop, "stopped; the same command continues the study")
                    self._start_what_can_start()
                    self.view.look()
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            finally:
                self._stop_all()  # a study that ends, for whatever reason, leaves nothing running

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:
            leave_closed_terminal(number)
            if self._asked_to_stop is None:
                self._asked_to_stop = number

        asked = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as of nohup
        before = {number: signal.signal(number, ask) for number in asked}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _running(self) -> list[Job]:
        return [job for job in self.jobs if job.state is State.RUNNING]

    def _start_what_can_start(self) -> None:
        states = {job.run.folder: job.state for job in self.jobs}
        for job in self.jobs:
            if job.state not in _WAITING:
                continue
            before = State.FINISHED if job.run.after is None else states[job.run.after]
            if before in (State.FAILED, State.WAITS):
                job.state, job.reason = State.WAITS, f"{job.run.after} is not finished"
                self.view.ended(job)
            elif before is State.FINISHED and len(self._running()) < self.parallel:
                self._start_unless_done(job)

    def _start_unless_done(self, job: Job) -> None:
        """Start a run, unless another sweep or process trains it, has finished it, or has seen it fail."""
        was = job.state
        if was is State.ELSEWHERE and time.monotonic() - job.looked < _SECONDS_BETWEEN_LOOKS_ELSEWHERE:
            return
        job.look()
        if job.state in (State.NEW, State.STOPPED):
            self._start(job)
        elif job.state is not was:
            self.view.ended(job)

    def _start(self, job: Job) -> None:
        taken = {other.slot for other in self._running()}
        job.slot = next(slot for slot in range(self.parallel) if slot not in taken)
        command = job.run.command(threads_of(job.run, self.parallel) if not self.devices else None)
        make_log_folder(job.log.parent)
        job.file = job.log.open("ab")
        job.file.write(os.fsencode(f"$ {shlex.join(command)}\n"))
        job.file.flush()
        if job.failure_note.exists():
            remove_file(job.failure_note)
        job.retry = False
        job.process = subprocess.Popen(
            with_this_python(command),
            stdin=subprocess.DEVNULL,
            stdout=job.file,
            stderr=subprocess.STDOUT,
            env=self._environment(job),
            start_new_session=True,  # a Ctrl-C at the terminal is for this process, which passes it on
        )
        job.state, job.started = State.RUNNING, time.monotonic()
        self.view.started(job)

    def _environment(self, job: Job) -> dict[str, str]:
        """CUDA_VISIBLE_DEVICES from the job's own share of the GPUs, which it need not use up."""
        if self.devices:
            first = job.slot * (len(self.devices) // self.parallel)
            mine = self.devices[first : first + job.run.processes]
            return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(mine)}
        # several processes on a CPU find each other only if they are told
        return {**os.environ, "ACCELERATE_USE_CPU": "true"} if job.run.processes > 1 else dict(os.environ)

    def _collect(self) -> None:
        for job in self._running():
            assert job.process is not None and job.file is not None
            status = job.process.poll()
            if status is None:
                continue
            job.file.close()
            job.seconds = time.monotonic() - job.started
            if status == 0 and (job.run.folder / RESULT_FILE).exists():
                job.state = State.FINISHED
            elif BUSY in (words := job.last_words(status)):  # it began before the other process had locked the folder
                job.state, job.reason, job.looked = State.ELSEWHERE, "another process is training it", time.monotonic()
            else:
                job.state, job.reason = State.FAILED, words
                job.failure_note.write_text(f"{_ending(status)}\n")
            self.view.ended(job)

    def _stop_all(self) -> None:
        """Lets the running processes finish their step and save, also where their launcher ends first."""
        family: list[psutil.Process] = []
        for job in self._running():
            assert job.process is not None
            with contextlib.suppress(psutil.NoSuchProcess):
                launcher = psutil.Process(job.process.pid)
                family += [launcher, *launcher.children(recursive=True)]
                os.killpg(job.process.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=_SECONDS_TO_SAVE)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for job in self._running():
            assert job.process is not None and job.file is not None
            job.process.wait()
            job.file.close()
            finished = (job.run.folder / RESULT_FILE).exists()
            job.state = State.FINISHED if finished else State.STOPPED


def _ending(status: int) -> str:
    """`exit status 1`, `killed by SIGKILL`."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def threads_of(run: PlannedRun, parallel: int) -> int:
    """Threads that each process of a run has, where all cores of this machine are shared."""
    return max(1, (os.cpu_count() or 1) // (parallel * run.processes))


def with_this_python(command: list[str]) -> list[str]:
    """The command with Accelerate's console script replaced by the module that it calls, of this environment."""
    assert command[:2] == ["accelerate", "launch"]
    return [sys.executable, "-m", "accelerate.commands.launch", *command[2:]]


def visible_gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named: list[Any] = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [str(name) for name in (named or range(count))][:count]
