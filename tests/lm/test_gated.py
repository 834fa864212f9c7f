"""`--model.mlp gated`: the form of today's language models, with as many parameters as the plain one."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from command_line import runner_in_this_process
from golu_core.activation import ACTIVATIONS, build_activation, golu
from golu_core.training.config.identity import config_sha256, identity
from golu_core.training.messages.errors import RequestError
from golu_lm.cli import COMMAND_LINE
from golu_lm.config import Model
from golu_lm.hugging_face import to_hugging_face
from golu_lm.model import GPT, Mlp
from golu_lm.recipes import RECIPES

SMALL = Model(layers=2, heads=2, width=48, context=16, vocabulary=64, dropout=0.0, bias=False, mlp="gated")


@pytest.mark.parametrize("name", RECIPES)
def test_as_many_parameters(name):
    """Of the recipes within 0.5 % of the whole model, biases or not; the recipes' widths even divide by 3."""
    sizes = RECIPES[name].model
    with torch.device("meta"):
        counts = [
            sum(parameter.numel() for parameter in GPT(replace(sizes, mlp=mlp), "golu").parameters())
            for mlp in ("plain", "gated")
        ]
    assert counts[1] == pytest.approx(counts[0], rel=0.005)


@pytest.mark.parametrize("width", [64, 100, 128, 200, 256, 500, 1000, 1600])
def test_hidden_width_of_any_width(width):
    sizes = Model(width=width, heads=1, mlp="gated")
    assert sizes.hidden % 8 == 0 and abs(3 * sizes.hidden * width / (8 * width**2) - 1) <= 4 / (8 * width / 3) + 1e-9


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_it_is_the_plain_formula(name):
    """Value and all gradients, against the formula of Shazeer's paper with three matrices."""
    torch.manual_seed(0)
    mlp = Mlp(SMALL, name).double()
    x = torch.randn(2, 5, 48, dtype=torch.float64, requires_grad=True)
    gate, up = mlp.c_fc.weight.detach().chunk(2)
    act = build_activation(name).double()
    expected = nn.functional.linear(act(x @ gate.T) * (x @ up.T), mlp.c_proj.weight)
    found = mlp(x)
    assert torch.allclose(found, expected, atol=1e-12)
    one, two = (torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected))
    assert torch.allclose(one, two, atol=1e-10)


def test_golu_keeps_two_tensors():
    """Of the product; its formula by itself would keep the activation's output, too."""
    x = torch.randn(64, 96)

    def kept(function):
        leaf = x.clone().requires_grad_()
        halves = leaf.chunk(2, -1)
        found: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t.numel()) or t, lambda t: t):
            function(*halves)
        return len(found)

    assert kept(build_activation("golu")) == 2
    assert kept(lambda a, b: golu(a) * b) == 3
    assert kept(lambda a, b: a * torch.exp(-torch.exp(-a)) * b) >= 4


def test_the_default_is_no_part_of_old_runs_identity():
    plain = RECIPES["babygpt-pydocs"]
    assert (
        "model.mlp" not in identity(plain)
        and identity(replace(plain, model=replace(plain.model, mlp="gated")))["model.mlp"] == "gated"
    )
    assert config_sha256(plain) != config_sha256(replace(plain, model=replace(plain.model, mlp="gated")))


def test_transformers_has_none():
    with pytest.raises(RequestError, match="no gated MLP"):
        to_hugging_face(GPT(SMALL, "golu"), "golu")


def test_a_run_of_it(monkeypatch, capfd, tmp_path):
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    flags = [
        f"--model.{f.name}={getattr(SMALL, f.name)}"
        for f in dataclasses.fields(SMALL)
        if f.name in ("layers", "heads", "width")
    ]
    flags += [
        "--steps",
        "6",
        "--eval-every",
        "3",
        "--eval-sequences",
        "4",
        "--schedule.warmup",
        "none",
        "--sample-tokens",
        "5",
    ]
    done = run("train", "babygpt-pydocs", "--model.mlp", "gated", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/lm/babygpt-pydocs/golu/seed0"
    result = json.loads((folder / "result.json").read_text())
    assert result["activations"]["swapped"] == 2 and result["activations"]["left"] == []
    done = run("evaluate", str(folder), cwd=tmp_path)
    assert done.returncode == 0 and "to the last digit" in done.stderr
    done = run("export", str(folder), "--out", "out", "--format", "safetensors", cwd=tmp_path)
    assert done.returncode == 2 and "no gated MLP" in done.stderr
