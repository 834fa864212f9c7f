"""tools/sweep.py run as a person runs it; most runs are stood in for, the slow ones train."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from rich.console import Console
from submitit.core.utils import FailedJobError

from golu_core.studies import sweep
from golu_core.studies.sweeping import local, view
from golu_core.studies.sweeping.cluster import ContinuedCommand
from golu_core.studies.sweeping.study import find_study, planned_runs, read_study, study_from
from golu_core.training.config.identity import config_sha256
from golu_core.training.distributed.signals import STOP_SIGNALS
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.locks import BUSY, claim, is_claimed
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import installed_tasks
from runs_on_disk import write_run

PLANS = Path(sweep.__file__).parent / "plans"
TOOLS = Path(__file__).resolve().parents[2] / "tools"
STAND_IN = Path(__file__).with_name("stand_in.py")


def run(*arguments: object) -> int:
    """Calls the command line in this process."""
    return sweep.main([str(argument) for argument in arguments])


def study(values: dict[str, Any], folder: Path) -> list[Any]:
    return planned_runs(study_from({"output_dir": str(folder), **values}, "a test"))


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs are stood in for; gives a function that tells which were started."""
    starts = tmp_path / "starts.jsonl"
    starts.touch()
    monkeypatch.setenv("STARTS", str(starts))
    monkeypatch.setattr(local, "with_this_python", lambda command: [sys.executable, str(STAND_IN), *command[2:]])
    monkeypatch.setattr(local, "visible_gpus", list)
    return lambda: [json.loads(line) for line in starts.read_text().splitlines()]


def digits(tmp_path: Path, *more: object) -> list[object]:
    return ["--recipes", "digits", "--set", "epochs=2", "--output-dir", tmp_path / "runs", *more]


# ----------------------------------------------------------------------------------------------- from study to runs


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_study_that_we_bring_expands(path):
    runs = planned_runs(read_study(path))
    assert len({planned.folder for planned in runs}) == len(runs)
    assert len({config_sha256(planned.config) for planned in runs}) == len(runs)
    for planned in runs[:: max(1, len(runs) // 4)]:
        words = planned.command(threads=None)
        config = CommandLine(planned.task).config(words[words.index("train") + 1 :])
        assert config == planned.config


def test_quick_is_four_tasks_five_activations_three_seeds():
    runs = planned_runs(read_study(find_study("quick")))
    assert len(runs) == 4 * 5 * 3
    assert {planned.task.name for planned in runs} == {"vision", "lm", "detect", "diffusion"}


def test_paper_has_every_recipe_of_the_paper():
    runs = planned_runs(read_study(find_study("paper")))
    ours = {"digits", "babygpt-pydocs", "babygpt-text", "transformer-numbers", "ddpm-digits"}
    ours |= {"ddpm-celeba-50", "ddpm-celeba-cosine"}  # what the paper describes, and prints no result of
    ours |= {f"{kind}-digits" for kind in ("deeplabv3", "fasterrcnn", "retinanet", "maskrcnn", "mlp")}
    ours |= {"mlp-mnist", "mlp-cifar10"}  # of the paper's ablations, which are studies of their own
    ours |= {"mlp-fashion", "resnet20-fashion"}
    ours |= {name for task in installed_tasks().values() for name in task.own_data}
    every = {name for task in installed_tasks().values() for name in task.recipes}
    assert {planned.config.recipe for planned in runs} == every - ours
    detectors = [planned for planned in runs if planned.task.name == "detect"]
    for planned in detectors:
        assert planned.after is not None
        assert str(planned.after) == planned.config.backbone
        assert planned.after.parts[-2:] == (planned.config.activation, f"seed{planned.config.seed}")


def test_a_list_is_varied_and_everything_else_stays(tmp_path):
    flags = {"optim": {"lr": [0.1, 0.05]}, "epochs": 2, "drop_last": True, "compile": False}
    runs = study(
        {"experiment": [{"recipes": ["digits"], "flags": flags}], "activations": ["golu"], "seeds": [4]}, tmp_path
    )
    assert [planned.config.optim.lr for planned in runs] == [0.1, 0.05]
    assert [planned.variant for planned in runs] == ["optim.lr=0.1", "optim.lr=0.05"]
    assert runs[0].folder == tmp_path / "optim.lr=0.1" / "vision" / "digits" / "golu" / "seed4"
    assert all(planned.config.epochs == 2 and planned.config.drop_last for planned in runs)
    assert "--drop-last" in runs[0].arguments
    assert "--no-compile" in runs[0].arguments


def test_a_list_in_a_list_is_one_value(tmp_path):
    flags = {"schedule.milestones": [[1, 2]], "schedule": "milestones"}
    (planned,) = study(
        {"experiment": [{"recipes": ["digits"], "flags": flags, "activations": ["SiLU"], "seeds": [0]}]}, tmp_path
    )
    assert planned.config.schedule.milestones == (1, 2)
    assert planned.config.activation == "swish"
    assert planned.variant == ""


def test_activations_vary_fastest(tmp_path):
    runs = study({"experiment": [{"recipes": ["digits"]}], "activations": ["relu", "golu"], "seeds": [0, 1]}, tmp_path)
    assert [(planned.config.seed, planned.config.activation) for planned in runs] == [
        (0, "relu"), (0, "golu"), (1, "relu"), (1, "golu"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"experiment": []}, "no [[experiment]]"),
        ({"experiment": [{"recipes": ["digit"]}]}, "unknown recipe 'digit'"),
        ({"experiment": [{"recipes": ["digits"]}], "activations": ["reul"]}, "reul"),
        ({"experiment": [{"recipes": ["digits"], "flags": {"epoch": 3}}]}, "flags of digits are wrong"),
        ({"experiment": [{"recipes": ["digits"], "flags": {"epochs": "three"}}]}, "are wrong, see above"),
        ({"experiment": [{"recipe": ["digits"]}]}, "not a study"),
        ({"experiment": [{"recipes": ["digits"]}], "seed": [0]}, "seed"),
        ({"experiment": [{"recipes": ["digits"]}], "parallel": 0}, "parallel must be at least 1"),
        ({"experiment": [{"recipes": ["digits", "digits"]}]}, "the study has the run"),
        ({"experiment": [{"recipes": ["digits"], "after": "resnet5-imagenet"}]}, "unknown recipe 'resnet5-imagenet'"),
        ({"experiment": [{"recipes": ["digits"], "flags": {"data.name": "{seeds}"}}]}, "the placeholders are"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_studies(values, message, tmp_path):
    with pytest.raises(RequestError, match=re.escape(message)):
        study(values, tmp_path)


def flags_of_every_run() -> set[str]:
    """Which flags the command of a run has that no study asks for."""
    values = {"experiment": [{"recipes": ["digits"]}], "data_dir": "data", "output_dir": "runs"}
    arguments = planned_runs(study_from(values, "a test"))[0].arguments
    return {word.removeprefix("--") for word in arguments if word.startswith("--")} | {"dry-run", "recipe"}


@pytest.mark.parametrize("value", ["3", 3, True, False, [1, 2]], ids=str)
@pytest.mark.parametrize("name", sorted(flags_of_every_run()))
def test_what_the_study_sets_itself_is_refused_in_flags(name, value, tmp_path, capsys):
    for spelled in (name, name.replace("-", "_")):
        with pytest.raises(RequestError, match="which the study sets for each run: use"):
            study({"experiment": [{"recipes": ["digits"], "flags": {spelled: value}}]}, tmp_path)
    assert run(*digits(tmp_path, "--set", f"{name}=1", "--print")) == 2
    assert f"flags cannot have {name}" in capsys.readouterr().err


def test_the_flags_of_every_run_are_four():
    assert flags_of_every_run() == {"activation", "data-dir", "dry-run", "output-dir", "recipe", "seed"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"optim.lr": []}, "optim.lr is an empty list"),
        ({"optim": {"lr": []}}, "optim.lr is an empty list"),
        ({"optim.lr": 0.1, "optim": {"lr": 0.2}}, "flags has optim.lr twice"),
        ({"max_steps": 2, "max-steps": 3}, "flags has max-steps twice"),
        ({"seed=3": True}, "is not the name of a flag"),
        ({"--seed": 3}, "is not the name of a flag"),
        ({"epochs": [["2", "--seed", "4"]]}, "epochs cannot be '--seed'"),
    ],
    ids=str,
)
def test_flags_that_would_train_something_else(flags, message, tmp_path):
    with pytest.raises(RequestError, match=re.escape(message)):
        study({"experiment": [{"recipes": ["digits"], "flags": flags}]}, tmp_path)


def test_set_replaces_a_flag_however_it_is_spelled(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text('[[experiment]]\nrecipes = ["digits"]\nflags = { max_steps = [3, 4], optim.lr = 0.1 }\n')
    (experiment,) = sweep.study_of(sweep.Flags(study=str(file), set=("max-steps=2", "optim.lr=0.2"))).experiment
    assert experiment.flags == {"max-steps": 2, "optim.lr": 0.2}


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["--recipes", "digits", "--set", "epochs"], ["quick", "--recipes", "x"]]
)
def test_wrong_requests(arguments, capsys):
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_malformed_file_is_named(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text("seeds = [")
    assert run(tmp_path / "mine.toml") == 2
    assert "mine.toml cannot be read" in capsys.readouterr().err


def test_print_shows_the_plain_commands(tmp_path, capsys):
    assert run(*digits(tmp_path, "--activations", "relu", "golu", "--seeds", "0", "--print")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    words = shlex.split(lines[1])
    assert words[:2] == ["accelerate", "launch"]
    assert words[words.index("-m") :][:4] == ["-m", "golu_vision", "train", "digits"]
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------------------------------------- on this machine


def test_a_study_runs_and_is_not_run_again(tmp_path, stood_in, capsys):
    arguments = digits(tmp_path, "--activations", "relu", "golu", "--seeds", "0", "1")
    assert run(*arguments) == 0
    assert len(stood_in()) == 4
    assert "all runs are finished" in capsys.readouterr().out
    assert run(*arguments) == 0
    assert len(stood_in()) == 4
    log = (tmp_path / "runs" / "logs" / "digits-golu-seed1.log").read_text()
    assert log.startswith("$ accelerate launch ")


def test_several_at_a_time(tmp_path, stood_in):
    assert run(*digits(tmp_path, "--activations", "relu", "golu", "mish", "--seeds", "0", "--parallel", "3")) == 0
    times = [start["time"] for start in stood_in()]
    threads = {start["words"][start["words"].index("--num_cpu_threads_per_process") + 1] for start in stood_in()}
    assert len(times) == 3
    assert threads == {str(max(1, (os.cpu_count() or 1) // 3))}


def test_each_run_has_its_own_gpus(tmp_path, stood_in, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: ["3", "5", "6", "7"])
    assert run(*digits(tmp_path, "--activations", "relu", "golu", "--seeds", "0", "--processes", "2")) == 0
    assert {start["gpus"] for start in stood_in()} == {"3,5", "6,7"}
    assert all("--multi_gpu" in start["words"] for start in stood_in())
    assert run(*digits(tmp_path, "--processes", "5")) == 2


def test_runs_of_several_sizes_share_no_gpu(tmp_path, stood_in, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: list("01234567"))
    file = tmp_path / "study.toml"
    file.write_text(
        f"""
        output_dir = "{tmp_path / "runs"}"
        activations = ["golu"]
        seeds = [0]
        [[experiment]]
        recipes = ["digits"]
        processes = 4
        [[experiment]]
        recipes = ["resnet20-cifar10"]
        """
    )
    assert run(file) == 0
    assert {start["gpus"] for start in stood_in()} == {"0,1,2,3", "4"}


def test_a_part_of_a_study_needs_nothing_of_the_rest():
    flags = sweep.Flags(study="paper", recipes=("fasterrcnn-resnet50-fpn-coco",))
    assert {planned.after for planned in planned_runs(sweep.study_of(flags))} == {None}


@pytest.mark.parametrize(
    ("gpus", "processes", "asked", "given"), [(1, 1, 2, 1), (4, 1, None, 4), (4, 2, None, 2), (4, 1, 3, 3)]
)
def test_no_more_runs_than_gpus(gpus, processes, asked, given, tmp_path):
    values = {"experiment": [{"recipes": ["digits"]}], "processes": processes, "output_dir": str(tmp_path)}
    made = study_from(values | ({} if asked is None else {"parallel": asked}), "a test")
    assert sweep._parallel(made, planned_runs(made), gpus) == given


def test_a_failed_run_does_not_stop_the_others(tmp_path, stood_in, monkeypatch, capsys):
    monkeypatch.setenv("BEHAVIOR", '{"mish": "fail"}')
    arguments = digits(tmp_path, "--activations", "mish", "golu", "--seeds", "0", "1")
    assert run(*arguments) == 1
    shown = capsys.readouterr().out
    assert "failed: digits-mish-seed1: golu-vision: the loss of step 7 is nan; log: " in shown
    assert len(stood_in()) == 4
    monkeypatch.delenv("BEHAVIOR")
    assert run(*arguments) == 1  # not tried again unless asked to
    assert "failed before; pass --retry to train it again" in capsys.readouterr().out
    assert len(stood_in()) == 4
    assert run(*arguments, "--status") == 0
    assert run(*arguments, "--retry") == 0
    assert len(stood_in()) == 6


def test_a_killed_run_is_named_as_such(tmp_path, stood_in, monkeypatch, capsys):
    monkeypatch.setenv("BEHAVIOR", '{"golu": "killed"}')
    assert run(*digits(tmp_path, "--activations", "golu", "--seeds", "0")) == 1
    assert "digits-golu-seed0: killed by SIGKILL; last line: step 7; log: " in capsys.readouterr().out


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_stops_the_runs_and_the_same_command_goes_on(number, tmp_path, stood_in, monkeypatch, capsys):
    monkeypatch.setenv("BEHAVIOR", '{"golu": "sleep"}')
    monkeypatch.setattr(local, "leave_closed_terminal", lambda number: None)  # there is none, and output is captured
    arguments = digits(tmp_path, "--activations", "relu", "golu", "--seeds", "0", "--parallel", "2")
    folder = tmp_path / "runs" / "vision" / "digits" / "golu" / "seed0"

    def once_it_runs() -> None:
        while not (folder / "config.json").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)  # what a terminal leaves to a program
    try:
        threading.Thread(target=once_it_runs).start()
        begun = time.monotonic()
        assert run(*arguments) == 128 + number
    finally:
        signal.signal(number, before)
    assert time.monotonic() - begun < 30
    shown = capsys.readouterr()
    assert "the same command continues the study" in shown.err and "stopped" in shown.out
    assert not list((tmp_path / "runs" / "logs").glob("*.failed"))
    assert run(*arguments) == 0
    assert [start["continued"] for start in stood_in() if "golu" in start["folder"]] == [False, True]


def test_a_closed_terminal_does_not_break_what_is_still_printed():
    """A program on a terminal of its own, which is closed while it runs."""
    program = (
        "import signal, time\n"
        "from golu_core.training.distributed.signals import leave_closed_terminal\n"
        "seen = []\n"
        "signal.signal(signal.SIGHUP, lambda number, frame: (leave_closed_terminal(number), seen.append(number)))\n"
        "print('ready', flush=True)\n"
        "while not seen: time.sleep(0.05)\n"
        "print('nobody reads this', flush=True)\n"
    )
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=its,
        stdout=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    assert b"ready" in os.read(ours, 100)
    os.close(ours)
    assert process.wait(30) == 0


def test_nohup_is_heeded(tmp_path, stood_in, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGHUP)).start()
        assert run(*digits(tmp_path, "--activations", "golu", "--seeds", "0")) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_failed_run_was_for_is_not_tried(tmp_path, stood_in, monkeypatch, capsys):
    monkeypatch.setenv("BEHAVIOR", '{"mish": "fail"}')
    file = tmp_path / "study.toml"
    file.write_text(
        f"""
        output_dir = "{tmp_path / "runs"}"
        activations = ["mish", "golu"]
        seeds = [0]
        parallel = 2
        [[experiment]]
        recipes = ["resnet20-cifar10"]
        after = "digits"
        [[experiment]]
        recipes = ["digits"]
        """
    )
    assert run(file) == 1
    order = [
        (start["words"][start["words"].index("train") + 1], start["folder"].split("/")[-2]) for start in stood_in()
    ]
    assert sorted(order[:2]) == [("digits", "golu"), ("digits", "mish")]
    assert order[2:] == [("resnet20-cifar10", "golu")]
    assert "waits in vain: resnet20-cifar10-mish-seed0" in capsys.readouterr().out


def test_a_run_of_another_config_is_not_taken_for_ours(tmp_path, stood_in, capsys):
    assert run(*digits(tmp_path, "--activations", "golu", "--seeds", "0")) == 0
    other = ["--recipes", "digits", "--set", "epochs=3", "--activations", "golu", "--seeds", "0"]
    assert run(*other, "--output-dir", tmp_path / "runs") == 2
    assert "epochs: 2 there, 3 asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "seen", "starts"),
    [("slow", "only by the run itself", 1), ("sleep", "before it is started", 2)],
    ids=["finishes", "is killed"],
)
def test_a_run_of_another_process_is_waited_for(other, seen, starts, tmp_path, stood_in, capsys, monkeypatch):
    """It is neither a failure nor a success; what the other process leaves unfinished is continued."""
    monkeypatch.setattr(local, "_SECONDS_BETWEEN_LOOKS_ELSEWHERE", 0.2)
    (planned,) = study(
        {"experiment": [{"recipes": ["digits"], "flags": {"epochs": 2}}], "activations": ["golu"], "seeds": [0]},
        tmp_path / "runs",
    )
    words = [sys.executable, str(STAND_IN), *planned.command(None)[2:]]
    process = subprocess.Popen(words, env={**os.environ, "BEHAVIOR": json.dumps({"golu": other})})
    try:
        while not is_claimed(planned.folder):
            time.sleep(0.05)
        if seen == "only by the run itself":
            looks = iter(range(2))  # at the beginning, and before the run is started
            monkeypatch.setattr(
                local,
                "is_claimed",
                lambda folder: is_claimed(folder) and (folder != planned.folder or next(looks, None) is None),
            )
            starts += 1
        if other == "sleep":
            threading.Timer(2.0, process.kill).start()
        assert run(*digits(tmp_path, "--activations", "golu", "relu", "--seeds", "0")) == 0
    finally:
        process.kill()
        process.wait()
    assert sum("/golu/" in start["folder"] for start in stood_in()) == starts
    shown = capsys.readouterr().out
    assert "digits-golu-seed0" in shown and "another process is training it" in shown
    assert "all runs are finished" in shown
    assert not list((tmp_path / "runs" / "logs").glob("*.failed"))


def test_status_shows_what_another_process_trains(tmp_path, stood_in, capsys):
    (planned,) = study(
        {"experiment": [{"recipes": ["digits"], "flags": {"epochs": 2}}], "activations": ["golu"], "seeds": [0]},
        tmp_path / "runs",
    )
    lock = claim(planned.folder)
    assert run(*digits(tmp_path, "--activations", "golu", "--seeds", "0", "--status")) == 0
    lock.release()
    assert "elsewhere: digits-golu-seed0: another process is training it" in capsys.readouterr().out


def test_what_another_sweep_saw_fail_is_not_tried_again(tmp_path, stood_in, monkeypatch):
    """Two sweeps began with the same list, and one came to the run first."""
    planned = study({"experiment": [{"recipes": ["digits"]}], "activations": ["golu"], "seeds": [0]}, tmp_path / "runs")
    (job,) = local.jobs_of(planned, tmp_path / "runs" / "logs", retry=False)
    local.make_log_folder(job.log.parent)
    job.failure_note.write_text("exit status 1")
    local.LocalStudy([job], 1, [], view.StudyView([job], 1)).run()
    assert job.state is local.State.FAILED and not stood_in()


def test_the_view_counts_and_tells_the_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(view.time, "monotonic", lambda: 1000.0)
    jobs = [
        local.Job(planned, tmp_path / planned.name, state)
        for planned, state in zip(
            study(
                {"experiment": [{"recipes": ["digits"]}], "activations": ["golu"], "seeds": list(range(5))}, tmp_path
            ),
            [local.State.RUNNING, local.State.NEW, local.State.NEW, local.State.FAILED, local.State.NEW],
            strict=True,
        )
    ]
    shown = view.StudyView(jobs, parallel=2)
    assert shown.left() == "time left unknown yet"
    jobs[4].state, jobs[4].seconds = local.State.FINISHED, 60.0
    jobs[0].started = 980.0
    assert shown.left() == "80 s left"  # 40 s of the running one and 60 s of each of two, two at a time
    Console(width=100).print(shown._picture())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "1 of 5 runs finished, 1 running, 2 waiting, 1 failed; 80 s left"
    assert printed[2].split() == ["digits-golu-seed0", "20", "s", "starting"]


def test_durations():
    assert [view.duration(seconds) for seconds in (0.2, 47, 89.5, 600, 3 * 3600 + 300)] == [
        "1 s", "47 s", "90 s", "10 min", "3 h 05 min",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- power


def test_power_is_told_from_runs_or_from_the_paper(tmp_path, capsys):
    """And nothing is run."""
    for activation in ("relu", "golu"):
        for seed in range(4):
            top1 = 90.0 + (seed % 2 if activation == "golu" else 0)
            write_run(tmp_path / "runs", "vision", "digits", activation, seed, {"top1": top1})
    words = ["--recipes", "digits", "resnet50-imagenet", "mlp-mnist", "--activations", "relu", "golu"]
    assert run(*words, "--seeds", "0", "1", "2", "--output-dir", tmp_path / "runs", "--power", "1") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "ReLU" in line}
    assert "0.642" in lines["digits"] and "4 seeds of this study" in lines["digits"]  # of 90, and sqrt(1/3)
    wider = numpy.std([-1, 0, 1], ddof=1) / (numpy.std([-1, 0, 1]) / math.sqrt(3))  # the printed ± is std(ddof=0)/√3
    assert f" {100 * wider * math.hypot(0.07, 0.03) / 75.44:.3g} " in lines["resnet50-imagenet"]
    assert "the paper" in lines["resnet50-imagenet"] and "train three seeds first" in lines["mlp-mnist"]
    assert not (tmp_path / "runs" / "logs").exists()
    assert run(*words, "--power", "0") == 2


# ----------------------------------------------------------------------------------------------------------- SLURM


def test_slurm_arrays(tmp_path, stood_in, monkeypatch, capsys):
    """An sbatch that only keeps what it was given."""
    scripts = tmp_path / "scripts"
    programs = tmp_path / "bin"
    for folder in (scripts, programs):
        folder.mkdir()
    (programs / "srun").write_text("#!/bin/sh\n")
    (programs / "sbatch").write_text(
        f'#!/bin/sh\nn=$(ls {scripts} | wc -l)\ncp "$1" {scripts}/$n\necho "Submitted batch job 10$n"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    file = tmp_path / "study.toml"
    file.write_text(
        f"""
        output_dir = "{tmp_path / "runs"}"
        activations = ["relu", "golu"]
        seeds = [0, 1]
        [[experiment]]
        recipes = ["digits"]
        processes = 4
        [[experiment]]
        recipes = ["resnet20-cifar10"]
        after = "digits"
        """
    )
    assert run(file, "--cluster", "slurm", "--partition", "gpu", "--minutes", "90", "--at-a-time", "3") == 0
    first, second = (path.read_text() for path in sorted(scripts.iterdir()))
    for line in ("--array=0-3%3", "--partition=gpu", "--time=90", "--gpus-per-node=4", "--job-name=digits"):
        assert f"#SBATCH {line}" in first
    assert "--gpus-per-node=1" in second
    assert "#SBATCH --dependency=afterany:100" in second
    assert "8 runs submitted, 0 were already finished" in capsys.readouterr().out


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """An sbatch that numbers its jobs, and a squeue that lists what a file has."""
    programs, queue = tmp_path / "bin", tmp_path / "queue"
    programs.mkdir()
    queue.write_text("")
    (tmp_path / "count").write_text("100")
    sbatch = f'n=$(cat {tmp_path}/count)\nexpr $n + 1 > {tmp_path}/count\necho "Submitted batch job $n"\n'
    for name, body in (("srun", ""), ("sbatch", sbatch), ("squeue", f"cat {queue}\n")):
        (programs / name).write_text(f"#!/bin/sh\n{body}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return SimpleNamespace(queue=queue, programs=programs)


def test_what_is_queued_is_not_submitted_twice(tmp_path, slurm, stood_in, capsys):
    words = digits(tmp_path, "--cluster", "slurm", "--seeds", "0", "1", "--activations", "relu", "golu")
    assert run(*words) == 0
    count = int(capsys.readouterr().out.split(" runs submitted")[0].split()[-1])
    assert count == 4
    slurm.queue.write_text("100_0\n100_1\n100_3\n7\n")  # one has left the queue without a result
    assert run(*words) == 0
    assert "1 run submitted, 0 were already finished, 3 are already queued" in capsys.readouterr().out
    slurm.queue.write_text("100_0\n100_1\n101\n100_3\n")  # a job alone is not an array
    assert run(*words) == 0
    assert "0 runs submitted, 0 were already finished, 4 are already queued" in capsys.readouterr().out


def test_without_an_answer_of_squeue_nothing_is_submitted(tmp_path, slurm, stood_in, capsys):
    words = digits(tmp_path, "--cluster", "slurm")
    assert run(*words) == 0
    (slurm.programs / "squeue").write_text("#!/bin/sh\necho slurm_load_jobs error >&2\nexit 1\n")
    capsys.readouterr()
    assert run(*words) == 2
    assert "squeue does not report which are still queued: slurm_load_jobs error" in capsys.readouterr().err


def test_what_failed_on_a_cluster_is_tried_again_only_if_asked(tmp_path, slurm, stood_in, capsys):
    words = digits(tmp_path, "--cluster", "slurm")
    assert run(*words) == 0
    capsys.readouterr()
    study_runs = tmp_path / "runs"
    note = study_runs / "logs" / "digits-golu-seed0.failed"
    command = ContinuedCommand([sys.executable, "-c", "raise SystemExit(1)"], tmp_path, note)
    with pytest.raises(FailedJobError):
        command()
    assert "status 1" in note.read_text()
    assert run(*words) == 0
    assert "1 failed before (pass --retry to train them again)" in capsys.readouterr().out
    assert run(*words, "--retry") == 0
    assert "failed before" not in capsys.readouterr().out


@pytest.mark.parametrize(("status", "noted"), [(0, False), (143, False), (130, False), (1, True), (2, True)])
def test_only_failures_leave_a_note(status, noted, tmp_path):
    local.make_log_folder(tmp_path)
    note = tmp_path / "a.failed"
    note.write_text("of an earlier attempt")
    command = ContinuedCommand([sys.executable, "-c", f"raise SystemExit({status})"], tmp_path, note)
    with contextlib.nullcontext() if status == 0 else pytest.raises(FailedJobError):
        command()
    assert note.exists() is noted


def test_a_run_of_another_process_leaves_no_note(tmp_path):
    local.make_log_folder(tmp_path)
    refused = f"import sys; sys.exit('golu-vision: {BUSY} runs/here')"
    with pytest.raises(FailedJobError):
        ContinuedCommand([sys.executable, "-c", refused], tmp_path, tmp_path / "a.failed")()
    assert not (tmp_path / "a.failed").exists()


def test_no_slurm_here(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(*digits(tmp_path, "--cluster", "slurm")) == 2
    assert "slurm" in capsys.readouterr().err.lower()


@pytest.mark.slow
def test_submitits_local_executor_trains(tmp_path, capsys):
    arguments = [
        "--recipes",
        "digits",
        "--set",
        "max-steps=2",
        "--activations",
        "golu",
        "--output-dir",
        tmp_path / "runs",
    ]
    arguments += ["--seeds", "0", "--data-dir", tmp_path / "data", "--cluster", "local", "--wait"]
    assert run(*arguments) == 0, capsys.readouterr().out
    assert (tmp_path / "runs" / "vision" / "digits" / "golu" / "seed0" / "result.json").exists()
    assert run(*arguments) == 0
    assert "0 runs submitted, 1 were already finished" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_trains_and_its_commands_are_those_of_a_person(tmp_path):
    common = ["--recipes", "digits", "--set", "max-steps=3", "--activations", "relu", "golu", "--seeds", "0"]
    common += ["--data-dir", str(tmp_path / "data"), "--parallel", "2"]
    script = str(TOOLS / "sweep.py")

    def sweep_in(folder: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, script, *common, "--output-dir", str(tmp_path / folder), *more]
        return subprocess.run(words, capture_output=True, text=True, timeout=300)

    done = sweep_in("runs")
    assert done.returncode == 0, done.stdout + done.stderr
    printed = sweep_in("typed", "--print").stdout.splitlines()
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    typed = subprocess.run(printed[1], shell=True, env=environment, capture_output=True, text=True, timeout=300)
    assert typed.returncode == 0, typed.stderr
    one, two = (
        json.loads((tmp_path / folder / "vision" / "digits" / "golu" / "seed0" / "result.json").read_text())
        for folder in ("runs", "typed")
    )
    assert one["metrics"] == two["metrics"]
    assert one["config_sha256"] == two["config_sha256"]
