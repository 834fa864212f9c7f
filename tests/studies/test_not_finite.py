"""NaN never leaves a network as a black image, an empty list of boxes, a text or a number: all tasks and commands."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torchvision.transforms.v2.functional import to_pil_image

import detect_program
import diffusion_program
import lm_program
import translation_program
import vision_program
from golu_core.training.runs.results import read_result, write_result
from golu_core.training.storage.fingerprint import file_digest
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import installed_tasks, task_of
from golu_detect.samples import write_digit_scenes
from short_runs import only_run

SHORT = [*detect_program.FAST, "--max-steps", "1"]
RUNS = {
    "digits": [*vision_program.FAST, "--epochs", "1", "--max-steps", "1"],
    "babygpt-pydocs": [*lm_program.TINY, "--max-steps", "1"],
    "transformer-numbers": [*translation_program.TINY, "--max-steps", "1"],
    "ddpm-digits": [*diffusion_program.TINY, "--max-steps", "1"],
    "fasterrcnn-digits": SHORT,
    "deeplabv3-digits": SHORT,
    "maskrcnn-digits": SHORT,
    "retinanet-digits": SHORT,
}
"""Flags by recipe, one for each kind of network."""
SLOW = {"transformer-numbers", "deeplabv3-digits", "maskrcnn-digits", "retinanet-digits"}
DETAILS = {"vision", "detect"}
NOISE = torch.randint(256, (3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
COMMANDS: dict[str, list[list[str]]] = {
    "evaluate": [[], ["--details", "out"]],
    "export": [["--out", "out"], ["--out", "out", "--format", "safetensors"]],
    "sample": [["--count", "2", "--out", "out", "--gif", "out.gif"], ["--sampler", "ddim", "--steps", "3"]],
    "interpolate": [["picture.png", "picture.png", "--timestep", "3", "--points", "2"]],
    "predict": [["picture.png"], ["clip.mp4"], ["picture.png", "--format", "csv", "--grid", "out.png"]],
    "generate": [["--tokens", "3"], ["--tokens", "3", "--temperature", "0", "--prompt", "if"]],
    "translate": [[], ["--n-best", "1"]],
}
"""Arguments of every command that reads a run; a new command fails the test until it has some."""


def commands_on_runs(recipe: str) -> list[str]:
    """Every command of a recipe's task that begins with a run folder."""
    task = task_of(recipe)
    return ["evaluate", *(name for name, command in task.commands.items() if command.usage.startswith("RUN_DIR"))]


def cases() -> list[Any]:
    found = []
    for recipe in RUNS:
        task = task_of(recipe).name
        for command in commands_on_runs(recipe):
            for number, arguments in enumerate(COMMANDS[command]):
                foreign = (
                    ("--details" in arguments and task not in DETAILS)
                    or ("--format" in arguments and command == "predict" and task != "vision")
                    or ("clip.mp4" in arguments and task != "detect")
                    or (recipe == "transformer-numbers" and command == "export" and "--format" not in arguments)
                )
                if not foreign:
                    marks = [pytest.mark.slow] if recipe in SLOW else []
                    found.append(
                        pytest.param(recipe, command, arguments, marks=marks, id=f"{recipe}-{command}{number}")
                    )
    return found


def test_every_kind_of_network_has_a_run():
    assert {task_of(recipe).name for recipe in RUNS} == set(installed_tasks())


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Train each run once, and return a copy whose weights are all NaN, or so large that every output overflows."""
    top = tmp_path_factory.mktemp("broken")
    scenes = detect_program.copy_few(write_digit_scenes(top / "scenes"), top / "few")
    done: dict[str, Path] = {}

    def trained(recipe: str) -> Path:
        if recipe not in done:
            flags = (
                ["--data-dir", str(scenes)] if task_of(recipe).name == "detect" else ["--data-dir", str(top / "data")]
            )
            AcceleratorState._reset_state(reset_partial_state=True)
            line = CommandLine(task_of(recipe))
            assert line.main(["train", recipe, *RUNS[recipe], *flags, "--output-dir", str(top / recipe)]) == 0
            done[recipe] = only_run(top / recipe)
        return done[recipe]

    def with_value(recipe: str, value: float) -> Path:
        folder = top / f"{recipe}-{value}"
        if not folder.exists():
            shutil.copytree(trained(recipe), folder)
            result = read_result(folder / "result.json")
            for path in folder.glob("model*.safetensors"):
                tensors = {name: t.fill_(value) if t.is_floating_point() else t for name, t in load_file(path).items()}
                save_file(tensors, path)
                result.files[path.name] = file_digest(path)
            write_result(folder / "result.json", result)
        return folder

    return with_value


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a picture and a clip, and a line on standard input."""
    to_pil_image(NOISE).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one hundred\n")))
    return tmp_path


def write_clip(path: Path) -> None:
    pytest.importorskip("av")
    from fractions import Fraction

    from golu_detect.video import write_video

    write_video(path, Fraction(10), [NOISE] * 3)


@pytest.mark.parametrize("value", [float("nan"), 3e38], ids=["NaN", "overflow"])
@pytest.mark.parametrize(("recipe", "command", "arguments"), cases())
def test_what_is_not_finite_is_one_message(recipe, command, arguments, value, broken, place, capfd):
    if value == 3e38 and "safetensors" in arguments and task_of(recipe).name in ("lm", "translation"):
        pytest.skip("transformers' own format holds weights alone, and these are finite")
    folder = broken(recipe, value)
    if "clip.mp4" in arguments:
        write_clip(place / "clip.mp4")
    before = sorted(place.rglob("*"))
    capfd.readouterr()
    AcceleratorState._reset_state(reset_partial_state=True)
    status = CommandLine(task_of(recipe)).main([command, str(folder), *arguments])
    printed = capfd.readouterr()
    complaints = [line for line in printed.err.splitlines() if line.startswith("golu-")]
    assert status == 1 and len(complaints) == 1 and "not finite" in complaints[0], printed
    assert not printed.out, printed.out
    assert sorted(place.rglob("*")) == before
