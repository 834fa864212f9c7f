"""The three parameters of the Gompertz gate, checked once, with the range in which the gate still moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

SMALLEST, LARGEST = 1e-6, 1e6

_REACH = 60.0
"""Where `|ln(beta) - gamma * x|` passes this, the gate is 0 or alpha to the last bit, even in float64."""


@dataclass(frozen=True, slots=True)
class GompertzParameters:
    """`gate(x) = alpha * exp(-beta * exp(-gamma * x))`, with the gate 0 below `low` and alpha above `high`."""

    alpha: float
    beta: float
    gamma: float
    low: float
    high: float


def gate_range(beta: float, gamma: float) -> tuple[float, float]:
    """The x below which the gate is 0 and the x above which it is alpha, to the last bit of float64."""
    shift = math.log(beta)
    return (shift - _REACH) / gamma, (shift + _REACH) / gamma


def check_parameter(name: str, value: float) -> float:
    """The value as a float; raises ValueError unless it is a number from 1e-6 to 1e6."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"GoLU's {name} must be a positive number, not {value!r}")
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(f"GoLU's {name} must be positive, from {SMALLEST:g} to {LARGEST:g}, not {value!r}")
    return float(value)


@lru_cache(maxsize=256, typed=True)
def gompertz_parameters(alpha: float, beta: float, gamma: float) -> GompertzParameters:
    """Checked parameters with their range; raises ValueError as `check_parameter` does."""
    alpha, beta, gamma = (
        check_parameter(name, value) for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma))
    )
    return GompertzParameters(alpha, beta, gamma, *gate_range(beta, gamma))
