"""Golden loss curves of all tasks, and twin networks that must learn alike.

The curves were written by this code on the CPU (`GOLU_WRITE_GOLDEN=1`); other processors round differently, hence the
tolerance. They are there to notice a change of what a run computes that no other test means to notice.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from command_line import Program, metrics_without_time
from golu_core import GoLU, replace_activations
from golu_core.training.tasks.task import installed_tasks

GOLDEN = Path(__file__).parent / "golden_losses.json"
# A detector chooses its boxes by thresholds: GoLU by the plain formula, or computed in float64 and rounded once, each
# differ by 0.3 % in the loss of step 4 and by 3 % in step 11, but by less than 0.05 % up to step 3.
STEPS = {"vision": 12, "lm": 12, "translation": 12, "detect": 3, "diffusion": 12}
# one quick recipe of each task, at its own settings; deterministic layers, so that rounding does not grow quickly
RECIPES = {
    "vision": "digits",
    "lm": "babygpt-pydocs",
    "translation": "transformer-numbers",
    "detect": "fasterrcnn-digits",
    "diffusion": "ddpm-digits",
}
FLAGS = {
    "lm": ["--eval-sequences", "4", "--sample-tokens", "1", "--eval-every", "1000"],
    "translation": ["--eval-sentences", "4", "--eval-every", "1000"],
    "diffusion": ["--samples", "0", "--eval-noise-draws", "1"],
}


def test_every_task_has_a_curve():
    assert set(RECIPES) == {name for name, task in installed_tasks().items() if task.package.startswith("golu_")}
    assert set(json.loads(GOLDEN.read_text())) == set(RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("task", RECIPES)
def test_losses_are_those_of_the_golden_curve(task, tmp_path):
    flags = ["--max-steps", str(STEPS[task]), "--log-every", "1", *FLAGS.get(task, [])]
    done = Program(installed_tasks()[task].package).run("train", RECIPES[task], *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = metrics_without_time(tmp_path / "runs" / task / RECIPES[task] / "golu" / "seed0")
    losses = [round(line["loss"], 6) for line in lines if line["split"] == "train"]
    assert len(losses) == STEPS[task]
    if os.environ.get("GOLU_WRITE_GOLDEN"):
        curves = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps({**curves, task: losses}, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text())[task], rel=2e-3)


def network(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        copy.deepcopy(activation),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        copy.deepcopy(activation),
        nn.Flatten(),
        nn.Linear(8 * 16, 32),
        copy.deepcopy(activation),
        nn.Linear(32, 10),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own", [nn.ReLU(), nn.GELU(), nn.SiLU()], ids=lambda module: type(module).__name__)
def test_twins_learn_alike(dtype, own):
    """A network with swapped activations learns digits bit for bit as one that was built with GoLU, and does learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(dtype)[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    swapped, built = network(own), network(GoLU())
    report = replace_activations(swapped, type(own), "golu")
    assert report.swapped == ("1", "3", "6")
    losses: dict[str, list[float]] = {}
    for name, model in (("swapped", swapped), ("built", built)):
        model.to(dtype)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        order = torch.Generator().manual_seed(0)
        losses[name] = []
        for _ in range(100):
            rows = torch.randint(len(labels), (64,), generator=order)
            loss = nn.functional.cross_entropy(model(images[rows]).float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["swapped"] == losses["built"]
    assert sum(losses["built"][-10:]) < 0.6 * sum(losses["built"][:10])
    for a, b in zip(swapped.parameters(), built.parameters(), strict=True):
        assert torch.equal(a, b)
