"""Flags of `train` in a study: which are varied, and which a study may not have because it sets them itself."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from golu_core.training.messages.errors import RequestError

_SET_BY_STUDY = {
    "recipe": "recipes",
    "activation": "activations",
    "activation-source": "activations",
    "seed": "seeds",
    "output-dir": "output_dir",
    "data-dir": "data_dir",
    "dry-run": "golu-core sweep --print",
}
"""Flags of `train` that a study sets itself, and what to write instead."""
_FLAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def variants(flags: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each combination of the varied flags: its name, and all flags as the command line takes them.

    Raises:
        RequestError: a flag is named twice, is set by the study itself, or has no value.
    """
    flat = flat_flags(flags)
    for name, value in flat.items():
        _check_flag(name, value)
    varied = {name: value for name, value in flat.items() if isinstance(value, list)}
    for combination in itertools.product(*varied.values()):
        chosen = dict(zip(varied, combination, strict=True))
        name = ",".join(f"{key}={shown_value(value)}" for key, value in chosen.items() if len(varied[key]) > 1)
        yield name, [token for key, value in {**flat, **chosen}.items() for token in words_of(key, value)]


def flat_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of flags without tables in it; RequestError if it names a flag twice."""
    flat: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for name, value in _flattened(flags):
        other = spelled.setdefault(as_typed(name), name)
        if other != name or name in flat:
            raise RequestError(f"flags has {name} twice: leave one of them out")
        flat[name] = value
    return flat


def as_typed(name: str) -> str:
    """Return the name of a flag as the command line spells it: `optim.weight-decay` for `optim.weight_decay`."""
    return name.replace("_", "-")


def _check_flag(name: str, value: Any) -> None:
    """Raise RequestError for a flag that the study sets itself, that has no value, or that hides another flag."""
    if not _FLAG_NAME.fullmatch(name):
        raise RequestError(f"{name!r} in flags is not the name of a flag")
    plain = as_typed(name).lower()
    instead = _SET_BY_STUDY.get(plain) or _SET_BY_STUDY.get(plain.removeprefix("no-"))
    if instead is not None:
        raise RequestError(f"flags cannot have {name}, which the study sets for each run: use {instead} instead")
    if value == []:
        raise RequestError(f"{name} is an empty list, so there is nothing to run: pass at least one value")
    for item in _items(value):
        if isinstance(item, str) and item.startswith("--"):
            raise RequestError(f"{name} cannot be {item!r}, which is a flag itself: write it on its own in flags")


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _items(part)
    else:
        yield value


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def words_of(name: str, value: Any) -> list[str]:
    """Return a flag with its value as the command line takes them."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else "--" + ".".join([*flag.split(".")[:-1], "no-" + flag.split(".")[-1]])]
    return [f"--{flag}", *(str(item) for item in (value if isinstance(value, list) else [value]))]


def shown_value(value: Any) -> str:
    """Return a value as the name of a folder has it."""
    shown = "_".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(letter if letter in string.ascii_letters + string.digits + "-+.,_" else "_" for letter in shown)
