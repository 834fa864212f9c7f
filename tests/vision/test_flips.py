"""Every field of every golu-vision recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_vision.cli import COMMAND_LINE
from vision_program import shrink

CASES = FlipCases(COMMAND_LINE, shrink, quick=("digits",))


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, few_digits, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data.root", str(few_digits)], tmp_path, monkeypatch, capfd)
