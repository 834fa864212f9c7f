"""A kill, a full disk, or a broken one at any change of a file: then the same command ends as if nothing had been.

A sample of the changes is struck here, more of golu-lm's, which is the quickest, by the slow tests, and all kinds of
all tasks' with GOLU_ALL_FAULTS=1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from faults import ALL, KILL, NO_SPACE, READ_ERROR, TRAIN, kinds_of, same_as

FAULTS = {"kill -9": KILL, "no space left": NO_SPACE, "input/output error": READ_ERROR}
MESSAGES = {NO_SPACE: "No space left on device", READ_ERROR: "Input/output error"}
PARTS = range(200) if ALL else range(3)
WRITERS = ("vision", "lm", "detect")  # golu-diffusion writes the digits by the function that golu-vision calls


def cases(tasks: Iterable[str]) -> list[Any]:
    """Each fault of each task in one part, golu-lm's in all."""
    return [
        pytest.param(
            task, fault, part, marks=[] if task == "lm" and not part else pytest.mark.slow, id=f"{task}-{fault}-{part}"
        )
        for task in tasks
        for fault in FAULTS
        for part in PARTS
        if ALL or task == "lm" or not part
    ]


def chosen(kinds: dict[str, list[int]], part: int, fault: str) -> int:
    """The number of the change that a part strikes: each part another kind of change, spread over all of them."""
    numbers = list(kinds.values())
    if ALL:
        if part >= len(numbers):
            pytest.skip("there are no more kinds of changes")
        return numbers[part][part % len(numbers[part])]
    share = (0.37 * list(FAULTS).index(fault) + 0.618 * part + 0.2) % 1
    kind = numbers[int(share * len(numbers))]
    return kind[part % len(kind)]


def strike(programs, task, fault, arguments, whole, watched, part, tmp_path):
    """Strikes once, and asserts that the program says so and that its next start ends as the undisturbed one."""
    undisturbed, ended = whole
    at = chosen(kinds_of(ended.operations, undisturbed), part, fault)
    named = ended.operations[at - 1]
    struck = programs.run(task, *arguments, cwd=tmp_path, folder=watched, at=at, error=FAULTS[fault])
    if FAULTS[fault] == KILL:
        assert struck.returncode == -9, named
    elif struck.returncode != 0:  # 0: only cleaning up failed
        assert struck.returncode == 1, f"{named}: {struck.stderr}"
        assert MESSAGES[FAULTS[fault]] in struck.message, named
    again = programs.run(task, *arguments, cwd=tmp_path)
    assert again.returncode == 0, f"{named}: {again.stderr}"
    same_as(tmp_path, undisturbed, task)


@pytest.mark.parametrize(("task", "fault", "part"), cases(TRAIN))
def test_a_fault_in_the_run_folder(task, fault, part, programs, data, whole, tmp_path):
    arguments = [*TRAIN[task], "--data-dir", str(data)]
    strike(programs, task, fault, arguments, whole(task), tmp_path, part, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "fault", "part"), cases(WRITERS))
def test_a_fault_in_the_data_folder(task, fault, part, programs, whole_with_data, tmp_path):
    strike(programs, task, fault, TRAIN[task], whole_with_data(task), tmp_path / "data", part, tmp_path)
