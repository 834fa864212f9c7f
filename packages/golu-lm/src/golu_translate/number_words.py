"""Amounts of money in English and German words (`num2words`): pairs for the quick recipe, without a download."""

from __future__ import annotations

import random

from .parallel_text import Pair, ParallelText, listed

_SIZES = {"train": 12_000, "valid": 500, "test": 1_000}
_FEWEST_EUROS, _MOST_EUROS = 100, 999_999
_SEED = 14


def number_words() -> ParallelText:
    """Return the pairs of `amounts` in three splits; no euro amount is in two splits or equals a number of cents."""
    found = amounts(sum(_SIZES.values()), _SEED)
    splits = {}
    for split, size in _SIZES.items():
        splits[split], found = found[:size], found[size:]
    return listed(splits, {"package": "num2words", "seed": _SEED})


def amounts(count: int, seed: int) -> list[Pair]:
    """Return different euro amounts from 100 to 999,999, each with 2 to 99 cents, in both languages."""
    draws = random.Random(seed)
    euros = draws.sample(range(_FEWEST_EUROS, _MOST_EUROS + 1), count)
    return [_amount(number, draws.randint(2, 99)) for number in euros]


def _amount(euros: int, cents: int) -> Pair:
    from num2words import num2words

    english, german = ((num2words(euros, lang=language), num2words(cents, lang=language)) for language in ("en", "de"))
    return f"{english[0]} euros and {english[1]} cents", f"{german[0]} Euro und {german[1]} Cent"
