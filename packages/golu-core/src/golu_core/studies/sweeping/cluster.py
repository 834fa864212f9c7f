"""Hands a study to submitit: SLURM job arrays, or submitit's local executor."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import submitit
from submitit.helpers import CommandFunction, DelayedSubmission

from golu_core.training.errors import RequestError

from .local import Job, State, with_this_python
from .study import ClusterNeeds

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes do not find the tools' modules

_TIMES_QUEUED_AGAIN = 1000
ClusterKind = Literal["slurm", "local"]


class ContinuedCommand(CommandFunction):
    """A run's command, which SLURM queues again where it was preempted or ran out of time; the run then continues."""

    def checkpoint(self, *args: Any, **kwargs: Any) -> DelayedSubmission:
        """What submitit queues again."""
        return DelayedSubmission(self, *args, **kwargs)


@dataclass(frozen=True)
class Submitted:
    """A run that was handed over."""

    job: Job
    handle: submitit.Job[Any]


def submit(jobs: Sequence[Job], kind: ClusterKind, needs: ClusterNeeds, logs: Path) -> list[Submitted]:
    """Submits what is not finished, an array for each recipe.

    Args:
        jobs: of the study.
        kind: `slurm`, or `local` for submitit's executor on this machine.
        needs: of each run.
        logs: folder for scripts and output.

    Raises:
        RequestError: there is no SLURM on this machine.
    """
    waiting = [job for job in jobs if job.state in (State.NEW, State.STOPPED)]
    submitted: list[Submitted] = []
    for array in _arrays(waiting):
        dependencies = [s.handle.job_id.split("_")[0] for s in submitted if s.job.run.folder in _needed(array)]
        executor = _executor(kind, needs, logs, array, sorted(set(dependencies)))
        with executor.batch():
            handles = [executor.submit(_command(job)) for job in array]
        submitted += [Submitted(job, handle) for job, handle in zip(array, handles, strict=True)]
    return submitted


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
    return ContinuedCommand(with_this_python(job.run.command(threads=None)), cwd=Path.cwd())


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
