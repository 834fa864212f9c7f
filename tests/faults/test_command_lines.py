"""Values that nobody should type, for every flag of every recipe and for every command: a config or one message."""

from __future__ import annotations

import io
import os
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golu_core.studies import aggregate, analyze, check, sweep
from golu_core.training.config.identity import flattened
from golu_core.training.config.run_config import RunConfig, to_json
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.task import installed_tasks, recipes_of
from golu_detect.cli import COMMAND_LINE as DETECT
from golu_diffusion.cli import COMMAND_LINE as DIFFUSION
from golu_lm.cli import COMMAND_LINE as LM
from golu_translate.cli import COMMAND_LINE as TRANSLATION
from golu_vision.cli import COMMAND_LINE as VISION

COMMAND_LINES = {"vision": VISION, "lm": LM, "translation": TRANSLATION, "detect": DETECT, "diffusion": DIFFUSION}
PROGRAMS = {line.program: line for line in COMMAND_LINES.values()}
STUDIES = {"sweep": sweep.main, "aggregate": aggregate.main, "analyze": analyze.main, "check": check.main}
ODD_WORDS = [
    "",
    " ",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0",
    "-0.0",
    "9" * 40,
    "1_000",
    "0x10",
    "1.5",
    "None",
]
ODD_WORDS += ["True", "[]", "{}", "()", "'", '"', "\\", "/", ".", "..", "~", "--", "-", "=1", "%s", "{0}", "$HOME", "*"]
ODD_WORDS += [
    "\u202e",
    "\u00a0",
    "é",
    "e\u0301",
    "\ud7ff",
    "😀",
    "١٢",
    "\x1b[31m",
    "a\nb",
    "\t",
    "x" * 5000,
    "NUL",
    "relu,gelu",
]
values = st.one_of(
    st.sampled_from(ODD_WORDS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
    st.text(string.digits + ".-+e", max_size=12),
    st.floats().map(repr),
    st.integers(-(2**70), 2**70).map(str),
)
SLOW_IS_FINE = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def flags_of(config: RunConfig) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in flattened(to_json(config), frozenset())]


FLAGS = {
    task.name: sorted({(name, flag) for name, recipe in recipes_of(task).items() for flag in flags_of(recipe)})
    for task in installed_tasks().values()
    if task.name in COMMAND_LINES
}


@pytest.mark.parametrize("task", FLAGS)
@given(data=st.data())
@SLOW_IS_FINE
def test_a_wrong_value_is_one_message(task, data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    recipe, flag = data.draw(st.sampled_from(FLAGS[task]))
    value = data.draw(values)
    refusal = ""
    try:
        COMMAND_LINES[task].config([recipe, flag, value])
    except RequestError as error:
        refusal = str(error)
    except SystemExit as stop:  # tyro's
        refusal = capfd.readouterr().err if stop.code == 2 else ""
    else:
        refusal = "none"
    assert refusal.strip() and "Traceback" not in refusal
    assert os.listdir(tmp_path) == []


SLOW_PLACES = {" ", "/dev/null", "a\nb", "no-such-folder", "é😀", "-", "--help-me", "."}
PLACES = ["", " ", ".", "/dev/null", "a\nb", "x" * 300, "no-such-folder", "file.txt", "empty", "é😀", "-", "--help-me"]


def commands() -> list[tuple[str, str]]:
    """Each command that reads a place: of a run, a study, runs, images or an activation."""
    own = [(program, "evaluate") for program in PROGRAMS]
    own += [
        (program, name) for program, line in PROGRAMS.items() for name in line.task.commands if name != "sample-data"
    ]
    return sorted({*own, *((program, "export") for program in PROGRAMS), *(("golu-core", name) for name in STUDIES)})


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, marks=[pytest.mark.slow] if place in SLOW_PLACES else []) for place in PLACES],
    ids=lambda place: repr(place)[:20],
)
@pytest.mark.parametrize(("program", "command"), commands(), ids=lambda word: word)
def test_a_wrong_place_is_one_message(program, command, place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    (tmp_path / "file.txt").write_text("not what was asked for")
    (tmp_path / "empty").mkdir()
    before = snapshot(tmp_path)
    try:
        if program == "golu-core":
            status: object = STUDIES[command]([place])
        else:
            status = PROGRAMS[program].main([command, place])
    except SystemExit as stop:
        status = stop.code
    printed = capfd.readouterr()
    assert status == 2, printed
    assert printed.err.strip() and "Traceback" not in printed.err
    assert snapshot(tmp_path) == before


def test_every_flag_is_drawn_from():
    assert set(FLAGS) == set(COMMAND_LINES)
    assert min(map(len, FLAGS.values())) > 100
