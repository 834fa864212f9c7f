"""Every field of every golu-diffusion recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from diffusion_program import MODEL
from flips import Flip, FlipCases
from golu_diffusion.cli import COMMAND_LINE
from golu_diffusion.recipes import RECIPES


def shrink(name: str) -> list[str]:
    flags = [*MODEL, "--model.attention", "0", "--epochs", "2", "--samples", "1", "--sample-steps", "2"]
    flags += ["--data.size", "16", "--batch-size", "16", "--mixed-precision", "no", "--eval-draws", "1"]
    if RECIPES[name].schedule.kind == "constant":  # long enough for a decay
        flags += ["--epochs", "4"]
    if RECIPES[name].schedule.warmup is not None:
        flags += ["--schedule.warmup.steps", "3"]
    return flags


CASES = FlipCases(COMMAND_LINE, shrink, quick=("ddpm-digits",))


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, few_images, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data.images", str(few_images)], tmp_path, monkeypatch, capfd)
