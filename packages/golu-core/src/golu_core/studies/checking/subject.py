"""What is checked, and how a check ends."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from golu_core.activation.names.loading import LoadedActivation

_LONGEST = 120
Outcome = Literal["pass", "fail", "not applicable"]


class Failed(Exception):
    """A check failed; the text is the smallest case that fails."""


class NotApplicable(Exception):
    """A check says nothing here; the text is why."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without what compilers, exporters and imports print on the way."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@dataclass(frozen=True)
class Subject:
    """An activation that is checked.

    Attributes:
        loaded: The result of `load_activation`.
        is_elementwise: Whether each output depends only on the input at the same index.
    """

    loaded: LoadedActivation
    is_elementwise: bool

    @classmethod
    def of(cls, loaded: LoadedActivation) -> Subject:
        """The subject; two small passes tell whether it works element by element."""
        module = loaded.build().eval()
        x = torch.linspace(-3, 3, 144).reshape(2, 8, 3, 3)
        changed = x.clone()
        changed[0, 0, 0, 0] += 0.5
        with torch.no_grad():
            differs = module(x.clone()) != module(changed)
        return cls(loaded, int(differs.sum()) <= 1)

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A new module in evaluation mode."""
        return self.loaded.build().to(dtype).eval()

    def along(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes at points (N,), each in the points' dtype; NotApplicable if it mixes elements."""
        if not self.is_elementwise:
            raise NotApplicable("it mixes elements, so it is not elementwise")
        points = x.clone().requires_grad_()
        value = self.module(x.dtype)(points.clone())
        (slope,) = torch.autograd.grad(value.sum(), points)
        return value.detach(), slope


def same_numbers(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Raises Failed where two tensors of any shape differ by more than a share of the largest number, at least 1."""
    if found.shape != expected.shape:
        raise Failed(f"{what}: shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    off = (found.double() - expected.double()).abs().max().item() if found.numel() else 0.0
    if not off <= tolerance * max(1.0, expected.double().abs().max().item() if found.numel() else 1.0):
        raise Failed(f"{what}: off by {off:.3g}")


@dataclass(frozen=True)
class Check:
    """One line of the card.

    Attributes:
        name: The name of the line.
        run: gives what is said when it passes; raises Failed or NotApplicable.
    """

    name: str
    run: Callable[[Subject], str]


@dataclass(frozen=True)
class CheckOutcome:
    """How a check ended."""

    name: str
    outcome: Outcome
    detail: str


def outcome_of(check: Check, subject: Subject) -> CheckOutcome:
    """Runs a check; whatever it raises is a failure of what is checked."""
    try:
        return CheckOutcome(check.name, "pass", check.run(subject))
    except NotApplicable as reason:
        return CheckOutcome(check.name, "not applicable", str(reason))
    except Failed as failure:
        return CheckOutcome(check.name, "fail", str(failure))
    except Exception as error:  # somebody else's code
        first = str(error).strip().partition("\n")[0]
        return CheckOutcome(check.name, "fail", f"{type(error).__name__}: {first[:_LONGEST]}")
