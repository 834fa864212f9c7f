"""Every golu-detect recipe on a GPU; see `gpu_runs`."""

from __future__ import annotations

import pytest

from detect_program import shrink
from golu_detect.cli import COMMAND_LINE
from gpu_runs import ON_A_GPU, PRECISIONS, check_on_a_gpu

pytestmark = ON_A_GPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", COMMAND_LINE.recipes)
def test_a_recipe_trains_continues_and_is_evaluated(recipe, precision, mixed_scenes, tmp_path, monkeypatch, capfd):
    flags = [*shrink(recipe), "--data.name", "digit-scenes", "--data-dir", str(mixed_scenes)]
    sampled = 0.15  # proposals and anchors are, by other draws on a GPU
    check_on_a_gpu(COMMAND_LINE, recipe, precision, flags, tmp_path, monkeypatch, capfd, sampled)
