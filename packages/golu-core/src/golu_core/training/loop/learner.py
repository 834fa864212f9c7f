"""The model in training, with its optimizer and the average of its weights."""

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
        processes: The processes that train the model together.
        model, optimizer: The model and its optimizer, on the CPU or already on the device.
        average: The settings of the weight average; None keeps no average.
        compiled: Whether to compile the model with torch.compile.
        batch_norm: Whether batch norm normalizes over all processes.

    Raises:
        RequestError: An average of the weights is requested for a sharded model.
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
        """The unwrapped model, without the wrappers for distributed training."""
        bare: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return bare

    @property
    def evaluated_model(self) -> nn.Module:
        """The model to evaluate: the weight average if the recipe evaluates it and it has started, else the model."""
        settings = self._settings
        if self._average is not None and settings is not None and settings.evaluate:
            if isinstance(settings, LastAverage) and not int(self._average.n_averaged):
                return self.bare_model
            averaged: nn.Module = self._average.module
            return averaged
        return self.bare_model

    def share_buffers(self) -> None:
        """Copy the main process's running statistics, which are saved, to every process. Every process calls this."""
        self.processes.share_buffers(self.bare_model)
        if self._average is not None:
            self.processes.share_buffers(self._average)

    @property
    def kept_average(self) -> nn.Module | None:
        """The average of the weights, if the recipe keeps one without evaluating it."""
        if self._average is None or self.evaluated_model is not self.bare_model:
            return None
        if isinstance(self._settings, LastAverage) and not int(self._average.n_averaged):
            return None
        kept: nn.Module = self._average.module
        return kept

    @property
    def state(self) -> TrainingState:
        """The objects whose state a checkpoint saves."""
        return TrainingState(self.bare_model, self._optimizer.optimizer, self._average, self.accelerator.scaler)

    def weights(self) -> dict[str, Callable[[Path], None]]:
        """Return the names of the weight files, each with the function that writes it. Every process calls this."""
        found = {WEIGHTS_FILE: weights_writer(self.bare_model)}
        if self._average is not None:
            found[AVERAGE_FILE] = weights_writer(self._average.module)
        return found

    def learned_parameters(self) -> dict[str, Any]:
        """Return GoLU's learned parameters for result.json, if any. Every process calls this."""
        return learned_parameters(self.bare_model)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of a scalar loss."""
        self.accelerator.backward(loss)

    def step(self, lr: float, clip: float | None, with_norms: bool) -> Mapping[str, Tensor]:
        """Run one optimizer step.

        Args:
            lr: The learning rate; a parameter group's `lr_scale` multiplies it.
            clip: The maximum norm of the gradient; None disables clipping.
            with_norms: Whether to compute the norms of gradient, weights, and update.

        Returns:
            The norms by name, as scalars on the device; the gradient norm is measured before clipping.
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
        # Accelerate's wrapper looks for another optimizer's package on disk twice per step, and inspects a signature
        optimizer = self._optimizer.optimizer
        (optimizer if self.accelerator.scaler is None else self._optimizer).step()
        optimizer.zero_grad()
        return {} if norms is None or gradient is None else norms.after_step(gradient)

    def average_statistics(self) -> None:
        """Average batch norm's running statistics if each process normalizes over its own samples."""
        if self._averages_statistics:
            average_statistics(self.bare_model, self.processes)

    def update_average(self, position: Position, total: int) -> None:
        """Update the average of the weights, in steps that update it.

        Args:
            position: The run's position after the step.
            total: The number of steps in the whole run.
        """
        settings = self._settings
        if self._average is None or settings is None or not settings.moves_after(position.step, total):
            return
        if isinstance(settings, WeightAverage) and position.epoch < settings.copy_epochs:
            self._average.n_averaged.zero_()
        self._average.update_parameters(self.bare_model)
