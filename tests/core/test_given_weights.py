"""Weights that are given: every wrapping of other programs, and everything that must not be taken for weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from golu_core.training.config.optim import Sgd, parameter_groups
from golu_core.training.config.run_config import RunConfig
from golu_core.training.finetuning.freezing import freeze, is_frozen, train_mode
from golu_core.training.finetuning.given_weights import GivenWeights, load_given, read_given, tensors_of_head
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.run_files import RunIdentity


def network(classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    found = nn.Sequential()
    found.add_module("body", body)
    found.add_module("fc", nn.Linear(8, classes))
    return found


def head() -> frozenset[str]:
    return tensors_of_head(network(4), network(5))


def same(first: nn.Module, second: nn.Module, names: list[str] | None = None) -> bool:
    there = second.state_dict()
    return all(torch.equal(t, there[n]) for n, t in first.state_dict().items() if names is None or n in names)


def averaged(model: nn.Module) -> dict[str, torch.Tensor]:
    return AveragedModel(model).state_dict()


WRAPPINGS = {
    "bare": lambda m: m.state_dict(),
    "torchvision's references": lambda m: {"model": m.state_dict(), "epoch": 3, "optimizer": {"lr": 0.1}},
    "with an average": lambda m: {"model": network(4, 9).state_dict(), "model_ema": averaged(m)},
    "timm": lambda m: {"arch": "x", "state_dict": network(4, 9).state_dict(), "state_dict_ema": m.state_dict()},
    "lightning": lambda m: {"state_dict": {f"model.{n}": t for n, t in m.state_dict().items()}},
    "distributed": lambda m: {f"module.{n}": t for n, t in m.state_dict().items()},
    "compiled": lambda m: {"model": {f"_orig_mod.{n}": t for n, t in m.state_dict().items()}},
    "both": lambda m: {f"module._orig_mod.{n}": t for n, t in m.state_dict().items()},
    "ordered": lambda m: {"model_state_dict": m.state_dict()},
}


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_weights_of_other_programs_are_understood(kind: str, tmp_path: Path):
    torch.save(WRAPPINGS[kind](network(4, 1)), tmp_path / "w.pth")
    own = network(4, 2)
    fit = load_given(own, read_given(str(tmp_path / "w.pth"), {}), head())
    assert same(own, network(4, 1))
    assert (len(fit.loaded), fit.made_new, fit.left_over) == (len(own.state_dict()), (), ())


def test_safetensors_and_half_precision(tmp_path: Path):
    given = {n: t.half() if t.is_floating_point() else t for n, t in network(4, 1).state_dict().items()}
    save_file(given, tmp_path / "w.safetensors")
    own = network(4, 2)
    load_given(own, read_given(str(tmp_path / "w.safetensors"), {}), head())
    assert own.fc.weight.dtype == torch.float32
    torch.testing.assert_close(own.fc.weight, network(4, 1).fc.weight, rtol=1e-3, atol=1e-4)


def test_a_head_of_other_classes_is_made_new():
    assert head() == {"fc.weight", "fc.bias"}
    own, given = network(6, 2), network(4, 1).state_dict()
    fit = load_given(own, GivenWeights("w", given), head())
    assert fit.made_new == ("fc.weight", "fc.bias")
    assert same(own, network(6, 2), ["fc.weight", "fc.bias"])
    assert same(own, network(4, 1), [n for n in given if n.startswith("body")])
    assert "2 reinitialized (fc.weight, fc.bias)" in fit.sentence()


def test_a_head_of_as_many_other_classes_is_made_new():
    own = network(4, 2)
    load_given(own, GivenWeights("w", network(4, 1).state_dict()), head(), with_head=False)
    assert same(own, network(4, 2), ["fc.weight", "fc.bias"])


class Trap:
    """A pickle that makes a file where it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("caught",)


def write(kind: str, path: Path) -> None:
    good = network().state_dict()
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": good, "trap": Trap()}))
    elif kind == "torch":
        torch.save({"state_dict": good, "trap": Trap()}, path)
    elif kind == "whole model":
        torch.save(network(), path)
    elif kind == "nothing":
        torch.save({"epoch": 3}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "cut":
        torch.save(good, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("weights")


@pytest.mark.parametrize("kind", ["pickle", "torch", "whole model", "nothing", "list", "cut", "empty", "text"])
def test_what_is_no_state_dict_is_refused_and_no_code_is_run(kind: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(kind, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=r"--init-from .*w\.pth") as refused:
        read_given("w.pth", {})
    assert not (tmp_path / "caught").exists()
    assert len(str(refused.value)) < 500
    if kind in ("torch", "whole model"):
        assert "would run its code" in str(refused.value)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_cut_safetensors_are_refused(share: float, tmp_path: Path):
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RequestError, match="cannot be read as safetensors"):
        read_given(str(tmp_path / "w.safetensors"), {})


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(RequestError, match=r"no such file or run folder.*torchvision:NAME"):
        read_given("nowhere.pth", {"torchvision": lambda name: ({}, "")})
    with pytest.raises(RequestError, match="not a run folder"):
        read_given(str(tmp_path), {})


CHANGES = {
    "not finite": lambda s: s | {"body.0.weight": s["body.0.weight"] * float("nan")},
    "of shape": lambda s: s | {"body.0.weight": s["body.0.weight"][:4]},
    "int64": lambda s: s | {"body.0.weight": s["body.0.weight"].long()},
    "complex64": lambda s: s | {"body.0.weight": s["body.0.weight"].to(torch.complex64)},
    "does not hold weights of this network": lambda s: {n: t for n, t in s.items() if n.startswith("fc")},
}


@pytest.mark.parametrize("words", CHANGES)
def test_weights_that_cannot_be_right_are_refused(words: str):
    with pytest.raises(RequestError, match=words):
        load_given(network(), GivenWeights("w", CHANGES[words](network(4, 1).state_dict())), head())


@pytest.mark.parametrize(("own", "other"), [("resnet18", "resnet50"), ("resnet50", "resnet18"), ("vgg11", "resnet18")])
def test_weights_of_another_network_are_refused(own: str, other: str):
    import torchvision

    make = torchvision.models.get_model
    with pytest.raises(RequestError, match="does not hold weights of this network"):
        load_given(make(own, weights=None), GivenWeights("w", make(other, weights=None).state_dict()), frozenset())


def test_a_task_that_does_not_read_them_is_refused():
    """Or somebody's own task would train from random weights, and say nothing."""
    config = RunConfig(init_from="w.pth")
    with pytest.raises(RequestError, match="does not support initial weights"):
        RunIdentity(config, {"data": "x"}, {})
    assert RunIdentity(config, {"data": "x", "init_from": "y"}, {}).inputs["init_from"] == "y"


# ------------------------------------------------------------------------------------------------------------- freezing


def test_frozen_parts_keep_weights_and_statistics():
    model = network()
    freeze(model, ["body.[01]"])
    before = {n: t.clone() for n, t in model.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    train_mode(model, ["body.[01]"])
    model.fc(model.body(torch.randn(4, 3, 9, 9)).mean((2, 3))).square().mean().backward()
    optimizer.step()
    kept = {n for n, t in model.state_dict().items() if torch.equal(t, before[n])}
    assert kept == {n for n in before if n.startswith(("body.0.", "body.1."))}


def test_names_with_what_surrounds_a_model_in_training():
    assert is_frozen("module.layer1.0.conv1.weight", ["layer1"])
    assert is_frozen("_orig_mod.layer1.0", ["layer1.*"])
    assert not is_frozen("layer10.0", ["layer1"])


@pytest.mark.parametrize(
    ("patterns", "made_new", "words"),
    [
        (["bodi"], (), "did you mean body"),
        (["zzz"], (), "its parts are body, fc"),
        (["*"], (), "leaves nothing to train"),
        (["fc"], ("fc.weight", "fc.bias"), "at random"),
    ],
)
def test_what_cannot_be_frozen_is_refused(patterns: list[str], made_new: tuple[str, ...], words: str):
    with pytest.raises(RequestError, match=words):
        freeze(network(), patterns, made_new)


def test_the_backbone_has_its_own_learning_rate():
    model = network()
    groups = parameter_groups(model, Sgd(lr=1.0, backbone_lr_scale=0.1, lr_scales=(("body.0", 3.0),)), head())
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 1.0 if name.startswith("fc") else 0.1 * (3.0 if name.startswith("body.0") else 1.0)
        assert scales[id(parameter)] == pytest.approx(expected)
    with pytest.raises(RequestError, match="no separate head"):
        parameter_groups(model, Sgd(backbone_lr_scale=0.1))
