"""Pairs of sentences, and flags that make `transformer-numbers` a matter of seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from golu_lm.translation.data import codec_of
from golu_lm.translation.number_words import amounts
from golu_lm.translation.parallel_text import Languages, Pair, listed
from golu_lm.translation.prepare import SUBWORDS_FILE, Cutting, prepare_pairs
from golu_lm.translation.subwords import Codec

EN_DE = Languages("en", "de")
NAME = "numbers-en-de"
MODEL = ["--model.layers", "1", "--model.heads", "2", "--model.width", "32", "--model.feed-forward", "64"]
SHORT = ["--steps", "12", "--eval-every", "4", "--eval-sentences", "5", "--schedule.warmup.steps", "3"]
BATCH = ["--batch-size", "4", "--max-device-batch", "1", "--data.bundle-tokens", "256"]
TINY = [*MODEL, *SHORT, *BATCH, "--model.dropout", "0.1", "--average.every", "2", "--log-every", "1"]
FOLDER = Path("runs/lm/transformer-numbers/golu/seed0")


@cache
def pairs(count: int = 260) -> dict[str, list[Pair]]:
    """Amounts in words: 20 for validation, 24 for the test, the rest for training."""
    found = amounts(count, seed=3)
    return {"valid": found[:20], "test": found[20:44], "train": found[44:]}


def prepared(data_dir: Path, vocabulary: int = 128) -> Path:
    """The pairs as `golu-lm prepare` writes them, in the folder of the quick recipe."""
    prepare_pairs(listed(pairs(), {"test": 3}), EN_DE, data_dir / NAME, Cutting(vocabulary=vocabulary), 1)
    return data_dir / NAME


def codec(folder: Path) -> Codec:
    """Between text and the subwords of prepared pairs."""
    return codec_of(folder / SUBWORDS_FILE, EN_DE, Cutting(vocabulary=128))
