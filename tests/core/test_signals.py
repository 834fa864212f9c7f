"""Signals to the whole process group, for every task, with loader processes and without, in one process and in two."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Program
from detect_program import DETECT
from detect_program import FAST as DETECT_FAST
from detect_program import copy_few as copy_few_scenes
from diffusion_program import DIFFUSION
from diffusion_program import TINY as DIFFUSION_TINY
from golu_core.training.data.digits import write_digits
from golu_detect.samples import write_digit_scenes
from lm_program import LM
from lm_program import TINY as LM_TINY
from signals_and_loaders import a_killed_loader_is_one_message, loaders_end_with_their_parent, stops_and_continues
from vision_program import FAST as VISION_FAST
from vision_program import VISION
from vision_program import copy_few as copy_few_digits

VISION_FLAGS = ["--data.root", "few-digits", "--data.no-in-memory", "--max-steps", "30", *VISION_FAST]
DETECT_FLAGS = [*DETECT_FAST, "--max-steps", "14"]
DIFFUSION_FLAGS = [*DIFFUSION_TINY, "--max-steps", "24"]
LM_FLAGS = [*LM_TINY, "--steps", "24"]
TASKS: dict[str, tuple[Program, list[str], str]] = {
    "vision": (VISION, ["train", "digits", *VISION_FLAGS], "digits"),
    "lm": (LM, ["train", "babygpt-pydocs", *LM_FLAGS], "babygpt-pydocs"),
    "detect": (DETECT, ["train", "deeplabv3-digits", *DETECT_FLAGS], "deeplabv3-digits"),
    "diffusion": (DIFFUSION, ["train", "ddpm-digits", *DIFFUSION_FLAGS], "ddpm-digits"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    top = tmp_path_factory.mktemp("data")
    copy_few_digits(write_digits(top / "digits"), top / "few-digits")
    return copy_few_scenes(write_digit_scenes(tmp_path_factory.mktemp("scenes")), top)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The uninterrupted run of a task in so many processes; one process is a new interpreter and no fork."""

    @functools.cache
    def run(task: str, processes: int) -> Path:
        program, arguments, recipe = TASKS[task]
        cwd = tmp_path_factory.mktemp("whole")
        done = program.run(*placed(arguments, data), cwd=cwd, processes=processes, fresh=processes == 1)
        assert done.returncode == 0, done.stderr
        return cwd / "runs" / task / recipe / "golu" / "seed0"

    return run


# every pair of a task with a signal, loader processes, and processes is there
CASES = [
    *((task, signal.SIGTERM, 1, 2) for task in TASKS),
    *((task, signal.SIGHUP, 2, 1) for task in TASKS),
]


def placed(arguments: list[str], data: Path) -> list[str]:
    """The arguments with the folders of the data in them."""
    return [str(data / word) if word == "few-digits" else word for word in arguments] + ["--data-dir", str(data)]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "number", "workers", "processes"), CASES)
def test_a_signal_to_the_group_saves(task, number, workers, processes, data, whole, tmp_path):
    program, arguments, recipe = TASKS[task]
    folder = Path("runs") / task / recipe / "golu" / "seed0"
    common = [*placed(arguments, data), "--num-workers", str(workers)]
    stops_and_continues(program, common, folder, whole(task, processes), tmp_path, number, processes)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_loader_processes(task, data, tmp_path):
    program, arguments, recipe = TASKS[task]
    folder = Path("runs") / task / recipe / "golu" / "seed0"
    common = [*placed(arguments, data), "--num-workers", "1"]
    common += ["--steps" if task == "lm" else "--epochs", "5000", "--max-steps", "5000"]
    for check in (a_killed_loader_is_one_message, loaders_end_with_their_parent):
        cwd = tmp_path / check.__name__
        cwd.mkdir()
        check(program, common, folder, cwd)


@pytest.mark.slow
def test_a_program_that_fails_does_not_wait_for_its_loaders():
    """They ignore SIGTERM, by which multiprocessing would end them; an uncaught error keeps the loader's iterator."""
    code = """
import torch
from golu_core.training.data.orders import EpochOrder, plan_batches
from golu_core.training.data.loading import TrainingLoader

class Numbers:
    in_memory = False
    def __len__(self): return 64
    def __getitems__(self, keys): return torch.tensor([key.sample for key in keys])

if __name__ == "__main__":
    loader = TrainingLoader(Numbers(), EpochOrder(64, 4, 0), plan_batches(4, 1), 0, 2)
    for micro_batch in loader.micro_batches(0, 0):
        raise RuntimeError("no reason")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no reason" in done.stderr
