"""Every field of every golu-diffusion recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from diffusion_program import shrink
from flips import Flip, FlipCases
from golu_diffusion.cli import COMMAND_LINE

CASES = FlipCases(COMMAND_LINE, shrink, quick=("ddpm-digits",))


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, few_images, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data.images", str(few_images)], tmp_path, monkeypatch, capfd)
