"""`--help` of each command lists exactly the flags that the command understands."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from golu_core import cli
from golu_core.studies.analyze import ANALYSES
from golu_core.training.config.identity import flattened
from golu_core.training.config.run_config import to_json
from golu_core.training.config.variants import kind_of, variant_fields
from golu_core.training.messages import progress
from golu_core.training.tasks import recipe_page
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.opening import next_steps
from golu_core.training.tasks.recipe_page import note_of
from golu_core.training.tasks.task import Task, installed_tasks, recipes_of

PACKAGES = sorted(Path(__file__).resolve().parents[2].glob("packages/*/src"))
_FLAG = r"--[A-Za-z][\w.-]*"
_LISTED = re.compile(rf"^[│ ]+(?:-h, )?({_FLAG})(?:, ({_FLAG}))?|\[({_FLAG})\]", re.MULTILINE)
"""A flag at the start of a line of `--help`, perhaps with the one that turns it off; or in the usage as [--version]."""


@dataclass(frozen=True)
class Program:
    """A command as it is typed."""

    words: tuple[str, ...]

    def said(self, arguments: Sequence[str], capsys: pytest.CaptureFixture[str], columns: int = 20_000) -> str:
        """What the command prints, in lines so long that a list of flags is on one."""
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setenv("COLUMNS", str(columns))
            patch.setattr("sys.argv", [*self.words, *arguments])
            SCRIPTS[self.words[0]].load()()
        said = capsys.readouterr()
        return said.out + said.err

    def help(self, capsys: pytest.CaptureFixture[str]) -> str:
        """Its `--help`, too narrow for two lists of flags side by side."""
        return self.said(["--help"], capsys, columns=100)


def programs() -> Iterator[Program]:
    """Each console script, and each of its commands; `train` with a recipe of each kind."""
    for script in SCRIPTS:
        yield Program((script,))
    for task in installed_tasks().values():
        for name in CommandLine(task).commands:
            yield Program((task.program, name))
        for recipe in one_of_each_kind(task):
            yield Program((task.program, "train", recipe))
    for command in ("activations", *cli._STUDIES):
        yield Program(("golu-core", command))
    for analysis in ANALYSES:
        yield Program(("golu-core", "analyze", analysis))


def one_of_each_kind(task: Task[Any]) -> list[str]:
    """Recipes of which no two have the same fields."""
    kinds: dict[Any, str] = {}
    for name, recipe in recipes_of(task).items():
        chosen = tuple((path, kind_of(value_at(recipe, path))) for path, _ in variant_fields(recipe))
        kinds.setdefault((type(recipe), chosen), name)
    return list(kinds.values())


def value_at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


def written_flags() -> set[str]:
    """Whatever looks like a flag in a string of the sources: a reader of its own must name the flag that it reads."""
    found: set[str] = set()
    for path in (path for package in PACKAGES for path in package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {flag.rstrip(".-") for flag in re.findall(rf"(?<![\w-]){_FLAG}", node.value)}
    return found


SCRIPTS = {s.name: s for s in metadata.entry_points(group="console_scripts") if s.value.startswith("golu_")}
PROGRAMS = list(programs())
NO_FLAG = "--no-such-flag"
"""Added to every command, so that none does what it is asked to: some would train a recipe."""
FLAGS = {flag for flag in written_flags() if "_" not in flag}  # tyro understands both spellings


def listed(help_text: str) -> set[str]:
    choices = re.findall(r"^--.*", help_text, re.MULTILINE)  # above tyro's list
    return {flag for match in _LISTED.findall(help_text) for flag in match if flag}.union(
        *(re.findall(_FLAG, line) for line in choices)
    )


def refused(said: str) -> set[str]:
    """The flags that a message does not understand."""
    found = re.search(
        r"(?:Unrecognized options:|unknown (?:command|recipe|analysis)|there is no analysis|got)(.*)", said
    )
    return set(re.findall(_FLAG, found.group(1))) if found else set()


def required(help_text: str) -> list[str]:
    """Arguments without which a command is refused whatever else it gets."""
    entries = re.split(r"^[│ ] (?=\S)", help_text, flags=re.MULTILINE)  # an entry can go on in the next line
    heads = [re.match(rf"({_FLAG} )?(\S+) ", entry) for entry in entries if "(required)" in entry]
    rows = [(head.group(1) or "", head.group(2)) for head in heads if head is not None]
    return [word for flag, _ in sorted(rows) for word in ([flag.strip(), "x"] if flag else ["x"])]


def understood(program: Program, flags: Sequence[str], more: Sequence[str], capsys: Any) -> dict[str, str]:
    """The flags that a command does not refuse, and what it says of each; halves are tried until one is left."""
    if not flags:
        return {}
    said = program.said([*more, *flags, NO_FLAG], capsys)
    rest = [flag for flag in flags if flag not in refused(said)]
    if len(flags) == 1:
        return dict.fromkeys(rest, said)
    middle = len(rest) // 2
    first, second = (understood(program, half, more, capsys) for half in (rest[:middle], rest[middle:]))
    return first | second


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: " ".join(program.words))
def test_help_lists_every_flag_that_the_command_understands(program: Program, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    help_text = program.help(capsys)
    assert help_text.startswith("usage: "), help_text
    others = sorted(FLAGS - listed(help_text) - {"--help"})
    found = understood(program, others, required(help_text), capsys)
    # old names, which are understood for one version, are on no `--help`
    assert [flag for flag, said in found.items() if not re.search(rf"{flag} is now |\bnow prepared by", said)] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_command_understands_the_flags_above_tyros_list(script: str, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tried: set[str] = set()
    for program in (program for program in PROGRAMS if program.words[0] == script):
        for flag in listed(program.help(capsys).partition("─ options")[0]) - {"--help"} - tried:
            tried.add(flag)
            assert flag not in refused(program.said([flag, NO_FLAG], capsys)), program
    assert tried


@pytest.mark.parametrize("command", ["aggregate", "analyze", "check", "sweep"])
def test_help_of_studies_shows_no_type_names_of_python(command, capsys):
    """No `{None}|STR`, no `(default: None)`, and no panel named after a field."""
    for words in [("analyze", name) for name in ANALYSES] if command == "analyze" else [(command,)]:
        shown = Program(("golu-core", *words)).help(capsys)
        assert "usage:" in shown and "None" not in shown and "needs options" not in shown


def test_there_is_something_to_test():
    assert len(PROGRAMS) > 50 and {"--activation", "--trust-activation", "--version", "--pair"} <= FLAGS
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("words", [["activations"], ["--help"], []], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(words: list[str]):
    """`golu-core activations | head` ended with a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "golu_core", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("task", installed_tasks().values(), ids=lambda task: task.name)
def test_the_next_steps_of_a_run_are_commands(task, tmp_path, monkeypatch, capsys):
    """Each is understood as it is printed, and refused for the folder alone, which is none of a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    (tmp_path / "a run").mkdir()
    commands = [shlex.split(text) for name, text in next_steps(task, Path("a run")) if name != "curves"]
    assert [words[:2] for words in commands[:1]] == [[task.program, "evaluate"]] and len(commands) == 2
    for words in commands:
        assert CommandLine(task).main(words[1:]) == 2
        assert "a run" in capsys.readouterr().err


def test_lines_of_a_log_have_the_learning_rate(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    progress.TrainingProgress(10, "images/s", enabled=True).step(3, "1", loss=0.5, lr=0.00125, throughput=1234.4)
    assert capsys.readouterr().out == "step 3/10  epoch 1  loss 0.5  lr 0.00125  1,234 images/s\n"


RECIPES = [(task, name) for task in installed_tasks().values() for name in recipes_of(task)]


@pytest.mark.parametrize(("task", "name"), RECIPES, ids=lambda part: getattr(part, "name", part))
def test_a_recipe_is_shown_with_every_setting_and_the_papers_results(task, name, capsys):
    assert CommandLine(task).main(["recipes", "--show", name]) == 0
    shown, recipe = capsys.readouterr().out, recipes_of(task)[name]
    settings = flattened(to_json(recipe), frozenset({"paper", "recipe", "activation_source"}))
    found = dict(line.split(None, 1) for line in shown.partition("settings, each")[2].splitlines()[1:])
    assert {setting: json.loads(value) for setting, value in found.items()} == json.loads(json.dumps(settings))
    for by_activation in (recipe.paper.results if recipe.paper else {}).values():
        assert all(f"{activation} {mean:g} ± {off:g}" in shown for activation, (mean, off) in by_activation.items())


def test_notes_of_recipes_are_those_of_the_source(capsys):
    """Each text below a recipe's assignment is on exactly the page of that recipe."""
    count = 0
    for task in {task.name: task for task, _ in RECIPES}.values():
        module = importlib.import_module(f"{task.package}.recipes")
        texts = [text for _, text in recipe_page._noted(ast.parse(inspect.getsource(module)))]
        notes = [note_of(task, name) for name in recipes_of(task)]
        count += len([note for note in notes if note])
        assert {note for note in notes if note} <= {" ".join(text.split()) for text in texts}
    assert count >= 5
