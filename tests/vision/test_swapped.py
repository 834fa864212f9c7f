"""What a result says of the activations is what was done, and unknown is not none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from command_line import runner_in_this_process
from golu_core.activation import GoLU, find_activations
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.results import SwappedActivations
from golu_core.training.tasks.swapped import swapped_for
from golu_vision.cli import COMMAND_LINE
from golu_vision.model import build_model
from golu_vision.recipes import RECIPES
from vision_program import FAST


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        if x.sum() > 0:
            raise RuntimeError("no example suits")
        return self.act(x)


def test_where_tracing_failed_the_result_says_so():
    swapped = swapped_for(Untraceable(), "relu", "golu", (torch.ones(2),))
    assert swapped == SwappedActivations(1, None, "RuntimeError: no example suits")
    assert "could not be searched for: RuntimeError" in swapped.lines()[0]


def test_a_network_without_its_own_activation_is_refused():
    recipe = RECIPES["digits"]
    for activation in ("golu", "gelu"):
        wrong = replace(recipe, activation=activation, model=replace(recipe.model, default_activation="gelu"))
        with pytest.raises(RequestError, match="the network has no gelu"):
            build_model(wrong, 10)
    with pytest.raises(RequestError, match=r"--model\.default-activation: unknown activation 'nosuch'"):
        build_model(replace(recipe, model=replace(recipe.model, default_activation="nosuch")), 10)


def test_finding_changes_nothing_and_finds_what_a_swap_would():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Sequential(nn.ReLU(), nn.GELU()))
    found = find_activations(network, "relu", example_inputs=(torch.ones(1, 2),))
    assert found.swapped == ("1", "2.0") and found.left == ()
    assert network[1].inplace and not any(isinstance(module, GoLU) for module in network.modules())


def test_the_strongest_posterize_of_timm_is_no_error():
    """Level 10 of `inc1` keeps 0 bits, which Pillow 13 refuses."""
    from PIL import Image

    from golu_vision.config import TimmAugment
    from golu_vision.transforms import training_transform

    _, pipeline = training_transform(RECIPES["digits"].data, TimmAugment(rand_augment="rand-m10-inc1")).transforms
    operations = [op for step in pipeline.transforms for op in getattr(step, "ops", ()) if "Posterize" in op.name]
    picture = Image.new("RGB", (8, 8), (200, 100, 50))
    assert operations
    for operation in operations:
        operation.prob = 1.0
        assert operation(picture).getextrema() == ((0, 0), (0, 0), (0, 0))


def test_what_activations_learn_is_noted_with_each_evaluation(few_digits, monkeypatch, capfd, tmp_path):
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    flags = ["--data.root", str(few_digits), "--activation", "golu(learnable=True)", "--output-dir", "out", *FAST]
    done = run("train", "digits", *flags, "--epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("result.json")
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    learned = [line for line in lines if line["split"] == "test"]
    assert len(learned) == 2 and learned[0]["alpha_mean"] != learned[1]["alpha_mean"]
    final = json.loads(path.read_text())["learned_activation"]
    flat = {f"{name}_{of}": value for name, found in final.items() for of, value in found.items()}
    assert flat == {name: value for name, value in learned[-1].items() if name in flat}
