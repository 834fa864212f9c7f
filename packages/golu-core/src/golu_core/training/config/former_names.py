"""Fields that had another name in the version before: old flags, studies, and run folders keep working.

A dataclass lists them, new name first: `FORMER_NAMES = {"micro_batch_size": "max_device_batch"}`. A command line
accepts the old flag and prints a note, a config that is read from a file accepts the old key, and the checksum of a
run's identity keeps the old name, so that no run becomes another one. Remove an entry after one minor version: runs
that are older can no longer be continued then.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def former_names(kind: type) -> Mapping[str, str]:
    """Return the fields of a dataclass that had another name, as new name: old name."""
    return {new: old for base in kind.__mro__ for new, old in vars(base).get("FORMER_NAMES", {}).items()}


def renamed_fields(kind: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the renamed fields of a dataclass and those in it, as `noise.beta_start` and `noise.first`."""
    for new, old in former_names(kind).items():
        yield prefix + new, prefix + old
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        for inner in _dataclasses_in(hints[field.name]):
            yield from renamed_fields(inner, f"{prefix}{field.name}.")


def with_new_names(kind: type, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old names of flags by new ones.

    Args:
        kind: The dataclass of the flags.
        arguments: Words of a command line.

    Returns:
        The words, and a sentence for each flag that was replaced.
    """
    new = {old: name for name, old in renamed_fields(kind)}
    words, notes = [], []
    for word in arguments:
        flag, equals, value = word.partition("=")
        path = flag.removeprefix("--").replace("-", "_")
        negated = path not in new and _without_no(path) in new
        if flag.startswith("--") and (negated or path in new):
            renamed = _flag(new[_without_no(path) if negated else path], negated)
            notes.append(f"{flag} is now {renamed}, and the old name will be gone in the next version")
            word = renamed + equals + value
        words.append(word)
    return words, notes


def with_new_keys(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of a dataclass with the new names of its own fields."""
    new = {old: name for name, old in former_names(kind).items()}
    return {new.get(key, key): value for key, value in values.items()}


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses_in(part)


def _without_no(path: str) -> str:
    """The switch that a flag turns off: `data.turn` of `data.no_turn`."""
    owner, dot, name = path.rpartition(".")
    return owner + dot + name.removeprefix("no_")


def _flag(path: str, negated: bool) -> str:
    owner, dot, name = path.replace("_", "-").rpartition(".")
    return f"--{owner}{dot}{'no-' if negated else ''}{name}"
