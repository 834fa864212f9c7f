"""Pairs of sentences, and flags that make `transformer-numbers` a matter of seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from command_line import Program
from golu_translate.data import codec_of
from golu_translate.number_words import amounts
from golu_translate.pairs_folder import SUBWORDS_FILE, Cutting, prepare_pairs
from golu_translate.parallel_text import Languages, Pair, listed
from golu_translate.subwords import Codec

TRANSLATE = Program("golu_translate")
EN_DE = Languages("en", "de")
NAME = "numbers-en-de"
MODEL = ["--model.layers", "1", "--model.heads", "2", "--model.width", "32", "--model.feed-forward", "64"]
SHORT = ["--steps", "12", "--eval-every", "4", "--eval-sentences", "5", "--schedule.warmup.steps", "3"]
BATCH = ["--batch-size", "4", "--micro-batch-size", "1", "--data.bundle-tokens", "256"]
TINY = [*MODEL, *SHORT, *BATCH, "--model.dropout", "0.1", "--average.every", "2", "--log-every", "1"]
FOLDER = Path("runs/translation/transformer-numbers/golu/seed0")


@cache
def pairs(count: int = 260) -> dict[str, list[Pair]]:
    """Amounts in words: 20 for validation, 24 for the test, the rest for training."""
    found = amounts(count, seed=3)
    return {"valid": found[:20], "test": found[20:44], "train": found[44:]}


def prepared(data_dir: Path, vocabulary: int = 128) -> Path:
    """The pairs as `golu-translate prepare` writes them, in the folder of the quick recipe."""
    prepare_pairs(listed(pairs(), {"test": 3}), EN_DE, data_dir / NAME, Cutting(vocabulary=vocabulary), 1)
    return data_dir / NAME


def codec(folder: Path) -> Codec:
    """Between text and the subwords of prepared pairs."""
    return codec_of(folder / SUBWORDS_FILE, EN_DE, Cutting(vocabulary=128))


def shrink(name: str) -> list[str]:
    """Flags that make a recipe a matter of seconds; it is trained until it says something."""
    of_model = [*MODEL, "--model.vocabulary", "128", "--model.dropout", "0.1", "--model.longest", "64"]
    sizes = ["--steps", "40", "--eval-every", "20", "--optim.lr", "0.02", "--optim.eps", "1e-6"]
    data = ["--data.name", NAME, "--data.bundle-tokens", "256", "--eval-sentences", "4", "--average.every", "1"]
    rest = ["--batch-size", "4", "--micro-batch-size", "2", "--mixed-precision", "no", "--schedule.warmup.steps", "2"]
    return [*of_model, *sizes, *data, *rest, "--search.longer-by", "5"]
