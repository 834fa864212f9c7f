"""Every field of every golu-translate recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_translate.cli import COMMAND_LINE
from translation_program import prepared, shrink


def shrunken(recipe: str) -> list[str]:
    """With a weight decay, or a choice of the weights that decay would change nothing."""
    return [*shrink(recipe), "--optim.weight-decay", "0.1"]


CASES = FlipCases(COMMAND_LINE, shrunken, quick=(), slow=("transformer-numbers",))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepared(folder)
    return folder


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, pairs, tmp_path, monkeypatch, capfd
):
    CASES.check(recipe, flip, ["--data-dir", str(pairs)], tmp_path, monkeypatch, capfd)
