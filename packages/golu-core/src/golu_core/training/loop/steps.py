"""Optimizer steps: a loader's micro-batches go in, gradients are accumulated, and losses come out and are watched.

The order of one step:

1. `micro_batches` seeds the global random generators and yields; only a step's last one synchronizes gradients.
2. `take` runs the backward pass of its loss, divided by the number of micro-batches.
3. With the last micro-batch: clip, step with the schedule's learning rate, then update the average of the weights.
4. The mean loss and this process's stop request are summed over all processes, and copied without waiting.
5. The values of earlier steps arrive: a loss that is not finite ends the run, a stop request is noted, the log is told.
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
    """What a device takes at once: its share of a step, or a part of that where gradients are accumulated.

    Attributes:
        batch: as the data set makes it.
        ends_step: whether the optimizer steps after it.
    """

    batch: Any
    ends_step: bool


class NotFinite(ArithmeticError):
    """The loss of a step is not a number, or infinite.

    Attributes:
        values: of the step.
    """

    def __init__(self, values: StepValues) -> None:
        super().__init__(f"the loss of step {values.step} is {values.loss} at learning rate {values.lr:g}")
        self.values = values


@dataclass
class Steps:
    """The optimizer steps of a run.

    Attributes:
        config, length: learning rate and clipping follow from them.
        total: steps of the whole run.
        processes: that take them together.
        learner, loader: the model, and what it is trained on.
        position: of the run; is moved on.
        log: is told of each step.
        signal: whether this process was asked to stop; each step tells the others.
        stop_agreed: whether all processes know that one of them was.
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
        """Whether the last step was its epoch's last."""
        return self.position.step_in_epoch == self.loader.order.steps_per_epoch

    def micro_batches(self) -> Iterator[MicroBatch]:
        """Yield this process's micro-batches of the epoch, from where the run stands; pass the loss of each to `take`.

        Between optimizer steps gradients are not synchronized. The global random generators are seeded for each by
        (seed, step, micro-batch, process), so that dropout is the same after a continuation.
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
                raise RuntimeError("pass the loss of each micro-batch to Run.backward before you take the next")
            if self.are_complete:
                return

    def take(self, micro_batch: MicroBatch, loss: Tensor) -> None:
        """Run the backward pass of a micro-batch's mean loss, a scalar, and after the step's last one the optimizer.

        Raises:
            NotFinite: the loss of this step or, on a GPU, of the one before was not finite.
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
        """Sends this step's loss and stop request on their way, and looks at those that have arrived."""
        loss = torch.stack(self._losses).mean().float()
        self._losses.clear()
        values = torch.stack([loss, torch.full_like(loss, float(self.signal.number is not None))])
        if self.processes.count > 1:
            values = self.processes.sum(values) / self.processes.count
        self._watch.send(self.position.step, lr, values[0], values[1], norms)
        self._note(self._watch.arrived())

    def settle(self) -> None:
        """Waits for the losses under way, and notes them.

        Raises:
            NotFinite: one of them was not finite.
        """
        self._note(self._watch.all())

    def _note(self, steps: Iterator[StepValues]) -> None:
        for values in steps:
            if not values.is_finite:
                raise NotFinite(values)
            self.stop_agreed = self.stop_agreed or values.stop
            self.log.step(values)
