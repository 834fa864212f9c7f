"""What a task lets `golu-core analyze times` measure: a recipe's own network at work on a batch that is made up."""

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
    """A recipe's own network, and one batch of made-up samples of the recipe's sizes: how fast, not how good.

    Attributes:
        model: The newly initialized network with the config's activation, on the device.
        training_loss: Function of the model in training mode that returns the loss of the batch: a scalar.
        infer: Function of the model in evaluation mode that computes its outputs for the batch.
        samples: of the batch.
    """

    model: nn.Module
    training_loss: Callable[[nn.Module], Tensor]
    infer: Callable[[nn.Module], Any]
    samples: int


class MakeTimingModel(Protocol):
    """What a task offers, so that its recipes' networks can be timed."""

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
