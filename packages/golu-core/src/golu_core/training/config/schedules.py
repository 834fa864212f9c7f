"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..messages.errors import RequestError
from .fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

_Per = Literal["epoch", "step"]
_Then = Literal["begins", "goes_on", "begins_whole"]


@dataclass(frozen=True)
class EpochWarmup:
    """A linear warm-up whose length is in epochs.

    The rate at the fraction t of the warm-up is start + (base - start) * t, with start = `start_lr` + `start_factor` *
    base.

    Attributes:
        epochs: Length in epochs.
        start_lr: Learning rate of the first step; `start_factor` times the base rate is added.
        start_factor: Share of the base rate in the first step.
        then: A schedule that changes with time `begins` after the warm-up and lasts for the rest of the run (torch's
            SequentialLR); or it `goes_on` from where it would be without a warm-up (timm); or it `begins_whole`: it is
            as long as the whole run, and its end is cut off.

    Examples:
        >>> from golu_core.training import Cosine, EpochWarmup
        >>> Cosine(warmup=EpochWarmup(epochs=5, start_factor=0.01)).warmup.then
        'begins'
    """

    kind: ClassVar[str] = "epochs"
    epochs: PositiveFloat = 5.0
    start_lr: NonNegativeFloat = 0.0
    start_factor: NonNegativeFloat = 0.0
    then: _Then = "begins"


@dataclass(frozen=True)
class StepWarmup:
    """A linear warm-up whose length is in optimizer steps; the rates are those of `EpochWarmup`.

    Attributes:
        steps: Length in optimizer steps.
        start_lr: Learning rate of the first step; `start_factor` times the base rate is added.
        start_factor: Share of the base rate in the first step.
        then: As in `EpochWarmup`: `begins`, `goes_on` or `begins_whole`.
        within_epoch: End the warm-up one step before the first epoch ends, if that is earlier (torchvision's reference
            for detection).

    Examples:
        >>> from golu_core.training import Constant, StepWarmup
        >>> Constant(warmup=StepWarmup(steps=500, start_factor=0.001)).warmup.steps
        500
    """

    kind: ClassVar[str] = "steps"
    steps: PositiveInt = 1000
    start_lr: NonNegativeFloat = 0.0
    start_factor: NonNegativeFloat = 0.0
    then: _Then = "begins"
    within_epoch: bool = False


Warmup = EpochWarmup | StepWarmup | None


@dataclass(frozen=True)
class Constant:
    """The base learning rate throughout.

    Attributes:
        warmup: The warm-up before it; None has none.

    Examples:
        >>> from golu_core.training import Constant, EpochConfig
        >>> EpochConfig().schedule == Constant(warmup=None)
        True
    """

    kind: ClassVar[str] = "constant"
    warmup: Warmup = None

    def check(self, flag: str) -> None:
        _check_then(self.warmup, ("begins",), flag)


@dataclass(frozen=True)
class Milestones:
    """The rate times a factor at each milestone.

    Attributes:
        milestones: Epochs at which the rate changes.
        factors: Factor at each milestone, or one for all.
    """

    kind: ClassVar[str] = "milestones"
    milestones: tuple[NonNegativeInt, ...] = (30, 60)
    factors: tuple[PositiveFloat, ...] = (0.1,)
    warmup: Warmup = None

    def check(self, flag: str) -> None:
        _check_then(self.warmup, ("begins",), flag)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise RequestError(f"{flag}.milestones must increase, but are {' '.join(map(str, self.milestones))}")
        if len(self.factors) not in (1, len(self.milestones)):
            raise RequestError(
                f"{flag}.factors must be one for each of the {len(self.milestones)} milestones, or one for all, "
                f"but there are {len(self.factors)}"
            )


@dataclass(frozen=True)
class ExponentialDecay:
    """The rate times a factor again and again.

    Attributes:
        factor: Factor of each decay.
        every: Epochs between two decays.
        per: How often the rate changes; `epoch` holds it for an epoch.
    """

    kind: ClassVar[str] = "decay"
    factor: PositiveFloat = 0.97
    every: PositiveFloat = 2.4
    per: _Per = "epoch"
    warmup: Warmup = None

    def check(self, flag: str) -> None:
        _check_then(self.warmup, ("begins", "goes_on"), flag)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the base rate to the final one (Loshchilov and Hutter, ICLR 2017, equation 5, no restarts).

    The rate at the fraction t of the run is final + (base - final) * (1 + cos(pi * t)) / 2.

    Attributes:
        final_lr: Learning rate at the end of the run.
        per: How often the rate changes; `epoch` holds it for an epoch.
        warmup: The warm-up before it; None has none.

    Examples:
        >>> from golu_core.training import Cosine, EpochWarmup
        >>> schedule = Cosine(final_lr=1e-6, per="step", warmup=EpochWarmup(epochs=5))
        >>> schedule.warmup.epochs
        5
    """

    kind: ClassVar[str] = "cosine"
    final_lr: NonNegativeFloat = 0.0
    per: _Per = "epoch"
    warmup: Warmup = None


@dataclass(frozen=True)
class Polynomial:
    """The base rate times (1 - progress) ^ power.

    Attributes:
        power: Power of the remaining share of the run; 1 is a straight line to 0.
        per: How often the rate changes; `epoch` holds it for an epoch.
    """

    kind: ClassVar[str] = "poly"
    power: PositiveFloat = 0.9
    per: _Per = "step"
    warmup: Warmup = None


@dataclass(frozen=True)
class InverseSquareRoot:
    """The base rate times sqrt(warm-up / step) after a warm-up, without an end (Vaswani et al., 2017, equation 3).

    Attributes:
        warmup: Its length is the schedule's unit of time; the first rate is fairseq's.
    """

    kind: ClassVar[str] = "inverse_sqrt"
    warmup: StepWarmup = StepWarmup(steps=4000, start_lr=1e-7)

    def check(self, flag: str) -> None:
        _check_then(self.warmup, ("begins",), flag)
        if self.warmup.within_epoch:
            raise RequestError(
                f"{flag}.warmup.within-epoch would also change the rates after the warm-up: leave it out"
            )


Schedule = Constant | Milestones | ExponentialDecay | Cosine | Polynomial | InverseSquareRoot


def _check_then(warmup: Warmup, possible: tuple[str, ...], flag: str) -> None:
    if warmup is not None and warmup.then not in possible:
        raise RequestError(f"{flag}.warmup.then {warmup.then} has no effect on this schedule")


def check_steps_only(schedule: Schedule) -> None:
    """Raise RequestError if a schedule uses epochs in a task that has none."""
    if isinstance(schedule.warmup, EpochWarmup):
        raise RequestError("this task counts steps and has no epochs: pass --schedule.warmup.steps instead")
    if isinstance(schedule, (Milestones, ExponentialDecay)):
        raise RequestError(
            f"this task counts steps and has no epochs: --schedule {schedule.kind} is impossible; "
            f"use constant, cosine, poly or inverse-sqrt"
        )
    if getattr(schedule, "per", "step") == "epoch":
        raise RequestError("this task counts steps and has no epochs: --schedule.per must be step")


def learning_rate(schedule: Schedule, base_lr: float, step: int, steps_per_epoch: int, epochs: float) -> float:
    """The learning rate of optimizer step `step`, counted from 0, in a run planned for `epochs`.

    A warm-up is linear in steps, or in epochs where its length is in epochs and the rate changes once an epoch; it goes
    from its own rate at the first to the base rate at the first step after it.
    """
    per_epoch = getattr(schedule, "per", "step") == "epoch"
    exact, held = step / steps_per_epoch, float(step // steps_per_epoch)
    time = held if per_epoch else exact
    warmup, warmup_epochs = schedule.warmup, _warmup_epochs(schedule.warmup, steps_per_epoch)
    if warmup is not None:
        warmup_time = exact if isinstance(warmup, StepWarmup) else time
        if warmup_time < warmup_epochs:
            start = warmup.start_lr + warmup.start_factor * base_lr
            return start + (base_lr - start) * warmup_time / warmup_epochs
    if isinstance(schedule, Constant):
        return base_lr
    if isinstance(schedule, InverseSquareRoot):
        return base_lr * math.sqrt(schedule.warmup.steps / step)
    if isinstance(schedule, Milestones):
        factors = schedule.factors if len(schedule.factors) > 1 else schedule.factors * len(schedule.milestones)
        passed = [factor for m, factor in zip(schedule.milestones, factors, strict=True) if time >= m]
        return base_lr * math.prod(passed)
    then = "begins" if warmup is None else warmup.then
    offset = 0.0 if then == "goes_on" else warmup_epochs
    if isinstance(schedule, ExponentialDecay):
        # a hair above: 2.4 * k is not exact in binary
        return base_lr * schedule.factor ** math.floor((time - offset) / schedule.every + 1e-9)
    end = epochs + warmup_epochs if then == "begins_whole" else epochs
    progress = min(1.0, max(0.0, time - offset) / (end - offset))
    if isinstance(schedule, Polynomial):
        return base_lr * (1 - progress) ** schedule.power
    return schedule.final_lr + (base_lr - schedule.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def _warmup_epochs(warmup: Warmup, steps_per_epoch: int) -> float:
    if warmup is None:
        return 0.0
    if isinstance(warmup, EpochWarmup):
        return warmup.epochs
    steps = min(warmup.steps, max(steps_per_epoch - 1, 1)) if warmup.within_epoch else warmup.steps
    return steps / steps_per_epoch
