"""What a field of a config may hold: said by its type, and checked in one place before anything is read."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from ..messages.errors import RequestError

_LARGEST = 2**31 - 1
_LONGEST_NAME = 200  # bytes: file systems take 255, and a partial file's name is longer than its own
_FORBIDDEN_IN_NAMES = '/\\:*?"<>|'


class Rule(Protocol):
    """A constraint on a value.

    Attributes:
        of: The types of values that the rule applies to.
    """

    of: ClassVar[tuple[type, ...]]

    def problem(self, value: Any) -> str | None:
        """Return the problem with a value, worded to follow the flag's name; None if the value is valid."""
        ...


@dataclass(frozen=True)
class Range:
    """Finite numbers between two bounds.

    Attributes:
        ge, gt: The lower bound, included or excluded.
        le, lt: The upper bound, included or excluded.
    """

    of: ClassVar[tuple[type, ...]] = (int, float)

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def problem(self, value: Any) -> str | None:
        if not math.isfinite(value):
            return f"must be finite, but is {value}"
        if self.ge is not None and value < self.ge:
            return f"must be at least {self.ge}, not {value}"
        if self.gt is not None and value <= self.gt:
            return f"must be above {self.gt}, not {value}"
        if self.le is not None and value > self.le:
            return f"must be at most {self.le}, not {value}"
        if self.lt is not None and value >= self.lt:
            return f"must be below {self.lt}, not {value}"
        return None


@dataclass(frozen=True)
class PathComponent:
    """Names of one file or folder, valid on every file system."""

    of: ClassVar[tuple[type, ...]] = (str,)

    def problem(self, value: Any) -> str | None:
        if not value or value.startswith(".") or value != value.strip():
            return f"must be the name of a folder, not {value!r}"
        if any(letter in _FORBIDDEN_IN_NAMES or not letter.isprintable() for letter in value):
            return f"must be the name of a folder, without any of {_FORBIDDEN_IN_NAMES} in it, not {value!r}"
        if len(value.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            return f"must be at most {_LONGEST_NAME} bytes long, not {len(value.encode('utf-8', 'surrogateescape'))}"
        return None


def added_field(default: Any) -> Any:
    """Declare a field that older runs do not have, and which at its default is not part of a run's identity.

    Use it when you add a field to a config that has been trained with: runs from before continue and evaluate.

    Args:
        default: The value that reproduces what runs did before the field existed.

    Examples:
        >>> from dataclasses import dataclass
        >>> from golu_core.training import EpochConfig, added_field
        >>> @dataclass(frozen=True, kw_only=True)
        ... class TabularConfig(EpochConfig):
        ...     dropout: float = added_field(0.0)
        >>> TabularConfig().dropout
        0.0
    """
    return dataclasses.field(default=default, metadata={"added": True})


BatchNorm = Literal["synchronized", "per_process"]
"""Whether batch norm normalizes over the samples of all processes, or over those of one process's micro-batch.

Declare a field of this type, `batch_norm: BatchNorm = added_field("synchronized")`, and pass it to `Run.prepare`.
"""
Background = Literal["white", "black"]
"""What transparent pixels of an image are put on."""
PositiveInt = Annotated[int, Range(ge=1, le=_LARGEST)]
"""A positive integer, such as a number of epochs.

Examples:
    >>> from dataclasses import dataclass
    >>> from golu_core.training import PositiveInt
    >>> from golu_core.training.config import check_fields
    >>> @dataclass
    ... class Flags:
    ...     width: PositiveInt = 32
    >>> check_fields(Flags(width=0))
    Traceback (most recent call last):
    golu_core...RequestError: --width must be at least 1, not 0
"""
NonNegativeInt = Annotated[int, Range(ge=0, le=_LARGEST)]
"""A non-negative integer, such as a number of loader processes.

Examples:
    >>> from dataclasses import dataclass
    >>> from golu_core.training import NonNegativeInt
    >>> from golu_core.training.config import check_fields
    >>> @dataclass
    ... class Flags:
    ...     copies: NonNegativeInt = 0
    >>> check_fields(Flags(copies=-1))
    Traceback (most recent call last):
    golu_core...RequestError: --copies must be at least 0, not -1
"""
Samples = Annotated[int, Range(ge=1, le=1 << 20)]
"""Samples of one optimizer step, or of one micro-batch."""
PositiveFloat = Annotated[float, Range(gt=0)]
"""A number above 0."""
NonNegativeFloat = Annotated[float, Range(ge=0)]
"""A non-negative number, such as a weight decay.

Examples:
    >>> from dataclasses import dataclass
    >>> from golu_core.training import NonNegativeFloat
    >>> from golu_core.training.config import check_fields
    >>> @dataclass
    ... class Flags:
    ...     penalty: NonNegativeFloat = 0.0
    >>> check_fields(Flags(penalty=-0.5))
    Traceback (most recent call last):
    golu_core...RequestError: --penalty must be at least 0, not -0.5
"""
Fraction = Annotated[float, Range(ge=0, lt=1)]
"""A number from 0 to below 1: a momentum, or a decay rate.

Examples:
    >>> from dataclasses import dataclass
    >>> from golu_core.training import Fraction
    >>> from golu_core.training.config import check_fields
    >>> @dataclass
    ... class Flags:
    ...     decay: Fraction = 0.9
    >>> check_fields(Flags(decay=1.0))
    Traceback (most recent call last):
    golu_core...RequestError: --decay must be below 1, not 1.0
"""
Probability = Annotated[float, Range(ge=0, le=1)]
"""A number from 0 to 1, such as a dropout rate.

Examples:
    >>> from dataclasses import dataclass
    >>> from golu_core.training import Probability
    >>> from golu_core.training.config import check_fields
    >>> @dataclass
    ... class Flags:
    ...     drop: Probability = 0.1
    >>> check_fields(Flags(drop=1.5))
    Traceback (most recent call last):
    golu_core...RequestError: --drop must be at most 1, not 1.5
"""
Seed = Annotated[int, Range(ge=0, le=2**63 - 1)]
"""A seed of random numbers, from 0 to 2**63 - 1.

Examples:
    >>> from dataclasses import dataclass
    >>> from golu_core.training import Seed
    >>> from golu_core.training.config import check_fields
    >>> @dataclass
    ... class Flags:
    ...     seed: Seed = 0
    >>> check_fields(Flags(seed=-1))
    Traceback (most recent call last):
    golu_core...RequestError: --seed must be at least 0, not -1
"""
FolderName = Annotated[str, PathComponent()]
"""One component of a path."""


@runtime_checkable
class SelfChecking(Protocol):
    """A dataclass whose fields must also fit each other."""

    def check(self, flag: str) -> None:
        """Raises RequestError where they do not; `flag` is how the command line calls the dataclass, `--optim`."""
        ...


def check_fields(values: Any, prefix: str = "--") -> None:
    """Checks each field of a dataclass, and those of the dataclasses in it, against its type.

    Raises:
        RequestError: a value is impossible; the message has its flag.
    """
    hints = typing.get_type_hints(type(values), include_extras=True)
    for f in dataclasses.fields(values):
        flag = prefix + f.name.replace("_", "-")
        value = getattr(values, f.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_fields(value, f"{flag}.")
        else:
            _check_value(value, hints[f.name], flag)
    if isinstance(values, SelfChecking):
        values.check(prefix.rstrip("."))


def _check_value(value: Any, hint: Any, flag: str) -> None:
    for item in _leaves(value):
        rules = [rule for rule in _rules(hint) if isinstance(item, rule.of)]
        if isinstance(item, bool):
            continue
        if isinstance(item, (int, float)) and not rules:
            rules = [Range(ge=-_LARGEST, le=_LARGEST) if isinstance(item, int) else Range()]
        if isinstance(item, (str, Path)) and "\0" in str(item):
            raise RequestError(f"{flag} must not have a NUL character in it")
        for rule in rules:
            problem = rule.problem(item)
            if problem is not None:
                raise RequestError(f"{flag} {problem}")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value


def _rules(hint: Any) -> Iterator[Rule]:
    """The rules in a type, however deep: of the members of a union, and of a tuple's items."""
    for part in getattr(hint, "__metadata__", ()):
        if hasattr(part, "problem"):
            yield part
    for part in typing.get_args(hint):
        yield from _rules(part)
