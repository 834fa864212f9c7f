"""Every field of every golu-lm recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_lm.cli import COMMAND_LINE
from lm_program import shrink

CASES = FlipCases(COMMAND_LINE, shrink, quick=("babygpt-pydocs",), inductor=True)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text(" ".join(f"{n} squared is {n * n}," for n in range(400)))
    return path


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, text, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data.text", str(text)], tmp_path, monkeypatch, capfd)
