"""Classifiers that start from given weights: of torchvision, of timm, of a run; and what must be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from command_line import runner_in_this_process
from golu_core.activation.names import loading
from golu_vision.cli import COMMAND_LINE
from runs_on_disk import change_result
from vision_program import FAST

SHORT = [*FAST, "--epochs", "1", "--max-steps", "2", "--optim.lr", "0.01"]
RUN = Path("vision/digits/golu/seed0")


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def start_of(folder: Path) -> dict:
    return json.loads((folder / RUN / "result.json").read_text())["start"]


def foreign(library: str) -> tuple[str, torch.nn.Module]:
    torch.manual_seed(3)
    if library == "torchvision":
        return "torchvision/resnet18", torchvision.models.resnet18(weights=None, num_classes=1000)
    return "timm/resnet10t", timm.create_model("resnet10t", pretrained=False, num_classes=1000)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_state_dict_of_another_library_is_tuned_with_a_new_head(library, few_digits, run_here, tmp_path):
    """The frozen parts are, bit for bit, what the other library saved."""
    name, model = foreign(library)
    torch.save({"model": {f"module.{n}": t for n, t in model.state_dict().items()}}, tmp_path / "w.pth")
    flags = ["--model.name", name, "--data.root", str(few_digits), "--init-from", "w.pth", "--output-dir", "out"]
    flags += ["--freeze", "conv1", "bn1", "layer1", "layer[23]", "--optim.backbone-lr-scale", "0.1"]
    done = run_here("train", "digits", *SHORT, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 reinitialized (fc.weight, fc.bias), 0 unused" in done.stdout
    assert "name its classes" not in done.stderr  # a head that is not loaded needs none
    assert "its head is new: there are no test metrics before training" in done.stdout
    assert set(start_of(tmp_path / "out")) == {"tensors", "given"}
    tuned, given = load_file(tmp_path / "out" / RUN / "model.safetensors"), model.state_dict()
    for part, tensor in given.items():
        if not part.startswith(("fc", "layer4")):
            assert torch.equal(tuned[part], tensor), part
    assert not torch.equal(tuned["layer4.0.conv1.weight"], given["layer4.0.conv1.weight"])
    assert tuned["fc.weight"].shape[0] == 4


@pytest.fixture(scope="module")
def trained(few_digits, tmp_path_factory):
    """A run with relu on four classes."""
    cwd = tmp_path_factory.mktemp("given")
    flags = ["--activation", "relu", "--data.root", str(few_digits), "--output-dir", "given"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert COMMAND_LINE.main(["train", "digits", *SHORT, *flags]) == 0
    return cwd / "given/vision/digits/relu/seed0"


@pytest.mark.parametrize("flag", [[], ["--dry-run"]])
def test_a_head_that_fits_is_loaded_with_a_warning(flag, trained, few_digits, run_here, tmp_path):
    """The file has no names of classes beside it."""
    shutil.copy(trained / "model.safetensors", tmp_path / "w.safetensors")
    flags = ["--data.root", str(few_digits), "--init-from", "w.safetensors", "--output-dir", "out", *flag]
    done = run_here("train", "digits", *SHORT, *flags, cwd=tmp_path)
    assert done.returncode == 0 and "0 reinitialized" in done.stdout, done.stderr
    assert done.stderr.count("w.safetensors does not name its classes: its head fits, and is loaded as it is") == 1


@pytest.mark.parametrize("spec", ["torch.save(f='marker')", "evil.py:Evil", "evil:Evil", "torch.tanh"])
def test_a_run_that_is_started_from_runs_no_code(spec, trained, few_digits, run_here, tmp_path, monkeypatch):
    """The network as given would be measured with the activation that its result names."""
    monkeypatch.setattr(loading, "_LOADED", {})  # other tests of this process may have named it
    (tmp_path / "evil.py").write_text("open('marker', 'w')\nfrom torch.nn import ReLU as Evil\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(trained, tmp_path / "given")
    change_result(tmp_path / "given", activation=spec)
    flags = ["--data.root", str(few_digits), "--init-from", "given", "--output-dir", "out"]
    done = run_here("train", "digits", *SHORT, *flags, cwd=tmp_path)
    assert not (tmp_path / "marker").exists()
    assert done.returncode == 0 and f"is not measured with {spec}" in done.stderr, done.stderr


def test_as_many_other_classes_have_a_new_head(trained, few_digits, run_here, tmp_path):
    shutil.copytree(few_digits, tmp_path / "others")
    for split in ("train", "test"):
        (tmp_path / "others" / split / "0").rename(tmp_path / "others" / split / "zero")
    flags = ["--data.root", "others", "--init-from", str(trained), "--output-dir", "out"]
    done = run_here("train", "digits", *SHORT, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert start_of(tmp_path / "out")["tensors"]["made_new"] == 2


@pytest.mark.parametrize("kind", ["weights cut", "a flipped bit", "not finished", "another network", "other content"])
def test_a_run_that_cannot_be_started_from_is_refused(kind, trained, few_digits, run_here, tmp_path):
    shutil.copytree(trained, tmp_path / "given")
    weights, more = tmp_path / "given" / "model.safetensors", []
    content, words = bytearray(weights.read_bytes()), "does not have the checksum"
    if kind == "weights cut":
        weights.write_bytes(content[:-100])
    elif kind == "a flipped bit":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif kind == "not finished":
        (tmp_path / "given" / "result.json").unlink()
        words = "that run is not finished"
    elif kind == "another network":
        more, words = ["--model.name", "torchvision/resnet18"], "does not hold weights of this network"
    flags = ["--data.root", str(few_digits), "--init-from", "given", "--output-dir", "out", *more]
    if kind == "other content":  # of a file, between stop and continuation
        flags[flags.index("given")] = "w.safetensors"
        shutil.copy(weights, tmp_path / "w.safetensors")
        assert run_here("train", "digits", *SHORT, *flags, cwd=tmp_path).returncode == 0
        (tmp_path / "out" / RUN / "result.json").unlink()
        tensors = load_file(weights)
        from safetensors.torch import save_file

        save_file({n: t + 1 if t.is_floating_point() else t for n, t in tensors.items()}, tmp_path / "w.safetensors")
        words = "init: tensors"
    done = run_here("train", "digits", *SHORT, *flags, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    if kind != "other content":
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("torchvision/resnet18", "torchvision:IMAGENET9", "it has IMAGENET1K_V1"),
        ("timm/resnet10t", "timm:nobody", "it has default, c3_in1k"),
        ("timm/resnet10t", "torchvision:IMAGENET1K_V1", "no such file or run folder; by name it may be timm:NAME"),
        ("timm/resnet10t", "timm:default", "timm cannot download default of resnet10t"),
        ("cifar/resnet20", "timm:default", "no such file or run folder"),
    ],
)
def test_names_that_cannot_be_had_are_refused(name, source, words, few_digits, run_here, tmp_path):
    flags = ["--model.name", name, "--data.root", str(few_digits), "--init-from", source]
    done = run_here("train", "digits", *SHORT, *flags, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_tuning_takes_fewer_epochs_than_training(run_here, tmp_path):
    """A ReLU network gets GoLU: after one epoch of tuning it is better than after one epoch from scratch."""
    done = run_here("train", "digits", "--activation", "relu", "--epochs", "4", "--output-dir", "given", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    source = ["--init-from", "given/vision/digits/relu/seed0", "--optim.lr", "0.01"]
    for flags in (["--output-dir", "tuned", "--epochs", "2", *source], ["--output-dir", "scratch", "--epochs", "2"]):
        assert run_here("train", "digits", *flags, cwd=tmp_path).returncode == 0
    tuned, scratch = (json.loads((tmp_path / n / RUN / "result.json").read_text()) for n in ("tuned", "scratch"))
    assert tuned["metrics"]["top1"] > scratch["metrics"]["top1"]
    assert tuned["start"]["swapped"]["top1"] < tuned["start"]["given"]["top1"]
