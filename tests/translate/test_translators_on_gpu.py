"""Every golu-translate recipe on a GPU; see `gpu_runs`."""

from __future__ import annotations

import pytest

from golu_translate.cli import COMMAND_LINE
from gpu_runs import ON_A_GPU, PRECISIONS, check_on_a_gpu
from translation_program import prepared, shrink

pytestmark = ON_A_GPU


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepared(folder)
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", COMMAND_LINE.recipes)
def test_a_recipe_trains_continues_and_is_evaluated(recipe, precision, data, tmp_path, monkeypatch, capfd):
    flags = [*shrink(recipe), "--data-dir", str(data)]
    check_on_a_gpu(COMMAND_LINE, recipe, precision, flags, tmp_path, monkeypatch, capfd)
