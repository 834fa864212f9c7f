"""`golu-core analyze times`: every task's networks at work, and the statistics of the times."""

from __future__ import annotations

import json
import math

import pytest
import torch
from scipy.stats import wilcoxon

from golu_core.studies import analyze
from golu_core.studies.analyses import times
from golu_core.studies.analyses.times import Times
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import Task, installed_tasks
from golu_core.training.tasks.timing_model import make_timing_model

OFFLINE = [
    (task, name)
    for task in installed_tasks().values()
    for name, config in task.recipes.items()
    if config.paper is not None and not config.paper.results
]
DETECTION = ["--model.shorter-side", "128", "--model.longer-side", "160"]
SMALLER = {
    "instances": DETECTION,
    "objects": DETECTION,
    "segments": ["--augment.crop", "96", "--augment.resize", "96", "128", "--augment.eval-side", "96"],
}
"""Flags for smaller images; the networks are the recipes'."""
SMALL = {"digits", "mlp-digits", "babygpt-pydocs", "transformer-numbers", "ddpm-digits"}


@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        pytest.param(task, name, marks=[] if name in SMALL or name.endswith("-digits") else pytest.mark.slow, id=name)
        for task, name in OFFLINE
    ],
)
def test_each_recipe_has_a_timing_model(task, recipe):
    """A finite loss, a gradient for what is trained, and outputs; the config's activation is in the network."""
    config = CommandLine(task).config([recipe, *SMALLER.get(recipe, [])])
    timed = make_timing_model(task, config, 2, torch.device("cpu"))
    assert any(type(module).__name__ == "GoLU" for module in timed.model.modules())
    timed.model.train()
    loss = timed.training_loss(timed.model)
    assert loss.shape == () and math.isfinite(loss.item())
    loss.backward()
    assert all(p.grad is not None for p in timed.model.parameters() if p.requires_grad)
    with torch.no_grad():
        assert timed.infer(timed.model.eval()) is not None


def test_ratio_and_interval_are_those_of_the_signed_rank_test():
    own = [1.0, 1.1, 0.9, 1.05, 1.0, 1.2, 0.95, 1.0]
    golu = [1.2 * value * (1 + 0.01 * place) for place, value in enumerate(own)]
    seconds = {"training": {"relu": own, "golu": golu}}
    ratio, (low, high) = Times("r", "relu", 1, "no", seconds).relative("training", "golu")
    assert 1.2 < low < ratio < high < 1.3
    for edge, rejected in ((low * 0.999, True), (ratio, False), (high * 1.001, True)):
        shifted = [math.log(one / other) - math.log(edge) for one, other in zip(golu, own, strict=True)]
        assert (wilcoxon(shifted).pvalue < 0.05) == rejected


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    words = ["times", "mlp-digits", "--activations", "golu", "gelu", "--rounds", "6", "--samples", "4"]
    assert analyze.main([*words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert (
        "Relative time of training" in printed
        and "Relative time of inference" in printed
        and "made-up" in printed.lower()
    )
    found = json.loads((tmp_path / "out" / "times.json").read_text())
    assert [record["activation"] for record in found["times"]] == ["relu", "gelu", "golu"]
    assert found["times"][0]["training"]["relative"] == 1.0
    for record in found["times"][1:]:
        low, high = record["inference"]["interval"]
        assert 0 < low <= record["inference"]["relative"] <= high
    assert (tmp_path / "out" / "times.png").stat().st_size > 5_000


def test_networks_take_turns():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b", "c")}
    seconds = times._in_turns(steps, 6, torch.device("cpu"))
    assert {name: len(values) for name, values in seconds.items()} == {"a": 6, "b": 6, "c": 6}
    rounds = [calls[place : place + 3] for place in range(0, len(calls), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert {one[0] for one in rounds} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the recipes"),
        (["digitz"], "unknown recipe 'digitz'"),
        (["digits", "--activations", "golo"], "did you mean 'golu'"),
        (["digits", "--mixed-precision", "fp16"], "fp16 needs a GPU"),
        (["digits", "--rounds", "5"], "at least 6"),
    ],
)
def test_what_cannot_be_timed_is_refused(words, message, capsys):
    assert analyze.main(["times", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_task_without_timing_models_is_refused():
    task = Task("t", "T", "p", {}, {}, "x/s", "a:b", "a:b", "a:b")
    with pytest.raises(RequestError, match="offers no timing model"):
        make_timing_model(task, None, 1, torch.device("cpu"))
