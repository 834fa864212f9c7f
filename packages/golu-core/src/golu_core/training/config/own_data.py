"""Recipes for data of the user's own: what is not given by a flag is chosen from the data, by rules that are stated.

A task names such recipes in `Task.own_data`, each with a function that looks at the data. The command line calls it
before it reads the other flags, so that any of them overrides a choice; what was chosen is said, and is in config.json
like any other value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..messages.errors import RequestError
from .identity import flattened, runtime_fields
from .run_config import Config, to_json
from .variants import KIND

_TEST_SHARE = 0.2
"""Share of the data that is kept for the test where they have no split."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Fitted(Generic[Config]):
    """An auto recipe, fitted to data.

    Attributes:
        recipe: The recipe with the chosen values.
        found: A sentence on the data, without its period.
        samples: The number of training samples; None if batches may repeat samples, so that no batch is too large.
    """

    recipe: Config
    found: str
    samples: int | None


AutoRecipe = Callable[[Any, Any, frozenset[str]], Fitted[Any] | None]
"""A function of the recipe as written, the config with the user's flags, and the names of the fields that flags set,
such as `batch_size`, even if to the recipe's own value. It returns None if there are no data yet."""


def given_fields(flags: Sequence[str]) -> frozenset[str]:
    """Names of the fields that flags give, as `optim.lr` and `data.in_memory`."""
    words = (word[2:].partition("=")[0].replace("-", "_") for word in flags if word.startswith("--"))
    return frozenset(".".join(part.removeprefix("no_") for part in word.split(".")) for word in words)


def cut_batch(config: Config, fitted: Fitted[Config]) -> tuple[Config, tuple[str, ...]]:
    """Return the config with a batch size that the data can fill, and a sentence if it was reduced."""
    if fitted.samples is None or config.batch_size <= fitted.samples:
        return config, ()
    batch = fitting_batch(config.batch_size, fitted.samples)
    limit = None if config.micro_batch_size is None else min(config.micro_batch_size, batch)
    cut = dataclasses.replace(config, batch_size=batch, micro_batch_size=limit)
    return cut, (f"the batch of {config.batch_size:,} is reduced to {batch:,}: {fitted.samples:,} are for training",)


def choices(base: Config, fitted: Fitted[Config], config: Config) -> str:
    """The flags that would have chosen what a config takes from the data."""
    left_out = frozenset((*runtime_fields(config), "recipe"))
    before, chosen, final = (flattened(to_json(values), left_out) for values in (base, fitted.recipe, config))
    return " ".join(
        _flag(name, value)
        for name, value in chosen.items()
        if value != before.get(name) and name in final and final[name] == value
    )


def _flag(name: str, value: Any) -> str:
    flag = name.removesuffix(f".{KIND}").replace("_", "-")
    if isinstance(value, bool):
        owner, _, switch = flag.rpartition(".")
        return f"--{flag}" if value else f"--{owner}{'.' if owner else ''}no-{switch}"
    return f"--{flag} {' '.join(_words(value))}"


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _words(item)
    else:
        yield f"{value:g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------------------ the rules


def power_of_two(value: float, least: int, most: int) -> int:
    """Return the largest power of two up to a value, within limits that are at least 1."""
    return max(least, min(most, int(2 ** math.floor(math.log2(max(1.0, value))))))


def fitting_batch(batch: int, samples: int) -> int:
    """Return the requested batch size or, if there are fewer samples, the largest power of two that they fill."""
    return batch if batch <= samples else power_of_two(samples, 1, samples)


def rounded(value: float) -> float:
    """To four digits, so that what is said of it is all of it."""
    return float(f"{value:.4g}")


def passes(samples: int, at_10_000: float, least: float, most: float) -> float:
    """How often data are seen: `at_10_000` times where there are 10,000 samples, and with the root of their rarity.

    A hundredth of the data is seen ten times as often, and so gets a tenth of the steps at the same batch.
    """
    return max(least, min(most, at_10_000 * math.sqrt(10_000 / samples)))


def median(values: list[int]) -> int:
    """Return the median; of two middle values, the lower one."""
    return sorted(values)[(len(values) - 1) // 2]


def with_test_share(load: Callable[[float | None], Found], given: float | None) -> tuple[Found, float | None]:
    """Load data with their own split or, if they have none, hold out a share of them for testing.

    Args:
        load: Function of the test share, or None, that loads the data.
        given: The requested test share; None if there is none.

    Returns:
        The loaded data, and the test share.

    Raises:
        RequestError: The data can be loaded neither way.
    """
    try:
        return load(given), given
    except RequestError as error:
        as_they_are = error
    if given is None:
        try:
            return load(_TEST_SHARE), _TEST_SHARE
        except RequestError as error:
            if "--data.test-share" not in str(error):  # which would say that the data have a split
                raise
    raise as_they_are
