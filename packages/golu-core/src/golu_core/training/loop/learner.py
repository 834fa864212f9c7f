"""What learns: the model with its optimizer and an average of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config.fields import BatchNorm
from ..config.optim import Average, LastAverage, WeightAverage, averaged_model
from ..distributed.processes import Processes
from ..messages.errors import RequestError
from ..runs.run_files import AVERAGE_FILE, WEIGHTS_FILE
from ..tasks.swapped import learned_parameters
from .batch_norms import average_statistics
from .norms import StepNorms
from .state import Position, TrainingState, weights_writer


class Learner:
    """A model in training, on its device.

    Args:
        processes: that train it together.
        model, optimizer: as built, on the CPU or already on the device.
        average: keep an average of the weights.
        compiled: compile the model by torch.compile.
        batch_norm: whether batch norm normalizes over all processes.

    Raises:
        RequestError: an average is asked for of a model that the launcher spreads over the processes.
    """

    def __init__(
        self,
        processes: Processes,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        compiled: bool,
        batch_norm: BatchNorm,
    ) -> None:
        if average is not None and processes.is_sharding:
            raise RequestError("an average of sharded weights is not supported: launch without FSDP")
        self.processes = processes
        self.accelerator = processes.accelerator
        self._averages_statistics = batch_norm == "per_process" and processes.count > 1
        if batch_norm == "synchronized":
            model = processes.with_common_batch_norm(model)
        self._settings = average
        self._average: AveragedModel | None = None
        if average is not None:
            self._average = averaged_model(model.to(processes.device), average)
        if compiled:
            model.compile()
        self.model: nn.Module
        self.model, self._optimizer = self.accelerator.prepare(model, optimizer)

    @property
    def bare_model(self) -> nn.Module:
        """The model as built, without what surrounds it in training."""
        bare: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return bare

    @property
    def evaluated_model(self) -> nn.Module:
        """What the test metrics are of: the average where the recipe says so and it has begun, else the model."""
        settings = self._settings
        if self._average is not None and settings is not None and settings.evaluate:
            if isinstance(settings, LastAverage) and not int(self._average.n_averaged):
                return self.bare_model
            averaged: nn.Module = self._average.module
            return averaged
        return self.bare_model

    def share_buffers(self) -> None:
        """Evaluate on every process what is saved: the main one's running statistics; called by every process."""
        self.processes.share_buffers(self.bare_model)
        if self._average is not None:
            self.processes.share_buffers(self._average)

    @property
    def kept_average(self) -> nn.Module | None:
        """The average where one is kept that the test metrics are not of."""
        if self._average is None or self.evaluated_model is not self.bare_model:
            return None
        if isinstance(self._settings, LastAverage) and not int(self._average.n_averaged):
            return None
        kept: nn.Module = self._average.module
        return kept

    @property
    def state(self) -> TrainingState:
        """What a checkpoint saves of it."""
        return TrainingState(self.bare_model, self._optimizer.optimizer, self._average, self.accelerator.scaler)

    def weights(self) -> dict[str, Callable[[Path], None]]:
        """The files of a finished run's weights, each with the function that writes it; called by every process."""
        found = {WEIGHTS_FILE: weights_writer(self.bare_model)}
        if self._average is not None:
            found[AVERAGE_FILE] = weights_writer(self._average.module)
        return found

    def learned_parameters(self) -> dict[str, Any]:
        """What result.json says of GoLU's parameters where they were learned; called by every process."""
        return learned_parameters(self.bare_model)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a scalar loss."""
        self.accelerator.backward(loss)

    def step(self, lr: float, clip: float | None, with_norms: bool) -> Mapping[str, Tensor]:
        """The optimizer's step.

        Args:
            lr: learning rate; a group's `lr_scale` multiplies it.
            clip: largest norm of the gradient.
            with_norms: also take the norms of gradient, weights and update.

        Returns:
            The norms: scalars on the device, by name; the gradient's is that before clipping.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        norms = StepNorms(self.model.parameters()) if with_norms else None
        gradient: Tensor | None = None
        if clip is not None:
            gradient = self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
        elif norms is not None:
            self.accelerator.unscale_gradients()
            gradient = norms.gradient()
        # Accelerate's own looks on the disk for the package of another optimizer, twice a step, and reads a signature
        optimizer = self._optimizer.optimizer
        (optimizer if self.accelerator.scaler is None else self._optimizer).step()
        optimizer.zero_grad()
        return {} if norms is None or gradient is None else norms.after_step(gradient)

    def average_statistics(self) -> None:
        """Average the running statistics of batch norm, where each process has normalized by its own samples."""
        if self._averages_statistics:
            average_statistics(self.bare_model, self.processes)

    def update_average(self, position: Position, total: int) -> None:
        """Moves the average towards the weights, in the steps in which it moves.

        Args:
            position: of the run, after the step.
            total: steps of the whole run.
        """
        settings = self._settings
        if self._average is None or settings is None or not settings.moves_after(position.step, total):
            return
        if isinstance(settings, WeightAverage) and position.epoch < settings.copy_epochs:
            self._average.n_averaged.zero_()
        self._average.update_parameters(self.bare_model)
