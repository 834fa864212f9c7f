"""What a training step costs on the host, part by part: a GPU waits for it wherever it is the faster one.

Real runs of each task's small recipe, with two samples a step and one thread, so that little is computed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState

from golu_core.training.data.loading import TrainingLoader
from golu_core.training.loop import steps
from golu_core.training.loop.learner import Learner
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import task_of
from measuring import Row

RECIPES = {
    "mlp-digits": [],
    "digits": [],
    "babygpt-pydocs": [],
    "transformer-numbers": ["--batch-size", "64"],
    "fasterrcnn-digits": [],
    "deeplabv3-digits": [],
    "ddpm-digits": [],
}
PARTS = ("next batch", "seeds", "forward", "backward", "optimizer", "the rest")
_STEPS, _SKIPPED = 80, 20


class _Enough(Exception):
    """As many steps as wanted were measured."""


class _Clock:
    """Seconds by part, of the step that is under way and of those before it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._last = time.perf_counter()
        self._part: list[str] = ["the rest"]

    def _charge(self) -> None:
        now = time.perf_counter()
        self._now[self._part[-1]] += now - self._last
        self._last = now

    def enter(self, part: str) -> None:
        self._charge()
        self._part.append(part)

    def leave(self) -> None:
        self._charge()
        self._part.pop()

    def end_step(self) -> None:
        self._charge()
        self.steps.append(self._now)
        self._now = dict.fromkeys(PARTS, 0.0)
        if len(self.steps) == _STEPS:
            raise _Enough

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts as a part."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return call


@contextmanager
def _measured(clock: _Clock) -> Iterator[None]:
    """Within it, steps of a run are timed."""
    pieces, taken, step_pieces = TrainingLoader.micro_batches, steps.Steps.take, steps.Steps.micro_batches

    def next_of(self: Any, *args: Any) -> Iterator[Any]:
        found = pieces(self, *args)
        while True:
            clock.enter("next batch")
            micro_batch = next(found, None)
            clock.leave()
            if micro_batch is None:
                return
            yield micro_batch

    def forward_between(self: Any) -> Iterator[Any]:
        for micro_batch in step_pieces(self):
            clock.enter("forward")
            yield micro_batch

    def take(self: Any, *args: Any) -> None:
        clock.leave()
        taken(self, *args)
        clock.end_step()

    with (
        mock.patch.object(TrainingLoader, "micro_batches", next_of),
        mock.patch.object(steps, "seed_global_generators", clock.timed("seeds", steps.seed_global_generators)),
        mock.patch.object(steps.Steps, "micro_batches", forward_between),
        mock.patch.object(steps.Steps, "take", take),
        mock.patch.object(Learner, "backward", clock.timed("backward", Learner.backward)),
        mock.patch.object(Learner, "step", clock.timed("optimizer", Learner.step)),
    ):
        yield


def _steps_of(recipe: str, flags: list[str]) -> list[dict[str, float]]:
    clock = _Clock()
    AcceleratorState._reset_state(reset_partial_state=True)
    words = ["train", recipe, "--batch-size", "2", "--log-every", "50", *flags]
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        suppress(_Enough),
        _measured(clock),
    ):
        CommandLine(task_of(recipe)).main(words)
    return clock.steps[_SKIPPED:]


def host_rows() -> list[Row]:
    """Median milliseconds of each part of a step, by recipe."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    for recipe, flags in RECIPES.items():
        measured = _steps_of(recipe, flags)
        medians = {part: 1e3 * statistics.median(step[part] for step in measured) for part in PARTS}
        whole = 1e3 * statistics.median(sum(step.values()) for step in measured)
        ours = sum(medians[part] for part in ("next batch", "seeds", "the rest"))
        rows.append({"recipe": recipe, "step, ms": whole, **medians, "the loop's own": ours})
    return rows
