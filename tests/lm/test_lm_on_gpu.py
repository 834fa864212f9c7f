"""Every golu-lm recipe on a GPU; see `gpu_runs`."""

from __future__ import annotations

import pytest

from golu_lm.cli import COMMAND_LINE
from gpu_runs import ON_A_GPU, PRECISIONS, check_on_a_gpu
from lm_program import shrink

pytestmark = ON_A_GPU


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "numbers.txt"
    path.write_text(" ".join(f"{n} squared is {n * n}," for n in range(400)))
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", COMMAND_LINE.recipes)
def test_a_recipe_trains_continues_and_is_evaluated(recipe, precision, text, tmp_path, monkeypatch, capfd):
    flags = [*shrink(recipe), "--data.text", str(text)]
    check_on_a_gpu(COMMAND_LINE, recipe, precision, flags, tmp_path, monkeypatch, capfd)
