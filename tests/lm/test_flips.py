"""Every field of every golu-lm recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_lm.cli import COMMAND_LINE
from golu_lm.translation.recipes import TRANSLATION_RECIPES
from translation_program import prepared, shrink

CASES = FlipCases(COMMAND_LINE, shrink, quick=("babygpt-pydocs",), slow=("transformer-numbers",))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text(" ".join(f"{n} squared is {n * n}," for n in range(400)))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepared(folder)
    return folder


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, text, pairs, tmp_path, monkeypatch, capfd
):
    places = ["--data-dir", str(pairs)] if recipe in TRANSLATION_RECIPES else ["--data.text", str(text)]
    CASES.check(recipe, flip, places, tmp_path, monkeypatch, capfd)
