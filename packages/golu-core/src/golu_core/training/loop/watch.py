"""Asynchronous copies of losses from the device: each is checked once it arrives, without stalling the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepValues:
    """The values of one optimizer step.

    Attributes:
        step: The step, counted from 1.
        lr: The learning rate of the step.
        loss: The mean loss over the step's samples.
        stop: Whether any process was asked to stop.
        norms: The norms of gradient, weights, and update, if this step logs them.
    """

    step: int
    lr: float
    loss: float
    stop: bool
    norms: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether the loss is finite, so that training can continue."""
        return math.isfinite(self.loss)


@dataclass(frozen=True)
class _UnderWay:
    step: int
    lr: float
    names: tuple[str, ...]
    values: Tensor
    ready: torch.cuda.Event | None


class LossWatch:
    """A queue of steps whose loss has been computed but not read yet.

    On a GPU, reading a loss immediately would synchronize with the host in every step. Therefore, one step's loss is
    still being copied while the next step is computed. On other devices, losses are read immediately.
    """

    def __init__(self) -> None:
        self._under_way: list[_UnderWay] = []

    def send(self, step: int, lr: float, loss: Tensor, stop: Tensor, norms: Mapping[str, Tensor]) -> None:
        """Start copying a step's values to the host.

        Args:
            step: The step, counted from 1.
            lr: The learning rate of the step.
            loss, stop: The loss and the stop request, each a scalar on the device. `stop` is positive if any process
                was asked to stop.
            norms: Scalars on the device, by name.
        """
        values = torch.stack([loss.float(), stop.float(), *(norm.float() for norm in norms.values())])
        ready = None
        if values.device.type == "cuda":
            values = values.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._under_way.append(_UnderWay(step, lr, tuple(norms), values, ready))

    def arrived(self) -> Iterator[StepValues]:
        """Yield the steps whose values can be read without stalling the device."""
        return self._read(keep=1 if self._under_way and self._under_way[-1].ready is not None else 0)

    def all(self) -> Iterator[StepValues]:
        """Yield all remaining steps, waiting for copies that are still in flight."""
        return self._read(keep=0)

    def _read(self, keep: int) -> Iterator[StepValues]:
        while len(self._under_way) > keep:
            sent = self._under_way.pop(0)
            if sent.ready is not None:
                sent.ready.synchronize()
            loss, stop, *norms = sent.values.tolist()
            yield StepValues(sent.step, sent.lr, loss, stop > 0, dict(zip(sent.names, norms, strict=True)))
