"""Optimizer steps: run micro-batches, accumulate gradients, and check losses.

The order of one step:

1. `micro_batches` seeds the global random generators and yields; only a step's last one synchronizes gradients.
2. `take` runs the backward pass of its loss, divided by the number of micro-batches.
3. With the last micro-batch: clip, step with the schedule's learning rate, then update the average of the weights.
4. The mean loss and this process's stop request are summed over all processes, and copied without waiting.
5. The values of earlier steps arrive: a nonfinite loss ends the run, a stop request is recorded, the step is logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config.run_config import RunConfig, RunLength
from ..config.schedules import learning_rate
from ..data.loading import TrainingLoader
from ..data.seeding import Purpose, seed_global_generators
from ..distributed.processes import Processes
from ..distributed.signals import StopSignal
from .learner import Learner
from .log import RunLog
from .state import Position
from .watch import LossWatch, StepValues


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """The samples in one forward pass of a process: its share of a step, or less if gradients are accumulated.

    Attributes:
        batch: The batch, as returned by the data set.
        ends_step: Whether the optimizer steps after this micro-batch.
    """

    batch: Any
    ends_step: bool


class NotFinite(ArithmeticError):
    """The loss of a step is NaN or infinite.

    Attributes:
        values: The values of the step.
    """

    def __init__(self, values: StepValues) -> None:
        super().__init__(f"the loss of step {values.step} is {values.loss} at learning rate {values.lr:g}")
        self.values = values


@dataclass
class Steps:
    """The optimizer steps of a run.

    Attributes:
        config, length: The run's configuration and length, which determine the learning rate and clipping.
        total: The number of steps in the whole run.
        processes: The processes that train together.
        learner, loader: The model with its optimizer, and the loader of training data.
        position: The run's position, updated in place.
        log: The log that records each step.
        signal: The stop request to this process, if any; each step shares it with the other processes.
        stop_agreed: Whether all processes know that one of them was asked to stop.
    """

    config: RunConfig
    length: RunLength
    total: int
    processes: Processes
    learner: Learner
    loader: TrainingLoader
    position: Position
    log: RunLog
    signal: StopSignal
    stop_agreed: bool = False

    def __post_init__(self) -> None:
        self._accumulation = self.loader.plan.accumulation
        self._losses: list[Tensor] = []
        self._watch = LossWatch()
        self._open: MicroBatch | None = None

    @property
    def are_complete(self) -> bool:
        """Whether all steps of the run are done."""
        return self.position.step >= self.total

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the final step of its epoch."""
        return self.position.step_in_epoch == self.loader.order.steps_per_epoch

    def micro_batches(self) -> Iterator[MicroBatch]:
        """Yield this process's remaining micro-batches of the epoch; pass the loss of each to `take`.

        Gradients are synchronized only in the last micro-batch of a step. Before each micro-batch, the global random
        generators are seeded with (seed, step, micro-batch, process), so that dropout is the same after resuming.
        """
        position = self.position
        if self.are_complete:
            return
        for batch, number, ends_step in self.loader.micro_batches(position.epoch, position.step_in_epoch):
            seed_global_generators(self.config.seed, Purpose.STEP, position.step, number, self.processes.rank)
            self._open = MicroBatch(batch, ends_step)
            with nullcontext() if ends_step else self.processes.accelerator.no_sync(self.learner.model):
                yield self._open
            if self._open is not None:
                raise RuntimeError("pass the loss of each micro-batch to Run.backward before you request the next one")
            if self.are_complete:
                return

    def take(self, micro_batch: MicroBatch, loss: Tensor) -> None:
        """Run backward on a micro-batch's mean loss, a scalar; after the step's last micro-batch, step the optimizer.

        Raises:
            NotFinite: The loss of this step or, on a GPU, of the previous step was not finite.
        """
        if micro_batch is not self._open:
            raise RuntimeError("call Run.backward once for each micro-batch of Run.micro_batches, in their order")
        self._open = None
        self.learner.backward(loss / self._accumulation)
        self._losses.append(loss.detach())
        if not micro_batch.ends_step:
            return
        config, length, position = self.config, self.length, self.position
        lr = learning_rate(config.schedule, config.optim.lr, position.step, length.steps_per_epoch, length.epochs)
        norms = self.learner.step(lr, config.clip, with_norms=self.log.is_logged(position.step + 1))
        position.step += 1
        position.step_in_epoch += 1
        self.learner.update_average(position, self.total)
        self._send(lr, norms)

    def _send(self, lr: float, norms: Mapping[str, Tensor]) -> None:
        """Start copying this step's loss and stop request, and check those that have arrived."""
        loss = torch.stack(self._losses).mean().float()
        self._losses.clear()
        values = torch.stack([loss, torch.full_like(loss, float(self.signal.number is not None))])
        if self.processes.count > 1:
            values = self.processes.sum(values) / self.processes.count
        self._watch.send(self.position.step, lr, values[0], values[1], norms)
        self._note(self._watch.arrived())

    def settle(self) -> None:
        """Wait for the losses in flight, then check and log them.

        Raises:
            NotFinite: One of the losses was not finite.
        """
        self._note(self._watch.all())

    def _note(self, steps: Iterator[StepValues]) -> None:
        for values in steps:
            if not values.is_finite:
                raise NotFinite(values)
            self.stop_agreed = self.stop_agreed or values.stop
            self.log.step(values)
