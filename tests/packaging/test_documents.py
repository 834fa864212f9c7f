"""The commands and code of the READMEs are tried, as far as no data set and no second machine is needed."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tyro

from golu_core.studies import aggregate, analyze, check, sweep
from golu_core.studies.sweeping.study import planned_runs
from golu_core.training.data.digits import write_digits
from golu_core.training.messages.errors import RequestError
from golu_detect.cli import COMMAND_LINE as GOLU_DETECT
from golu_detect.samples import write_digit_scenes
from golu_diffusion.cli import COMMAND_LINE as GOLU_DIFFUSION
from golu_lm.cli import COMMAND_LINE as GOLU_LM
from golu_translate.cli import COMMAND_LINE as GOLU_TRANSLATE
from golu_vision.cli import COMMAND_LINE as GOLU_VISION

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "golu-vision": GOLU_VISION,
    "golu-lm": GOLU_LM,
    "golu-translate": GOLU_TRANSLATE,
    "golu-detect": GOLU_DETECT,
    "golu-diffusion": GOLU_DIFFUSION,
}
GUIDES = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "start",
        "which-activation",
        "several-machines",
        "activations",
        "studies",
        "own-data",
        "troubleshooting",
    )
]
PACKAGES = sorted(ROOT.glob("packages/*/README.md"))
READMES = [ROOT / "README.md", *PACKAGES, *GUIDES]
INSTALL = "Until the packages are published, install from a clone of this repository: `pip install ./packages/golu-core"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands() -> list[str]:
    joined = "\n".join(block for path in READMES for block in blocks(path, "sh")).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in joined.splitlines() if line and not line.startswith("#")]


def calls() -> list[tuple[str, list[str]]]:
    found = []
    for command in commands():
        match = re.search(r"(?:^|[ &]|-m )(golu[-_](?:vision|lm|translate|detect|diffusion)) (.*?)\"?$", command)
        if match and not command.startswith("pip "):
            found.append((match.group(1).replace("_", "-"), shlex.split(match.group(2))))
    return found


@pytest.fixture(scope="module")
def data_of_readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of their own that the READMEs name."""
    folder = tmp_path_factory.mktemp("reader")
    write_digits(folder / "data" / "digits")
    write_digits(folder / "my_pictures")
    write_digit_scenes(folder / "scenes")
    (folder / "my.txt").write_text("A text of somebody's own. " * 40)
    (folder / "my_recipes.py").write_text(
        "from dataclasses import replace\n"
        "from golu_vision.recipes import RECIPES\n"
        "tiny = replace(RECIPES['digits'], epochs=3)\n"
    )
    return folder


@pytest.mark.parametrize(("program", "arguments"), calls(), ids=lambda value: str(value)[:60])
def test_calls_are_understood(program, arguments, data_of_readers, monkeypatch):
    monkeypatch.chdir(data_of_readers)
    command_line = PROGRAMS[program]
    if arguments[0] == "train":
        config = command_line.config(arguments[1:])
        assert config.recipe in command_line.recipes or arguments[1].startswith("./")
    else:
        assert arguments[0] in ("recipes", "evaluate", *command_line.task.commands)


def calls_of(script: str) -> list[list[str]]:
    found = [
        shlex.split(command.partition(f"golu-core {script} ")[2])
        for command in commands()
        if f"golu-core {script} " in command
    ]
    assert len(found) >= 2
    return found


@pytest.fixture
def custom_activation(tmp_path, monkeypatch):
    """The guides' mine.py and mine.toml in the working directory."""
    guide = ROOT / "docs" / "activations.md"
    (block,) = [block for block in blocks(guide, "python") if block.startswith("# mine.py")]
    (tmp_path / "mine.py").write_text(block)
    (study,) = blocks(ROOT / "docs" / "which-activation.md", "toml")
    (tmp_path / "mine.toml").write_text(study)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", calls_of("sweep"), ids=" ".join)
def test_sweeps_are_understood(arguments, custom_activation):
    flags = tyro.cli(sweep.Flags, args=arguments)
    assert planned_runs(sweep.study_of(flags))


@pytest.mark.slow
def test_the_guides_custom_activation(custom_activation, monkeypatch, capsys):
    """Card, study and report as they are written, with one recipe and two steps a run."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    (words,) = [words for words in calls_of("sweep") if "./mine.py:Mine" in words]
    (card,) = [command for command in commands() if command.startswith("golu-core check ./mine.py:Mine ")]
    (report,) = [call for call in calls_of("aggregate") if call[0] == words[words.index("--output-dir") + 1]]
    assert check.main(shlex.split(card)[2:]) == 1  # torch's sigmoid gives NaN at an infinity
    assert "no NaN from infinities" in capsys.readouterr().out and (custom_activation / "card" / "check.html").exists()
    seeds = words.index("--seeds")
    shorter = [*words[:seeds], "--seeds", "0", *words[seeds + 4 :]]
    assert sweep.main([*shorter, "--recipes", "digits", "--set", "max_steps=2"]) == 0, capsys.readouterr()
    assert aggregate.main(report) == 0
    table = (custom_activation / "report" / "tables.md").read_text()
    assert "| ReLU | GoLU | mine.py:Mine |" in table


def analyses() -> list[list[str]]:
    page = ROOT / "docs" / "analyses.md"
    lines = "\n".join(blocks(page, "sh")).splitlines()
    start = "golu-core analyze "
    return [shlex.split(line.removeprefix(start)) for line in lines if line.startswith(start)]


@pytest.mark.parametrize("arguments", analyses(), ids=" ".join)
def test_analyses_are_understood(arguments):
    name, *rest = arguments
    flags = tyro.cli(analyze.ANALYSES[name][0], args=rest)
    assert flags.out is not None
    assert {line[0] for line in analyses()} == set(analyze.ANALYSES)


@pytest.mark.parametrize("arguments", calls_of("aggregate"), ids=" ".join)
def test_aggregations_are_understood(arguments):
    flags = tyro.cli(aggregate.Flags, args=arguments)
    assert bool(flags.runs) != bool(flags.run)


def test_there_are_calls_to_try():
    for program, command_line in PROGRAMS.items():
        assert len([name for name, _ in calls() if name == program]) >= 5
        with pytest.raises(RequestError):
            command_line.config(["no-such-recipe"])


@pytest.mark.parametrize("path", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run(path):
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec"), {})


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_recipe_is_in_its_packages_readme(program):
    distribution = PROGRAMS[program].task.distribution
    tables = (ROOT / "packages" / distribution / "README.md").read_text()
    assert [name for name in PROGRAMS[program].recipes if f"`{name}`" not in tables] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


@pytest.mark.parametrize("path", PACKAGES, ids=lambda p: p.parent.name)
def test_packages_readmes_stand_alone(path):
    """They are read where the repository is not, such as on PyPI."""
    text = path.read_text()
    assert [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")] == []
    assert re.search(rf"^pip install {path.parent.name}\b", text, re.MULTILINE)
    assert INSTALL in text and INSTALL in (ROOT / "README.md").read_text()
    assert tomllib.loads((path.parent / "pyproject.toml").read_text())["project"]["urls"]


@pytest.mark.parametrize(
    "path",
    sorted({*READMES, ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")}),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_links_point_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_packages_have_their_files_and_changelogs_their_version():
    for package in ROOT.glob("packages/*"):
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        assert f"## {project['version']}" in (package / "CHANGELOG.md").read_text()
        assert list(package.glob("src/*/py.typed"))
        assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_ci_script_calls_the_readmes_test_command():
    (command,) = [c for c in commands() if " pytest" in c]
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_page_on_data_is_that_of_the_tests_tables():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "tools/data_table.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / "data.md").read_text() == done.stdout, "run: python tools/data_table.py > docs/data.md"
