"""Losses on their way from the device: looked at as soon as they are there, without making the device wait."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepValues:
    """What one optimizer step gave.

    Attributes:
        step: counted from 1.
        lr: its learning rate.
        loss: mean over the step's samples.
        stop: whether a process was asked to stop.
        norms: of gradient, weights and update, where this step's are logged.
    """

    step: int
    lr: float
    loss: float
    stop: bool
    norms: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether training may go on."""
        return math.isfinite(self.loss)


@dataclass(frozen=True)
class _UnderWay:
    step: int
    lr: float
    names: tuple[str, ...]
    values: Tensor
    ready: torch.cuda.Event | None


class LossWatch:
    """The steps whose loss was computed and not yet read.

    On a GPU reading at once would make it wait for the host in every step, so that one step's loss stays under way
    while the next is computed. Elsewhere nothing stays.
    """

    def __init__(self) -> None:
        self._under_way: list[_UnderWay] = []

    def send(self, step: int, lr: float, loss: Tensor, stop: Tensor, norms: Mapping[str, Tensor]) -> None:
        """Sends a step's values on their way to the host.

        Args:
            step: counted from 1.
            lr: its learning rate.
            loss, stop: scalars on the device; `stop` is above 0 if a process was asked to.
            norms: scalars by name.
        """
        values = torch.stack([loss.float(), stop.float(), *(norm.float() for norm in norms.values())])
        ready = None
        if values.device.type == "cuda":
            values = values.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._under_way.append(_UnderWay(step, lr, tuple(norms), values, ready))

    def arrived(self) -> Iterator[StepValues]:
        """The steps whose values need not be waited for."""
        return self._read(keep=1 if self._under_way and self._under_way[-1].ready is not None else 0)

    def all(self) -> Iterator[StepValues]:
        """All steps, waiting for those under way."""
        return self._read(keep=0)

    def _read(self, keep: int) -> Iterator[StepValues]:
        while len(self._under_way) > keep:
            sent = self._under_way.pop(0)
            if sent.ready is not None:
                sent.ready.synchronize()
            loss, stop, *norms = sent.values.tolist()
            yield StepValues(sent.step, sent.lr, loss, stop > 0, dict(zip(sent.names, norms, strict=True)))
