"""Every golu-lm recipe on a GPU; see `gpu_runs`."""

from __future__ import annotations

import pytest

from golu_lm.cli import COMMAND_LINE
from golu_lm.translation.recipes import TRANSLATION_RECIPES
from gpu_runs import ON_A_GPU, PRECISIONS, check_on_a_gpu
from translation_program import prepared, shrink

pytestmark = ON_A_GPU


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A text, and a data folder with prepared pairs."""
    folder = tmp_path_factory.mktemp("data")
    prepared(folder)
    (folder / "numbers.txt").write_text(" ".join(f"{n} squared is {n * n}," for n in range(400)))
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", COMMAND_LINE.recipes)
def test_a_recipe_trains_continues_and_is_evaluated(recipe, precision, data, tmp_path, monkeypatch, capfd):
    translates = recipe in TRANSLATION_RECIPES
    places = ["--data-dir", str(data)] if translates else ["--data.text", str(data / "numbers.txt")]
    check_on_a_gpu(COMMAND_LINE, recipe, precision, [*shrink(recipe), *places], tmp_path, monkeypatch, capfd)
