"""Amounts of money in English and German words (`num2words`): pairs for the quick recipe that need no download."""

from __future__ import annotations

import random

from .parallel_text import Pair, ParallelText, listed

_SIZES = {"train": 30_000, "valid": 500, "test": 1_000}
_SMALLEST, _LARGEST = 100, 999_999
_SEED = 14


def number_words() -> ParallelText:
    """Amounts from 100 to 999,999 euros and 2 to 99 cents, each number of euros in one split alone.

    The test's numbers never occur in training: euros are drawn without repetition, and cents are below 100.
    """
    draws = random.Random(_SEED)
    euros = draws.sample(range(_SMALLEST, _LARGEST + 1), sum(_SIZES.values()))
    splits: dict[str, list[Pair]] = {}
    for split, size in _SIZES.items():
        part, euros = euros[:size], euros[size:]
        splits[split] = [_amount(number, draws.randint(2, 99)) for number in part]
    return listed(splits, {"package": "num2words", "seed": _SEED})


def _amount(euros: int, cents: int) -> Pair:
    from num2words import num2words

    english, german = ((num2words(euros, lang=language), num2words(cents, lang=language)) for language in ("en", "de"))
    return f"{english[0]} euros and {english[1]} cents", f"{german[0]} Euro und {german[1]} Cent"
