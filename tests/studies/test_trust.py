"""Run folders and studies that somebody else made run no code: every command that reads one, and every kind of code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from golu_core import cli
from golu_core.activation.names import loading
from golu_core.studies.analyze import ANALYSES
from golu_core.training.config.named_activations import ACTIVATION_FILE
from golu_core.training.config.run_config import RunConfig
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import installed_tasks, resolved
from runs_on_disk import write_run

EVIL = "from pathlib import Path\nPath(__file__).parent.joinpath('marker').touch()\nPath('marker').touch()\n"
SPECS = {
    "file": "evil.py:Evil",
    "package": "evil_package.module.Evil",
    "writes": "torch.save(f='marker')",
    "runs a file": "torch._inductor.runtime.compile_tasks._reload_python_module(path='evil.py')",
    "hub": "torch.hub.load(model='evil', repo_or_dir='.', source='local', trust_repo=True)",
    "harmless": "torch.tanh",
}
"""Activations as a config may name them, by what building them would do."""
CODE = """
import torch

class Evil(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)

def evil(*args, **kwargs):
    return Evil()
"""
READ_ONLY = ("aggregate", "weights", "ablation")  # tables of numbers, for which no network is built
MORE = {"export": ["--out", "out"]}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory in which all of the specs would find their code."""
    monkeypatch.setattr(loading, "_LOADED", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil.py", "hubconf.py", "evil_package/__init__.py", "evil_package/module.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(EVIL + CODE)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / "a.png")
    return tmp_path


def recipes() -> Iterator[tuple[str, str]]:
    """A quick recipe of each kind of config, with its task."""
    for task, found in installed_tasks().items():
        kinds: dict[type[RunConfig], str] = {}
        for name, config in found.recipes.items():
            if not config.paper or not config.paper.results:
                kinds.setdefault(type(config), name)
        for name in kinds.values():
            yield task, name


def hostile_run(task: str, recipe: str, spec: str, top: Path) -> Path:
    """A run folder that names a spec, with the copy of its file and the checksums that belong to it."""
    source = "sha256:" + hashlib.sha256((EVIL + CODE).encode()).hexdigest() if spec == SPECS["file"] else "torch 2.15.0"
    primary = installed_tasks()[task].recipes[recipe].primary_metric
    folder = write_run(
        top, task, recipe, spec, 0, {primary: 50.0}, place=top / "given" / recipe, activation_source=source
    )
    (folder / ACTIVATION_FILE).write_text(EVIL + CODE)
    return folder


def commands_on(task: str, folder: Path) -> Iterator[tuple[CommandLine, list[str]]]:
    """Every command of a task that takes a run's folder, and training that starts from it."""
    line = import_module(f"{installed_tasks()[task].package}.cli").COMMAND_LINE
    yield line, ["evaluate", str(folder)]
    for name, command in installed_tasks()[task].commands.items():
        first, *others = (command.usage or "-").removesuffix("[flags]").split()
        if first == "RUN_DIR":
            files = ["pictures/a.png" for word in others if not word.startswith("[")]
            yield line, [name, str(folder), *files, *MORE.get(name, [])]


def refusal(status: int, capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """What a command printed, which must be one message and no more."""
    said = capsys.readouterr()
    assert status == 2 and not said.out, (words, said)
    assert len(said.err.strip().splitlines()) == 1 and "Traceback" not in said.err, (words, said.err)
    return said.err


def contents(top: Path) -> set[Path]:
    return {path for path in top.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("task", "recipe"), sorted(recipes()))
def test_no_command_of_a_task_runs_what_a_run_folder_names(task, recipe, spec, place, capsys):
    folder = hostile_run(task, recipe, spec, place)
    before = contents(place)
    for line, words in commands_on(task, folder):
        said = refusal(line.main(words), capsys, words)
        assert contents(place) == before, words
        assert "--trust-activation" in said, (words, said)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("task", "recipe"), sorted(recipes()))
def test_no_study_runs_what_a_run_folder_names(task, recipe, spec, place, capsys):
    hostile_run(task, recipe, spec, place)
    before = contents(place)
    for words in [["aggregate", "given"], *(["analyze", name, "given"] for name in reading_runs())]:
        status = cli.main(words)
        assert contents(place) == before, words
        if words[-2] in READ_ONLY:
            assert "Traceback" not in capsys.readouterr().err
        else:
            said = refusal(status, capsys, words)
            assert "--trust-activation" in said or "no analysis model" in said or "analyze" in said, said


def reading_runs() -> list[str]:
    """The analyses that look at run folders."""
    found = [n for n, (flags, _) in ANALYSES.items() if {"runs", "what"} & {f.name for f in dataclasses.fields(flags)}]
    assert {"variance", "noise", "landscape", "hessian", "weights"} <= set(found)
    return found


def test_every_command_on_a_run_folder_is_among_them():
    """By the parser of run folders: whichever module calls it belongs to a command that the tests above run."""
    tried = {words[0] for task in installed_tasks() for _, words in commands_on(task, Path("folder"))}
    assert {"evaluate", "export", "predict", "sample", "interpolate", "generate", "translate"} <= tried
    for task in installed_tasks().values():
        for name, command in task.commands.items():
            assert name in tried or command.usage.split()[0] in ("DIR", "DATASET"), (task.name, name)
            assert resolved(command.run)


STUDY = """
output_dir = "runs"
activations = ["golu", {activation}]
seeds = [0]

[[experiment]]
recipes = [{recipe}]
flags = {{ {flags} }}
{more}
"""
PLANS = (["--print"], ["--status"], ["--power", "1"])
RUNS = ([], ["--retry"], ["--cluster", "local"])


def write_study(
    place: Path, activation: str = "'gelu'", recipe: str = "'digits'", flags: str = "max_steps = 1", more: str = ""
) -> None:
    study = STUDY.format(activation=activation, recipe=recipe, flags=flags, more=more)
    (place / "study.toml").write_text(study)


@pytest.mark.parametrize("spec", [*SPECS.values(), "./evil.py:Evil", "evil_package.module:Evil"])
def test_a_study_runs_no_activation_that_only_its_file_names(spec, place, capsys):
    write_study(place, activation=json.dumps(spec))
    before = contents(place)
    for flags in RUNS:
        said = refusal(cli.main(["sweep", "study.toml", *flags]), capsys, flags)
        assert "--trust-study" in said and contents(place) == before
    for flags in PLANS:
        status = cli.main(["sweep", "study.toml", *flags])
        said = capsys.readouterr()
        assert status in (0, 2) and "Traceback" not in said.err and contents(place) == before, flags


@pytest.mark.parametrize("recipe", ["./evil.py:mine", "evil.py:mine", "evil_package.module:mine"])
@pytest.mark.parametrize("field", ["recipes", "after"])
def test_a_study_runs_no_recipe_that_only_its_file_names(recipe, field, place, capsys):
    text = json.dumps(recipe)
    write_study(place, **({"recipe": text} if field == "recipes" else {"more": f"after = {text}"}))
    before = contents(place)
    for flags in (*RUNS, *PLANS):
        said = refusal(cli.main(["sweep", "study.toml", *flags]), capsys, flags)
        assert "--trust-study" in said and contents(place) == before


@pytest.mark.parametrize(
    "flags",
    [
        "activation = './evil.py:Evil'",
        "'activation=./evil.py:Evil' = true",
        "batch_size = [['4', '--activation', './evil.py:Evil']]",
        "'mix.cutmix' = [['1', '--activation=./evil.py:Evil']]",
    ],
)
def test_a_study_hides_no_activation_in_its_flags(flags, place, capsys):
    write_study(place, flags=flags)
    before = contents(place)
    for more in (*RUNS, *PLANS):
        status = cli.main(["sweep", "study.toml", *more])
        assert status == 2 and "Traceback" not in capsys.readouterr().err and contents(place) == before


@pytest.mark.parametrize(
    "words",
    [
        ["study.toml", "--print"],
        ["study.toml", "--print", "--trust-study"],
        ["--recipes", "digits", "--activations", "./mine.py:Mine", "torch.tanh", "--print"],
    ],
)
def test_a_plan_names_the_activation_that_it_has_not_run(words, place, capsys):
    (place / "mine.py").write_text((EVIL + CODE).replace("Evil", "Mine"))
    write_study(place, activation="'./mine.py:Mine', 'torch.tanh'")
    before = contents(place)
    assert cli.main(["sweep", *words]) == 0
    assert f"--activation {place}/mine.py:Mine" in capsys.readouterr().out and contents(place) == before


@pytest.mark.parametrize("words", [["--trust-study"], ["--activations", "golu", "./mine.py:Mine"]])
def test_a_study_that_is_trusted_or_typed_loads_its_activations(words, place, monkeypatch, capsys):
    (place / "mine.py").write_text(CODE.replace("Evil", "Mine"))
    write_study(place, activation="'./mine.py:Mine'")
    monkeypatch.setattr("golu_core.studies.sweep.run_here", lambda study, runs, flags: 100 + len(runs))
    assert cli.main(["sweep", "study.toml", *words]) == 102, capsys.readouterr()
    assert loading.loaded_activation("mine.py:Mine") is not None
