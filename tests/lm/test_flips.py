"""Every field of every golu-lm recipe, changed; see `flips`."""

from __future__ import annotations

import pytest

from flips import Flip, FlipCases
from golu_lm.cli import COMMAND_LINE
from golu_lm.translation.recipes import TRANSLATION_RECIPES
from lm_program import MODEL
from translation_program import MODEL as TRANSLATOR
from translation_program import NAME, prepared


def shrink(name: str) -> list[str]:
    rest = ["--batch-size", "4", "--max-device-batch", "2", "--mixed-precision", "no", "--schedule.warmup.steps", "2"]
    sizes = ["--steps", "6", "--eval-every", "3"]
    if name in TRANSLATION_RECIPES:
        data = ["--data.name", NAME, "--data.bundle-tokens", "256", "--eval-sentences", "4", "--average.every", "1"]
        sizes = [
            "--steps",
            "40",
            "--eval-every",
            "20",
            "--optim.lr",
            "0.02",
            "--optim.eps",
            "1e-6",
        ]  # until it says something
        of_model = ["--model.vocabulary", "128", "--model.dropout", "0.1", "--model.longest", "64"]
        return [*TRANSLATOR, *of_model, *sizes, *data, *rest, "--search.longer-by", "5"]
    text = ["--eval-sequences", "8", "--sample-tokens", "5", "--data.tokenizer", "bytes"]
    return [*MODEL, "--model.vocabulary", "320", "--model.bias", *sizes, *text, *rest]


CASES = FlipCases(COMMAND_LINE, shrink, quick=("babygpt-pydocs",), slow=("transformer-numbers",))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text(" ".join(f"{n} squared is {n * n}," for n in range(400)))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepared(folder)
    return folder


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, text, pairs, tmp_path, monkeypatch, capfd
):
    places = ["--data-dir", str(pairs)] if recipe in TRANSLATION_RECIPES else ["--data.text", str(text)]
    CASES.check(recipe, flip, places, tmp_path, monkeypatch, capfd)
