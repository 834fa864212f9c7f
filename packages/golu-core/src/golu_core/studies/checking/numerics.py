"""Checks of numbers: gradients, NaN, infinities, and rounding in each dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from .subject import Check, Failed, NotApplicable, Subject, same_numbers

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


def _rounding(dtype: torch.dtype, of_slope: bool) -> Check:
    def run(subject: Subject) -> str:
        points = finite_points(dtype)
        points = points[points.abs() <= _REACH]
        found, exact = (subject.along(given)[int(of_slope)] for given in (points, points.double()))
        if found.dtype is not dtype:
            raise Failed(f"{_short(dtype)} becomes {_short(found.dtype)}")
        off = (found.double() - exact).abs() / (torch.finfo(dtype).eps * exact.abs().clamp(min=1.0))
        worst = int(off.nan_to_num(torch.inf).argmax())
        name = "f'" if of_slope else "f"
        told = f"{float(off[worst]):.3g} of a rounding of max(1, |{name}|) at x = {float(points[worst]):.4g}"
        if not float(off[worst]) <= _ROUNDINGS:
            raise Failed(f"off by {told}")
        return f"worst error {told}"

    return Check(f"{'slope' if of_slope else 'rounding'} in {_short(dtype)}", run)


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


def _slope_far_out(subject: Subject) -> str:
    """Against central differences in float64, where gradcheck's few points do not lie."""
    points = torch.linspace(-_REACH, _REACH, 20_011, dtype=torch.float64) + 0.000137
    step = 1e-5
    _, slope = subject.along(points)
    after, before = (subject.along(points + shift)[0] for shift in (step, -step))
    difference = (after - before) / (2 * step)
    off = (slope - difference).abs() / difference.abs().clamp(min=1.0)
    worst = int(off.nan_to_num(torch.inf).argmax())
    at = float(points[worst])
    if not float(off[worst]) <= 1e-4:
        raise Failed(f"the slope at x = {at:.4g} is {float(slope[worst]):.4g}, not {float(difference[worst]):.4g}")
    return f"from {-_REACH:g} to {_REACH:g} against finite differences"


def _keeps_nan(subject: Subject) -> str:
    value, slope = subject.along(torch.tensor([torch.nan, 0.0]))
    if not value[0].isnan():
        raise Failed(f"f(NaN) is {float(value[0]):g}: a diverged run would look healthy")
    return f"with slope {float(slope[0]):g}"


def _passes_nan_gradients(subject: Subject) -> str:
    x = torch.linspace(0.5, 3, 32).reshape(4, 8).requires_grad_()
    y = subject.module()(x.clone())
    (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (found,) = torch.autograd.grad(y, x, torch.full_like(y, torch.nan))
    hidden = x.detach()[(slope != 0) & ~found.isnan()]
    if len(hidden):
        raise Failed(f"a NaN gradient becomes a number at x = {float(hidden[0]):.4g}: a diverged run would train on")
    return "a NaN gradient stays NaN"


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
        raise Failed("it writes into its input, which changes the input for every other reader")
    return "not written to"


def _repeats(subject: Subject) -> str:
    module = subject.module()
    x = torch.linspace(-3, 3, 32).reshape(4, 8)
    with torch.no_grad():
        if not torch.equal(module(x.clone()), module(x.clone())):
            raise Failed("two passes over the same input differ in evaluation mode")
    return "in evaluation mode"


def _trains_as_it_evaluates(subject: Subject) -> str:
    x = torch.linspace(-3, 3, 32).reshape(4, 8)
    with torch.no_grad():
        expected = subject.module()(x.clone())
        first, second = (subject.module().train()(x.clone()) for _ in range(2))
    if not torch.equal(first, second):
        raise NotApplicable("it is random in training mode")
    same_numbers(first, expected, "in training mode")
    return "the values of evaluation mode"


def _many_elements(subject: Subject) -> str:
    module, count = subject.module(), 2**20
    x = torch.linspace(-3, 3, count).reshape(-1, 8)

    def along(given: Tensor) -> tuple[Tensor, Tensor]:
        points = given.clone().requires_grad_()
        value = module(points.clone())
        return value.detach(), torch.autograd.grad(value.sum(), points)[0]

    pieces = [along(piece) for piece in x.split(512)]
    for part, (name, found) in enumerate(zip(("value", "slope"), along(x), strict=True)):
        same_numbers(found, torch.cat([piece[part] for piece in pieces]), f"{name} of {count:,} elements at once")
    return f"{count:,} elements as {len(pieces):,} pieces"


def _gradient_layouts(subject: Subject) -> str:
    x = torch.linspace(-3, 3, 32).reshape(4, 8).requires_grad_()
    y = subject.module()(x.clone())
    wide = torch.linspace(-1, 2, y.numel() * 2).reshape(*y.shape[:-1], -1)
    layouts = {
        "expanded": torch.linspace(-1, 2, y.shape[-1]).expand_as(y),
        "of one number, expanded": torch.tensor(0.7).expand_as(y),
        "part of a concatenation": wide[..., : y.shape[-1]],
        "transposed": torch.linspace(-1, 2, y.numel()).reshape(y.mT.shape).mT,
        "of every second column": wide[..., ::2],
    }
    dense = layouts["transposed"].contiguous()
    forth, back = (torch.autograd.grad(y, x, given, retain_graph=True)[0] for given in (dense, -dense))
    same_numbers(-back, forth, "with a gradient of the other sign")
    for name, gradient in layouts.items():
        found, expected = (
            torch.autograd.grad(y, x, given, retain_graph=True)[0] for given in (gradient, gradient.contiguous())
        )
        same_numbers(found, expected, f"with a gradient that is {name}")
    return ", ".join(layouts)


CHECKS = (
    _gradients(second=False),
    _gradients(second=True),
    Check("slope far out", _slope_far_out),
    *(_no_nan(dtype) for dtype in (SINGLE, HALF, BRAIN)),
    Check("NaN stays NaN", _keeps_nan),
    Check("NaN gradients", _passes_nan_gradients),
    Check("no NaN from infinities", _at_infinity),
    *(_rounding(dtype, of_slope) for of_slope in (False, True) for dtype in (SINGLE, HALF, BRAIN)),
    Check("layouts of gradients", _gradient_layouts),
    Check("a million elements", _many_elements),
    Check("input", _leaves_input),
    Check("repeatable", _repeats),
    Check("training mode", _trains_as_it_evaluates),
)
