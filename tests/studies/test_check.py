"""`golu-core check`: each check passes what is sound and finds what is broken; cards of built-in activations."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from golu_core import cli
from golu_core.activation import ACTIVATIONS, load_activation
from golu_core.activation.names.loading import FunctionActivation, LoadedActivation
from golu_core.studies import check
from golu_core.studies.checking import numerics, shape, support
from golu_core.studies.checking.subject import Subject, outcome_of

CHECKS = {one.name: one for one in (*numerics.CHECKS, *support.CHECKS)}
LONG = {"torch.compile", "torch.export", "ONNX"}
QUICK = [name for name in CHECKS if name not in LONG]
QUICK_OF_NUMBERS = [one.name for one in (*numerics.CHECKS, *support.CHECKS[:1])]


class Wrong(torch.autograd.Function):
    """A slope that is twice what it should be, and none of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * gradient * (1 - torch.tanh(x) ** 2)


class OnceOnly(Wrong):
    """The right slope, that has no slope."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (1 - torch.tanh(x) ** 2)


class Unpicklable(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = lambda x: x

    def forward(self, x):
        return self.function(x)


class NewEachTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("one", torch.ones(int(torch.randint(1, 1_000_000, ()))))

    def forward(self, x):
        return x * self.one[0]


def _by_value(x):
    return x * 2 if float(x.detach().sum()) > 0 else x


def _not_contiguous(x):
    return x if x.is_contiguous() else x + 1


def _noisy(x):
    return x + 0.1 * torch.rand_like(x)


def _in_place(x):
    return x.mul_(2.0)


def _on_cpu(x):
    return x + torch.zeros(()).to("cpu") if x.device.type == "cpu" else x.to("cpu")


class Planted(torch.autograd.Function):
    """x tanh(x), with a fault in its values or slopes.

    Attributes:
        value, slope: change what is right, given it and the input.
        given: changes the gradient of the output.
    """

    value = staticmethod(lambda y, x: y)
    slope = staticmethod(lambda s, x: s)
    given = staticmethod(lambda gradient: gradient)

    @classmethod
    def forward(cls, ctx, x):
        ctx.save_for_backward(x)
        return cls.value(x * torch.tanh(x), x)

    @classmethod
    def backward(cls, ctx, gradient):
        (x,) = ctx.saved_tensors
        t = torch.tanh(x)
        return cls.given(gradient) * cls.slope(t + x * (1 - t * t), x)


def planted(**parts):
    return type("Faulty", (Planted,), {name: staticmethod(part) for name, part in parts.items()}).apply


class OtherInTraining(nn.Module):
    def forward(self, x):
        return torch.tanh(x) * (1.01 if self.training else 1.0)


def _as_if_dense(gradient):
    """What a kernel reads that takes a pointer and forgets the strides."""
    flat = gradient.as_strided(
        (min(gradient.untyped_storage().nbytes() // gradient.element_size(), gradient.numel()),), (1,), 0
    )
    return flat.repeat(-(-gradient.numel() // flat.numel()))[: gradient.numel()].reshape(gradient.shape)


FAULTS = {
    "slope 1.5 times too large in float32": planted(slope=lambda s, x: s * (1.5 if x.dtype is torch.float32 else 1)),
    "slope a tenth too large in float16": planted(slope=lambda s, x: s * (1.1 if x.dtype is torch.float16 else 1)),
    "slope 0 beyond 6": planted(slope=lambda s, x: torch.where(x > 6, 0, s)),
    "slope 0 below -6 in float32": planted(
        slope=lambda s, x: torch.where(x < -6, 0, s) if x.dtype is torch.float32 else s
    ),
    "slope rounded to half": planted(slope=lambda s, x: s.half().to(x.dtype) if x.dtype is torch.float32 else s),
    "slope of the other sign below 0": planted(slope=lambda s, x: torch.where(x < 0, -s, s)),
    "slope forgets the gradient": planted(given=torch.ones_like),
    "slope of the absolute gradient": planted(given=torch.abs),
    "NaN gradients become 0": planted(given=torch.nan_to_num),
    "gradients are read without strides": planted(given=_as_if_dense),
    "only the first gradient is read": planted(given=lambda g: g.flatten()[:1].expand_as(g) if g.numel() else g),
    "wrong slope above 200,000 elements": planted(slope=lambda s, x: s * 2 if x.numel() > 200_000 else s),
    "wrong values above 200,000 elements": planted(value=lambda y, x: y + 1 if x.numel() > 200_000 else y),
    "values off by a thousandth in float32": planted(value=lambda y, x: y + 1e-3 * (x.dtype is torch.float32)),
    "values rounded to half": planted(value=lambda y, x: y.half().to(x.dtype) if x.dtype is torch.float32 else y),
    "values cut off at 10 in half": planted(value=lambda y, x: y.clamp(max=10) if x.dtype is torch.float16 else y),
    "half inputs give float32": planted(value=lambda y, x: y.float() if x.dtype.itemsize == 2 else y),
    "NaN becomes 0": planted(value=lambda y, x: torch.nan_to_num(y)),
    "noise": planted(value=lambda y, x: y + 0.01 * torch.rand_like(y)),
    "rows in the other order where strided": planted(value=lambda y, x: y if x.is_contiguous() else y.flip(0)),
    "other values in training": OtherInTraining,
    "writes into its input": _in_place,
}
SOUND = {
    "planted without a fault": planted(),
    "ReLU": nn.ReLU,
    "a kink at 1": lambda x: torch.where(x > 1, 2 * x - 1, x),
    "composed": lambda x: x * torch.tanh(torch.nn.functional.softplus(x)),
    "leaky": lambda x: torch.nn.functional.leaky_relu(x, 0.3),
    "random in training": nn.RReLU,
}


def failed_by(found) -> set[str]:
    """The checks of numbers that an activation fails."""
    found = [outcome_of(CHECKS[name], subject_of(found)) for name in QUICK_OF_NUMBERS]
    return {line.name for line in found if line.outcome == "fail"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    assert failed_by(FAULTS[name]) - failed_by(planted())


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_passes(name):
    """But for what torch's own functions fail as well: numbers at infinities, and the second order at a kink."""
    assert failed_by(SOUND[name]) <= {"no NaN from infinities", "gradcheck of the second order"}


BROKEN = {
    "gradcheck": Wrong.apply,
    "gradcheck of the second order": OnceOnly.apply,
    "no NaN from finite float32": lambda x: x * torch.exp(x.square()) * torch.exp(-x.square()),
    "no NaN from finite float16": lambda x: x * torch.exp(x) * torch.exp(-x),
    "no NaN from finite bfloat16": lambda x: x * torch.exp(x) * torch.exp(-x),
    "NaN stays NaN": lambda x: torch.nan_to_num(x),
    "no NaN from infinities": lambda x: x * torch.sigmoid(x),
    "rounding in float32": lambda x: (x + 1e4) - 1e4,
    "rounding in float16": lambda x: (x + 1e3) - 1e3,
    "rounding in bfloat16": lambda x: (x + 1e3) - 1e3,
    "slope far out": FAULTS["slope 0 beyond 6"],
    "slope in float32": FAULTS["slope 1.5 times too large in float32"],
    "slope in float16": FAULTS["slope a tenth too large in float16"],
    "slope in bfloat16": planted(slope=lambda s, x: s * (1.5 if x.dtype is torch.bfloat16 else 1)),
    "NaN gradients": FAULTS["NaN gradients become 0"],
    "layouts of gradients": FAULTS["gradients are read without strides"],
    "a million elements": FAULTS["wrong slope above 200,000 elements"],
    "training mode": OtherInTraining,
    "input": _in_place,
    "repeatable": _noisy,
    "layouts": _not_contiguous,
    "no elements": lambda x: x - x.detach().max() * 0,
    "autocast": lambda x: x.float() * (2.0 if x.dtype is torch.bfloat16 else 1.0),
    "torch.func.vmap": _by_value,
    "torch.func.grad": Wrong.apply,
    "torch.func.jvp": Wrong.apply,
    "torch.compile": _by_value,
    "torch.export": _by_value,
    "ONNX": _by_value,
    "meta device": _on_cpu,
    "copies": Unpicklable,
    "state dict": NewEachTime,
}


def subject_of(found, name="broken") -> Subject:
    build = found if isinstance(found, type) else lambda: FunctionActivation(found, {})
    return Subject(LoadedActivation(name, "", build), True)


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "GPU"])
def test_each_check_finds_what_is_broken(name):
    line = outcome_of(CHECKS[name], subject_of(BROKEN[name]))
    assert line.outcome == "fail" and line.detail and len(line.detail) < 250


def test_the_smallest_case_is_named():
    line = outcome_of(CHECKS["no NaN from finite float16"], subject_of(BROKEN["no NaN from finite float16"]))
    points = numerics.finite_points(torch.float16)
    bad = points[(points * torch.exp(points) * torch.exp(-points)).isnan()]
    assert f"x = {float(bad[bad.abs().argmin()]):g} is NaN" in line.detail


@pytest.mark.parametrize("name", ["golu", "golu(alpha=2, beta=0.5, gamma=1.5)"])
@pytest.mark.parametrize("check_name", QUICK)
def test_golu_passes(name, check_name):
    line = outcome_of(CHECKS[check_name], Subject.of(load_activation(name)))
    assert line.outcome in ("pass", "not applicable") and (line.outcome == "pass" or check_name == "GPU"), line.detail


@pytest.mark.slow
@pytest.mark.parametrize("name", ["golu(beta=0.5)", *ACTIVATIONS])
def test_built_in_activations_compile_and_are_exported(name):
    for check_name in LONG:
        line = outcome_of(CHECKS[check_name], Subject.of(load_activation(name)))
        assert line.outcome == "pass" or (name, check_name) in NOT_EXPORTED, (check_name, line.detail)


NOT_EXPORTED: set[tuple[str, str]] = set()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_cards_of_built_in_activations(name):
    """No check fails but where torch's own numbers are NaN: at infinities, and tanh's GELU far out."""
    subject = Subject.of(load_activation(name))
    failed = {check_name for check_name in QUICK if outcome_of(CHECKS[check_name], subject).outcome == "fail"}
    known = {"no NaN from infinities"}
    if name == "gelu_tanh":
        known |= {"no NaN from finite float32", "no NaN from finite bfloat16"}
    assert failed <= known
    assert subject.is_elementwise
    facts = dict(shape.facts_of(subject))
    assert {"values", "slopes", "zeros", "normal input", "gain that keeps the variance"} <= set(facts)


def test_facts_that_are_known():
    facts = dict(shape.facts_of(Subject.of(load_activation("relu"))))
    assert facts["zeros"] == "−20 to 0" and "it rises" in facts["from -20 to 20"]
    assert facts["gain that keeps the variance"].startswith("1.414 forward, 1.414 backward")
    facts = dict(shape.facts_of(Subject.of(load_activation("golu"))))
    assert "neither rises nor falls" in facts["from -20 to 20"] and "lowest −0.09" in facts["from -20 to 20"]
    assert facts["steepest"].startswith("1.113")


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (nn.ReLU, (1, 4.0)),
        (nn.GELU, (1, 4.0)),
        (nn.Identity, (0, 0.0)),
        (lambda: load_activation("golu").build(), (1, 4.0)),
    ],
)
def test_what_is_kept_for_backward(found, kept):
    assert support.saved_for_backward(LoadedActivation("x", "", found)) == kept


def test_what_mixes_elements_is_told():
    subject = Subject.of(load_activation("torch.nn.Softmax(dim=-1)"))
    assert not subject.is_elementwise
    line = outcome_of(CHECKS["rounding in float32"], subject)
    assert line.outcome == "not applicable" and "mixes elements" in line.detail
    assert shape.figure_of(subject) is None and shape.facts_of(subject)[0][0] == "shape"


@pytest.mark.parametrize(
    ("spec", "status"), [("golu(beta=0.5)", 0), ("torch.nn.SiLU", 1), ("golo", 2), ("torch.nn.GLU", 2)]
)
def test_the_command(spec, status, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(support, "CHECKS", [one for one in support.CHECKS if one.name not in LONG])
    monkeypatch.setattr(check, "microseconds", lambda loaded, device: {loaded.text: {"forward": 1.0, "backward": 2.0}})
    assert cli.main(["check", spec, "--out", str(tmp_path / "card")]) == status
    printed = capsys.readouterr()
    if status == 2:
        assert len(printed.err.strip().splitlines()) == 1 and not (tmp_path / "card").exists()
        return
    card = json.loads((tmp_path / "card" / "check.json").read_text())
    failed = [line["name"] for line in card["checks"] if line["outcome"] == "fail"]
    assert bool(failed) == (status == 1) and f"{len(failed)} failed" in printed.out
    assert (
        card["activation"] == load_activation(spec).text and card["microseconds"][card["activation"]]["backward"] == 2
    )
    page = (tmp_path / "card" / "check.html").read_text()
    assert (
        "<svg" in page
        and all(line["name"] in page for line in card["checks"])
        and "http" not in page.replace("www.w3.org", "").split("<svg")[0]
    )


@pytest.mark.slow
def test_the_whole_card_of_golu(tmp_path, capsys):
    assert cli.main(["check", "golu", "--out", str(tmp_path / "card")]) == 0
    assert "speed of mish" in capsys.readouterr().out


def test_the_list_of_activations(capsys):
    assert cli.main(["activations"]) == 0
    printed = capsys.readouterr().out
    assert all(any(line.split()[0] == name for line in printed.splitlines() if line) for name in ACTIVATIONS)
    assert "alpha=1, beta=1, gamma=1" in printed
