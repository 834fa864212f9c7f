"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule; times are in epochs, and fractions of an epoch are whole steps.

    Attributes:
        kind: `constant`; `steps`, times `factor` at each milestone; `decay`, times `factor` every `every` epochs,
            counted in whole epochs or steps; `cosine` from the base rate to `final_lr`; `poly`, the base rate times
            (1 - progress) ^ `power`.
        milestones: epochs of `steps`.
        factor: multiplier of `steps` and `decay`.
        factors: a multiplier of its own for each milestone, instead of `factor`.
        every: epochs between decays.
        final_lr: the cosine's end.
        power: of `poly`.
        warmup_epochs: length of the linear warm-up.
        warmup_lr: learning rate of the first step, plus
        warmup_factor: times the base rate.
        warmup_counts: whether the schedule behind the warm-up is at the place it would have without warm-up (timm), or
            begins there (torch's SequentialLR).
        per: how often the rate changes; `epoch` holds it for an epoch.
    """

    kind: Literal["constant", "steps", "decay", "cosine", "poly"] = "constant"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    factors: tuple[float, ...] = ()
    every: float = 1.0
    final_lr: float = 0.0
    power: float = 0.9
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    warmup_factor: float = 0.0
    warmup_counts: bool = False
    per: Literal["epoch", "step"] = "epoch"


def learning_rate(schedule: Schedule, base_lr: float, step: int, steps_per_epoch: int, epochs: float) -> float:
    """The learning rate of optimizer step `step`, counted from 0, in a run planned for `epochs`.

    Warm-up is linear in steps or epochs, from its own rate at the first to the base rate at the first step behind it.
    """
    time = float(step // steps_per_epoch) if schedule.per == "epoch" else step / steps_per_epoch
    if time < schedule.warmup_epochs:
        start = schedule.warmup_lr + schedule.warmup_factor * base_lr
        return start + (base_lr - start) * time / schedule.warmup_epochs
    if schedule.kind == "constant":
        return base_lr
    if schedule.kind == "steps":
        factors = schedule.factors or (schedule.factor,) * len(schedule.milestones)
        passed = [factor for m, factor in zip(schedule.milestones, factors, strict=True) if time >= m]
        return base_lr * math.prod(passed)
    offset = 0.0 if schedule.warmup_counts else schedule.warmup_epochs
    if schedule.kind == "decay":
        # a hair above: 2.4 * k is not exact in binary
        return base_lr * schedule.factor ** math.floor((time - offset) / schedule.every + 1e-9)
    progress = min(1.0, (time - offset) / (epochs - offset))
    if schedule.kind == "poly":
        return base_lr * (1 - progress) ** schedule.power
    return schedule.final_lr + (base_lr - schedule.final_lr) * (1 + math.cos(math.pi * progress)) / 2
