"""Checks of numbers: gradients, NaN, infinities, and rounding in each dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from .subject import Check, Failed, Subject

SINGLE, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
_ROUNDINGS = 32.0
"""So many roundings off is called a failure: a chain of a dozen operations in the dtype itself stays below."""
_REACH = 30.0


def finite_points(dtype: torch.dtype) -> Tensor:
    """(n,) points of a dtype: all finite ones of a half type, else a grid of all magnitudes and a fine one around 0."""
    if dtype.itemsize == 2:
        points = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    else:
        magnitudes = torch.logspace(-45 if dtype is SINGLE else -300, 38 if dtype is SINGLE else 300, 4001, dtype=dtype)
        points = torch.cat([magnitudes, -magnitudes, torch.linspace(-_REACH, _REACH, 40_001, dtype=dtype)])
    return points[points.isfinite()]


def _no_nan(dtype: torch.dtype) -> Check:
    def run(subject: Subject) -> str:
        points = finite_points(dtype)
        value, slope = subject.along(points)
        for what, numbers in (("value", value), ("slope", slope)):
            bad = points[numbers.isnan()]
            if len(bad):
                first = float(bad[bad.abs().argmin()])
                raise Failed(
                    f"the {what} at x = {first:g} is NaN, as at {len(bad) - 1:,} more of {len(points):,} points"
                )
        return f"values and slopes at {len(points):,} points"

    return Check(f"no NaN from finite {_short(dtype)}", run)


def _rounding(dtype: torch.dtype) -> Check:
    def run(subject: Subject) -> str:
        points = finite_points(dtype)
        points = points[points.abs() <= _REACH]
        value, _ = subject.along(points)
        exact, _ = subject.along(points.double())
        off = (value.double() - exact).abs() / (torch.finfo(dtype).eps * exact.abs().clamp(min=1.0))
        worst = int(off.nan_to_num(torch.inf).argmax())
        said = f"{float(off[worst]):.3g} of a rounding of max(1, |f|) at x = {float(points[worst]):.4g}"
        if not float(off[worst]) <= _ROUNDINGS:
            raise Failed(f"off by {said}")
        return f"worst error {said}"

    return Check(f"rounding in {_short(dtype)}", run)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gradients(second: bool) -> Check:
    def run(subject: Subject) -> str:
        module = subject.module(torch.float64)
        x = (torch.linspace(-4, 4, 24, dtype=torch.float64) + 0.0137).reshape(3, 8).requires_grad_()  # at no corner
        names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        own = [module.get_parameter(name).detach().clone().requires_grad_() for name in names]

        def function(x: Tensor, *parameters: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x.clone(),))

        check = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
        check(function, (x, *own), fast_mode=False)
        return "against finite differences" + (f", of its {len(own)} parameters too" if own else "")

    return Check("gradcheck of the second order" if second else "gradcheck", run)


def _keeps_nan(subject: Subject) -> str:
    value, slope = subject.along(torch.tensor([torch.nan, 0.0]))
    if not value[0].isnan():
        raise Failed(f"f(NaN) is {float(value[0]):g}: a run that broke would look sound")
    return f"with slope {float(slope[0]):g}"


def _at_infinity(subject: Subject) -> str:
    value, slope = subject.along(torch.tensor([-torch.inf, torch.inf]))
    said = f"f(-inf) = {float(value[0]):g}, f(inf) = {float(value[1]):g}"
    if value.isnan().any() or slope.isnan().any():
        raise Failed(f"{said}, with slopes {float(slope[0]):g} and {float(slope[1]):g}")
    return said


def _leaves_input(subject: Subject) -> str:
    x = torch.linspace(-3, 3, 32).reshape(4, 8)
    kept = x.clone()
    with torch.no_grad():
        subject.module()(x)
    if not torch.equal(x, kept):
        raise Failed("it writes into its input, so that what else reads that gets other numbers")
    return "not written to"


def _repeats(subject: Subject) -> str:
    module = subject.module()
    x = torch.linspace(-3, 3, 32).reshape(4, 8)
    with torch.no_grad():
        if not torch.equal(module(x.clone()), module(x.clone())):
            raise Failed("two passes over the same input differ in evaluation mode")
    return "in evaluation mode"


CHECKS = (
    _gradients(second=False),
    _gradients(second=True),
    *(_no_nan(dtype) for dtype in (SINGLE, HALF, BRAIN)),
    Check("NaN stays NaN", _keeps_nan),
    Check("no NaN from infinities", _at_infinity),
    *(_rounding(dtype) for dtype in (SINGLE, HALF, BRAIN)),
    Check("input", _leaves_input),
    Check("repeatable", _repeats),
)
