"""Every field of every golu-detect recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from detect_program import shrink
from flips import Flip, FlipCases
from golu_detect.cli import COMMAND_LINE

CASES = FlipCases(COMMAND_LINE, shrink, slow=("deeplabv3-digits",))


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, mixed_scenes, tmp_path, monkeypatch, capfd
):
    places = ["--data.name", "digit-scenes", "--data-dir", str(mixed_scenes)]
    CASES.check(recipe, flip, places, tmp_path, monkeypatch, capfd)
