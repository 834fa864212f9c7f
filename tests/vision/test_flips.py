"""Every field of every golu-vision recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_vision.cli import COMMAND_LINE
from golu_vision.recipes import RECIPES

# a small network with the same activation; its images are small too
SMALL = {"relu": "cifar/resnet20", "gelu": "timm/test_vit", "swish": "timm/test_efficientnet"}
SIZES = {"relu": ("32", "36"), "gelu": ("160", "164"), "swish": ("32", "36")}


def shrink(name: str) -> list[str]:
    recipe = RECIPES[name]
    size, resize = SIZES[recipe.model.own_activation]
    flags = ["--model.name", SMALL[recipe.model.own_activation], "--data.size", size, "--data.resize", resize]
    flags += ["--epochs", "2", "--batch-size", "16", "--max-device-batch", "None", "--mixed-precision", "no"]
    flags += ["--max-steps", "None"]
    if recipe.schedule.kind == "milestones":
        flags += ["--schedule.milestones", "1", "--schedule.factors", "0.1"]
    if recipe.schedule.kind == "decay":
        flags += ["--schedule.every", "0.5"]
    if recipe.schedule.warmup is not None:
        flags += ["--schedule.warmup.epochs", "1.0"]
    if recipe.mix is not None:
        flags += ["--mix.group", "8"]
    if recipe.average is not None:
        flags += ["--average.every", "1", "--average.decay", "0.5", "--average.copy-epochs", "0"]
    return flags


CASES = FlipCases(COMMAND_LINE, shrink, quick=("digits",))


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, few_digits, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data.root", str(few_digits)], tmp_path, monkeypatch, capfd)
