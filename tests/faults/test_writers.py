"""A kill or a full disk at any change of any command that writes: then the same command ends as if nothing had been.

Each runs where its temporary folder is below the folder that is watched, so that nothing may be left there either.
A sample of the changes is struck here and by the slow tests, and all kinds of them with GOLU_ALL_FAULTS=1.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.utils import save_image

from faults import ALL, KILL, NO_SPACE, TRAINED, Ended, FaultyPrograms, files, kinds_of, run_folder
from golu_core import cli
from golu_core.training.tasks.task import installed_tasks, resolved
from translation_program import pairs
from writers import NO_FILES, TRAINING, WRITERS, Sources

FAULTS = {"kill -9": KILL, "no space left": NO_SPACE}
NOT_COMPARED = ("runs/vision/", "temporary/torchinductor_")
"""The run of a sweep, which its own test compares, and what torch's compiler keeps for other programs."""
PARTS = range(200) if ALL else range(1)


def cases():
    """Every command, fault and part; without GOLU_ALL_FAULTS=1 a kill of each and a full disk for every third."""
    for number, (name, writer) in enumerate(WRITERS.items()):
        for fault in FAULTS:
            for part in PARTS:
                marks = [] if writer.is_quick and fault == "kill -9" and part == 0 else [pytest.mark.slow]
                if ALL or (not writer.takes_long and (fault == "kill -9" or number % 3 == 0)):
                    yield pytest.param(name, fault, part, marks=marks, id=f"{name}-{fault}-{part}")


@pytest.fixture(scope="session")
def sources(
    data: Path, whole: Callable[[str], tuple[Path, Ended]], tmp_path_factory: pytest.TempPathFactory
) -> Sources:
    """What the commands read."""
    top = tmp_path_factory.mktemp("sources")
    (top / "text.txt").write_text("It was the best of times, it was the worst of times.\n\n" * 400)
    (top / "pairs").mkdir()
    for split, found in pairs().items():
        (top / "pairs" / f"{split}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in found))
    (top / "images").mkdir()
    for number, image in enumerate(load_digits().images[:3]):
        save_image(torch.from_numpy(image).float() / 16, top / "images" / f"{number}.png")
    return Sources(lambda task: whole(task)[0] / run_folder(task), data, top)


def start(programs: FaultyPrograms, name: str, sources: Sources, cwd: Path, at: int = 0, error: int = KILL) -> Ended:
    """Runs a command with its temporary folder inside the folder where it starts."""
    writer = WRITERS[name]
    (cwd / "temporary").mkdir(exist_ok=True)
    return programs.run(
        writer.program,
        *writer.arguments(sources),
        cwd=cwd,
        folder=cwd,
        at=at,
        error=error,
        temporary=cwd / "temporary",
        imports=writer.imports,
    )


@pytest.fixture(scope="session")
def undisturbed(
    programs: FaultyPrograms, sources: Sources, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Ended]]:
    """A function that gives where a command ran undisturbed, and how it ended."""
    known: dict[str, tuple[Path, Ended]] = {}

    def run(name: str) -> tuple[Path, Ended]:
        if name not in known:
            cwd = tmp_path_factory.mktemp("undisturbed")
            ended = start(programs, name, sources, cwd)
            assert ended.returncode == 0, ended.stderr
            known[name] = cwd, ended
        return known[name]

    return run


def same_files(cwd: Path, whole: Path, differs: list[str]) -> None:
    """Asserts that the same files are there with the same bytes, but for those that differ each time."""
    ours, theirs = ({n for n in files(top) if not n.startswith(NOT_COMPARED)} for top in (cwd, whole))
    assert ours == theirs, f"left over or missing: {sorted(ours ^ theirs)}"
    for name in ours:
        if (cwd / name).is_file() and not any(fnmatch.fnmatch(name, pattern) for pattern in differs):
            assert (cwd / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"


@pytest.mark.parametrize(("name", "fault", "part"), cases())
def test_a_fault_in_a_command_that_writes(name, fault, part, programs, sources, undisturbed, tmp_path):
    whole, ended = undisturbed(name)
    numbers = list(kinds_of(ended.operations, whole).values())
    if ALL and part >= len(numbers):
        pytest.skip("there are no more kinds of changes")
    share = (0.37 * list(FAULTS).index(fault) + 0.618 * part + 0.13 * list(WRITERS).index(name) + 0.2) % 1
    kind = numbers[part] if ALL else numbers[int(share * len(numbers))]
    at = kind[part % len(kind)]
    named = ended.operations[at - 1].replace(str(whole), "")
    struck = start(programs, name, sources, tmp_path, at, FAULTS[fault])
    if fault == "kill -9":
        assert struck.returncode == -9, named
    elif struck.returncode != 0:  # 0: nothing needed space from there on
        assert struck.returncode == 1, f"{named}: {struck.stderr}"
        assert struck.message, named
        assert not {n for n in files(tmp_path) if n.startswith("exported") and (tmp_path / n).is_file()}, "half of it"
    else:
        same_files(tmp_path, whole, list(WRITERS[name].differs))
        return
    again = start(programs, name, sources, tmp_path)
    assert again.returncode == 0, f"{named}: {again.stderr}"
    same_files(tmp_path, whole, list(WRITERS[name].differs))


def test_every_command_writes_or_is_known_to_write_nothing():
    commands = {"golu-core", "golu-core activations", *(f"golu-core {name}" for name in cli._STUDIES)}
    for task in installed_tasks().values():
        commands |= {f"{task.program} {name}" for name in ("recipes", "train", "evaluate", *task.commands)}
    known = {" ".join(name.split()[:2]) for name in WRITERS} | TRAINING
    silent = {name for name in commands if any(fnmatch.fnmatch(name, pattern) for pattern in NO_FILES)}
    assert commands == known | silent, sorted(commands ^ (known | silent))
    assert set(TRAINED) == set(installed_tasks())
    with_details = {
        f"{task.program} evaluate --details"
        for task in installed_tasks().values()
        if "details" in {field.name for field in dataclasses.fields(resolved(task.evaluation_flags))}
    }
    assert with_details == {name for name in WRITERS if name.endswith("--details")}
