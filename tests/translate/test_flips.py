"""Every field of every golu-translate recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_translate.cli import COMMAND_LINE
from translation_program import prepared, shrink

CASES = FlipCases(COMMAND_LINE, shrink, quick=(), slow=("transformer-numbers",))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepared(folder)
    return folder


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, pairs, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data-dir", str(pairs)], tmp_path, monkeypatch, capfd)
