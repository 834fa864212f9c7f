"""A finished run's network on its test data, in the form that analyses of trained networks use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.orders import SampleKey
from ..messages.errors import RequestError
from ..runs.results import Result

Batch = tuple[Tensor, ...]
"""Tensors for the task's loss, on the network's device; the first dimension of each is the batch dimension."""


@dataclass(frozen=True)
class AnalysisModel:
    """A finished run's network on some of its test data.

    Attributes:
        result: The run's result.
        model: The network with the weights that the run evaluated, in evaluation mode, on the device.
        batches: The test samples in a fixed order, in batches of equal size except for the last.
        loss: Function of a model and a batch that returns the mean test loss: a scalar, twice differentiable.
        metrics: Function of a model and batches that returns the task's test metrics over them.
        noisy: Function of a batch, a share, and a generator that adds normal noise to the batch's inputs, with that
            share of the inputs' standard deviation; None if the inputs are not numeric.
    """

    result: Result
    model: nn.Module
    batches: Sequence[Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    metrics: Callable[[nn.Module, Sequence[Batch]], Mapping[str, float]]
    noisy: Callable[[Batch, float, torch.Generator], Batch] | None = None

    @property
    def samples(self) -> int:
        """The number of samples in all batches."""
        return sum(len(batch[0]) for batch in self.batches)

    def mean_loss(self, model: nn.Module) -> float:
        """Return the mean test loss of a model over all samples."""
        with torch.no_grad():
            total = sum(len(batch[0]) * float(self.loss(model, batch)) for batch in self.batches)
        return total / self.samples


class MakeAnalysisModel(Protocol):
    """The function that a task provides so that its runs can be analyzed."""

    def __call__(self, folder: Path, samples: int, data_dir: Path | None) -> AnalysisModel:
        """Return the analysis model of a finished run.

        Args:
            folder: The run folder.
            samples: The number of test samples to use, or all if there are fewer.
            data_dir: The folder that holds the data sets; None uses that of the run.

        Raises:
            RequestError: The run is unfinished or damaged, or its data are missing or different.
        """


def spread_keys(length: int, count: int, at_once: int = 128) -> list[list[SampleKey]]:
    """Return the keys of test samples that are spread evenly over the test set, in batches.

    Raises:
        RequestError: The test set is empty.
    """
    if length < 1:
        raise RequestError("the test set is empty")
    taken = min(count, length)
    chosen = [n * length // taken for n in range(taken)]
    return [[SampleKey(n, -1, n) for n in chosen[start : start + at_once]] for start in range(0, taken, at_once)]


def with_noise(values: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Return values of any shape plus normal noise, scaled to a share of the values' standard deviation.

    Args:
        random: The generator, on the CPU so that the noise is the same on every device.
    """
    noise = torch.randn(values.shape, generator=random, dtype=torch.float32).to(values.device, values.dtype)
    return values + share * values.std() * noise


def make_analysis_model(task: Any, folder: Path, samples: int, data_dir: Path | None) -> AnalysisModel:
    """Return the analysis model of a finished run; raise RequestError if the task has none or rejects the run."""
    from .task import resolved

    if task.analysis_model is None:
        raise RequestError(f"{folder} is a run of {task.program}, whose networks cannot be analyzed this way")
    found: AnalysisModel = resolved(task.analysis_model)(folder, samples, data_dir)
    return found
