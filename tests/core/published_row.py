"""A row of the paper, as the tests and the page on reproduction hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from published_rates import Rate


@dataclass(frozen=True)
class Differs:
    """An ingredient of which the recipe has another.

    Attributes:
        published: What was published.
        here: What the recipe has.
        why: The reason.
    """

    published: str
    here: str
    why: str


Value = str | Differs


@dataclass(frozen=True)
class Row:
    """A recipe's ingredients as published.

    Attributes:
        values: The ingredients by name.
        rates: What is published of the learning rate, in words.
        rate: The same as a function of the number of steps in an epoch.
        seeing: Ingredients that are not read from the recipe's objects, each tested elsewhere or a difference.
    """

    values: dict[str, Value]
    rates: Value
    rate: Callable[[int], Rate]
    seeing: dict[str, Value]
