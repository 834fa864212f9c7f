"""Every golu-vision recipe on a GPU; see `gpu_runs`."""

from __future__ import annotations

import pytest

from golu_vision.cli import COMMAND_LINE
from gpu_runs import OF_DROPPED_PATHS, ON_A_GPU, PRECISIONS, check_on_a_gpu
from vision_program import shrink

pytestmark = ON_A_GPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", COMMAND_LINE.recipes)
def test_a_recipe_trains_continues_and_is_evaluated(recipe, precision, few_digits, tmp_path, monkeypatch, capfd):
    flags = [*shrink(recipe), "--data.root", str(few_digits)]
    tolerance = OF_DROPPED_PATHS if COMMAND_LINE.recipes[recipe].model.drop_path else None
    check_on_a_gpu(COMMAND_LINE, recipe, precision, flags, tmp_path, monkeypatch, capfd, tolerance)
