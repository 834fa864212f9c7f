"""Runs of every task whose GoLU learns parameters for each channel."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from command_line import metrics_without_time, runner_in_this_process
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import task_of
from short_runs import SHORT, cut, only_run

PER_CHANNEL = "golu(learnable=true, per_channel=true)"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SHORT)
def test_a_run_learns_parameters_of_each_channel(recipe, tmp_path, monkeypatch, capfd):
    run_here = runner_in_this_process(CommandLine(task_of(recipe)), monkeypatch, capfd)
    train = ["train", recipe, *SHORT[recipe], "--data-dir", "data", "--activation", PER_CHANNEL]
    done = run_here(*train, "--output-dir", "whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole = only_run(tmp_path / "whole")
    result = json.loads((whole / "result.json").read_text())
    assert result["activation"] == "golu(learnable=True, per_channel=True)"
    for learned in result["learned_activation"].values():
        assert learned["least"] < learned["mean"] < learned["most"]
    weights = load_file(whole / "model.safetensors")
    sizes = {name: tensor.numel() for name, tensor in weights.items() if "log_gamma" in name}
    assert sizes and min(sizes.values()) > 1, sizes

    run = cut(tmp_path / "whole", tmp_path / "cut")
    done = run_here(*train, "--output-dir", "cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics_without_time(run) == metrics_without_time(whole)

    done = run_here("evaluate", str(whole), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    found = {name: float(value) for name, value in printed.items() if name in result["metrics"]}
    assert result["primary_metric"]["name"] in found
    assert found == pytest.approx({name: result["metrics"][name] for name in found}, rel=1e-4)


def test_a_network_that_shares_its_activation_is_refused(tmp_path, monkeypatch, capfd):
    run_here = runner_in_this_process(CommandLine(task_of("digits")), monkeypatch, capfd)
    flags = ["--model.name", "torchvision/resnet50", "--activation", PER_CHANNEL]
    done = run_here("train", "digits", *flags, "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 2 and "is called with 64 channels and with 256" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
