"""The model that `golu-core analyze times` measures: a recipe's network with a batch of synthetic samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..config.run_config import RunConfig
from ..messages.errors import RequestError
from .task import Task, resolved


@dataclass(frozen=True)
class TimingModel:
    """A recipe's network with one batch of synthetic samples of the recipe's sizes, for measuring speed only.

    Attributes:
        model: The newly initialized network with the config's activation, on the device.
        training_loss: Function of the model in training mode that returns the loss of the batch: a scalar.
        infer: Function of the model in evaluation mode that computes its outputs for the batch.
        samples: The batch size.
    """

    model: nn.Module
    training_loss: Callable[[nn.Module], Tensor]
    infer: Callable[[nn.Module], Any]
    samples: int


class MakeTimingModel(Protocol):
    """The function that a task provides so that its recipes' networks can be timed."""

    def __call__(self, config: Any, samples: int, device: torch.device) -> TimingModel:
        """Return the timing model of a config.

        Args:
            config: The config of one of the task's recipes, with the activation to measure.
            samples: The batch size.
            device: The device to measure.
        """


def make_timing_model(task: Task[Any], config: RunConfig, samples: int, device: torch.device) -> TimingModel:
    """Return the timing model of a task's config; RequestError if the task offers none.

    Args:
        samples: The batch size.
        device: The device to measure.
    """
    if task.timing_model is None:
        raise RequestError(f"the networks of {task.package} cannot be timed: the task offers no timing model")
    make: MakeTimingModel = resolved(task.timing_model)
    return make(config, samples, device)
