"""Hands a study to submitit: SLURM job arrays, or submitit's local executor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import CommandFunction, DelayedSubmission

from golu_core.regular_files import regular_json
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.locks import BUSY
from golu_core.training.storage.ownership import remove_file, write_text

from .local import Job, State, make_log_folder, with_this_python
from .study import ClusterNeeds

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes do not find the tools' modules

_TIMES_QUEUED_AGAIN = 1000
_STOPPED = (129, 130, 143)
"""Exit statuses of a run that a signal stopped, and that can go on."""
_SUBMITTED_FILE = "submitted.json"
ClusterKind = Literal["slurm", "local"]


class ContinuedCommand(CommandFunction):
    """A run's command, which SLURM queues again where it was preempted or ran out of time; the run then continues.

    Args:
        command: The command of the run.
        cwd: The working directory of the command.
        failure_note: a file that is there while the last attempt has failed, as for runs of this machine.
    """

    def __init__(self, command: list[str], cwd: Path, failure_note: Path) -> None:
        super().__init__(command, cwd=cwd)
        self.failure_note = failure_note.absolute()

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        """Runs the command on a node, and leaves a note if it fails."""
        if self.failure_note.exists():
            remove_file(self.failure_note)
        try:
            return str(super().__call__(*args, **kwargs))
        except FailedJobError as error:
            status = getattr(error.__cause__, "returncode", None)
            if status not in _STOPPED and BUSY not in str(error):
                self.failure_note.write_text(f"it ended with status {status}\n", encoding="utf-8")
            raise

    def checkpoint(self, *args: Any, **kwargs: Any) -> DelayedSubmission:
        """What submitit queues again."""
        return DelayedSubmission(self, *args, **kwargs)


@dataclass(frozen=True)
class Submitted:
    """A run that was handed over."""

    job: Job
    handle: submitit.Job[Any]


def submit(jobs: Sequence[Job], kind: ClusterKind, needs: ClusterNeeds, logs: Path) -> list[Submitted]:
    """Submits what is neither finished, nor failed, nor queued already, an array for each recipe.

    Args:
        jobs: The jobs of the study, with their states.
        kind: `slurm`, or `local` for submitit's executor on this machine.
        needs: The resources of each run.
        logs: folder for scripts and output.

    Raises:
        RequestError: there is no SLURM on this machine, or it does not say what is queued.
    """
    waiting = [job for job in jobs if job.state in (State.NEW, State.STOPPED)]
    before = _submitted_before(logs)
    if kind == "slurm":
        queued = _queued() if any(job.run.name in before for job in waiting) else set()
        for job in waiting:
            if before.get(job.run.name) in queued:
                job.state = State.RUNNING
        waiting = [job for job in waiting if job.state is not State.RUNNING]
    submitted: list[Submitted] = []
    for array in _arrays(waiting):
        dependencies = [s.handle.job_id.split("_")[0] for s in submitted if s.job.run.folder in _needed(array)]
        executor = _executor(kind, needs, logs, array, sorted(set(dependencies)))
        make_log_folder(logs)
        with executor.batch():
            handles = [executor.submit(_command(job)) for job in array]
        submitted += [Submitted(job, handle) for job, handle in zip(array, handles, strict=True)]
        before |= {job.run.name: handle.job_id for job, handle in zip(array, handles, strict=True)}
        write_text(logs / _SUBMITTED_FILE, json.dumps(before, indent=1) + "\n")
    return submitted


def _submitted_before(logs: Path) -> dict[str, str]:
    """The jobs that the study's runs were submitted as last, by the names of the runs."""
    path = logs / _SUBMITTED_FILE
    if not path.exists():
        return {}
    try:
        content = regular_json(path)
        return {str(name): str(job) for name, job in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RequestError(
            f"{path} lists the queued runs, and cannot be read ({error}); if no run is queued, remove it"
        ) from None


def _queued() -> set[str]:
    """The jobs of this user that SLURM has queued or running, each of an array by itself.

    Raises:
        RequestError: squeue does not say so.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or error
        raise RequestError(
            f"runs of this study were submitted before, and squeue does not report which are still queued: {words}"
        ) from None
    return set(done.stdout.split())


def _arrays(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Runs of one recipe in one array, so that they have the same needs and the same name."""
    array: list[Job] = []
    for job in jobs:
        if array and (job.run.config.recipe, job.run.variant) != (array[0].run.config.recipe, array[0].run.variant):
            yield array
            array = []
        array.append(job)
    if array:
        yield array


def _needed(array: Sequence[Job]) -> set[Path]:
    return {job.run.after for job in array if job.run.after is not None}


def _command(job: Job) -> ContinuedCommand:
    return ContinuedCommand(with_this_python(job.run.command(threads=None)), Path.cwd(), job.failure_note)


def _executor(
    kind: ClusterKind, needs: ClusterNeeds, logs: Path, array: Sequence[Job], dependencies: Sequence[str]
) -> submitit.AutoExecutor:
    run = array[0].run
    try:
        executor = submitit.AutoExecutor(logs / "%j", cluster=kind, slurm_max_num_timeout=_TIMES_QUEUED_AGAIN)
    except RuntimeError as error:
        raise RequestError(f"{error}; run this where sbatch is, or without --cluster") from None
    executor.update_parameters(
        name="-".join(part for part in (run.config.recipe, run.variant) if part),
        timeout_min=needs.minutes,
        cpus_per_task=needs.cpus,
        tasks_per_node=1,
        nodes=1,
    )
    gpus = run.processes if needs.gpus is None and kind == "slurm" else needs.gpus
    options: dict[str, Any] = {
        "gpus_per_node": gpus,
        "mem_gb": needs.memory_gb,
        "slurm_partition": needs.partition,
        "slurm_account": needs.account,
        "slurm_constraint": needs.constraint,
        "slurm_array_parallelism": needs.at_a_time,
        # a run whose predecessor failed says at its start what it lacks
        "slurm_dependency": f"afterany:{':'.join(dependencies)}" if dependencies else None,
    }
    executor.update_parameters(**{name: value for name, value in options.items() if value is not None})
    return executor
