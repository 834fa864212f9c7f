"""Every recipe, shrunken, on a GPU: it trains, continues, and is evaluated there as it is on a CPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import metrics_without_time, runner_in_this_process, same_outcome
from golu_core.training.tasks.command_line import CommandLine

ON_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRECISIONS = ("no", "bf16", "fp16")
TOLERANCE = {"no": 2e-2, "bf16": 1e-1, "fp16": 1e-1}
"""Of the first losses."""
OF_DROPPED_PATHS = 0.3
"""Of networks that drop whole paths, other ones on a GPU: EfficientNet's losses vary by a fifth from draw to draw."""


def check_on_a_gpu(
    command_line: CommandLine[Any],
    recipe: str,
    precision: str,
    flags: list[str],
    cwd: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tolerance: float | None = None,
) -> None:
    """Trains on the GPU twice, the second time from the last checkpoint, and once on the CPU.

    Args:
        flags: that make the recipe a matter of seconds, and say where its data are.
        cwd: an empty folder.
        tolerance: of the first losses, instead of that of the precision.
    """
    run = runner_in_this_process(command_line, monkeypatch, capfd)
    command = ["train", recipe, *flags, "--log-every", "1"]
    on_the_gpu = [*command, "--mixed-precision", precision, "--deterministic"]
    folder = trained(run, on_the_gpu, cwd / "gpu")
    assert "NVIDIA" in json.loads((folder / "result.json").read_text())["environment"]["device"]

    evaluated = run("evaluate", str(folder), cwd=cwd)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "to the last digit" in evaluated.stderr

    again = cwd / "again" / folder.relative_to(cwd / "gpu")
    shutil.copytree(folder, again)
    for name in ("result.json", "model.safetensors", "curves.png"):
        (again / name).unlink()
    assert trained(run, on_the_gpu, cwd / "again") == again
    same_outcome(again, folder)

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    same_run = trained(run, [*command, "--mixed-precision", "no"], cwd / "cpu")
    first, expected = (metrics_without_time(f)[0] for f in (folder, same_run))
    assert first["loss"] == pytest.approx(expected["loss"], rel=tolerance or TOLERANCE[precision])


def trained(run: Callable[..., Any], command: list[str], cwd: Path) -> Path:
    """The run's folder."""
    cwd.mkdir(exist_ok=True)
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (result,) = cwd.rglob("result.json")
    return result.parent
