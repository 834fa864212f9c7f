"""The three parameters of the Gompertz gate, checked once, with the range in which the gate still moves.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

SMALLEST, LARGEST = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class GompertzParameters:
    """`gate(x) = alpha * exp(-beta * exp(-gamma * x))`, with the gate 0 below `low` and alpha above `high`.

    `zero_below_single` and `zero_below_double` are where the gate of the compiled CPU kernels becomes 0.
    """

    alpha: float
    beta: float
    gamma: float
    low: float
    high: float
    zero_below_single: float
    zero_below_double: float


# decays whose exponential golu_cpu.c takes for 0: in the middle of those with a power of two one below the least normal
ZERO_DECAY_SINGLE, ZERO_DECAY_DOUBLE = 88.03, 709.1


def gate_range(beta: float, gamma: float) -> tuple[float, float]:
    """The x below which the gate is 0 and the x above which it is alpha, to the last bit of float64.

    There ln(beta) - gamma * x is 7 and -60. The numbers stand here and not as the module's, which TorchScript does not
    read, and which `torch.compile(dynamic=True)` takes for inputs.
    """
    shift = math.log(beta)
    return (shift - 7.0) / gamma, (shift + 60.0) / gamma


def check_parameter(name: str, value: float) -> float:
    """The value as a float; raises ValueError unless it is a number from 1e-6 to 1e6."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"GoLU's {name} must be a positive number, not {value!r}")
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(f"GoLU's {name} must be positive, from {SMALLEST:g} to {LARGEST:g}, not {value!r}")
    return float(value)


def gompertz_parameters(alpha: float, beta: float, gamma: float) -> GompertzParameters:
    """Checked parameters with their range; raises ValueError as `check_parameter` does."""
    try:
        return _checked_parameters(alpha, beta, gamma)
    except TypeError:  # an array or a list cannot be looked up in the cache, and is refused by name
        return _checked_parameters.__wrapped__(alpha, beta, gamma)


@lru_cache(maxsize=256, typed=True)
def _checked_parameters(alpha: float, beta: float, gamma: float) -> GompertzParameters:
    alpha, beta, gamma = (
        check_parameter(name, value) for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma))
    )
    zero_below = ((math.log(beta) - math.log(decay)) / gamma for decay in (ZERO_DECAY_SINGLE, ZERO_DECAY_DOUBLE))
    return GompertzParameters(alpha, beta, gamma, *gate_range(beta, gamma), *zero_below)
