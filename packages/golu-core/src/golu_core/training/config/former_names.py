"""Fields and values that had another name in the version before: old flags, studies, and run folders keep working.

A dataclass lists them, new name first: `FORMER_NAMES = {"micro_batch_size": "max_device_batch"}`. A command line
accepts the old flag and prints a note, a config that is read from a file accepts the old key, and the checksum of a
run's identity keeps the old name, so that no run becomes another one. Values are listed by field, new value first:
`FORMER_VALUES = {"decay": {"all_but_norms": "but_norms"}}`. Remove an entry after one minor version: runs that are
older can no longer be continued then.
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


def former_values(kind: type) -> Mapping[str, Mapping[str, str]]:
    """Return the values that had another name, by field, each as new value: old value."""
    return {name: values for base in kind.__mro__ for name, values in vars(base).get("FORMER_VALUES", {}).items()}


def renamed_values(kind: type, prefix: str = "") -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the fields of a dataclass and those in it that have renamed values, as `optim.decay`, with the values."""
    for name, values in former_values(kind).items():
        yield prefix + name, values
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        for inner in _dataclasses_in(hints[field.name]):
            yield from renamed_values(inner, f"{prefix}{field.name}.")


def with_new_names(kind: type, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old names of flags and of their values by new ones.

    Args:
        kind: The dataclass of the flags.
        arguments: Words of a command line.

    Returns:
        The words, and a sentence for each flag or value that was replaced.
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
    return _with_new_values(kind, words, notes), notes


def _with_new_values(kind: type, words: list[str], notes: list[str]) -> list[str]:
    new = {f"--{path.replace('_', '-')}": _turned(values) for path, values in renamed_values(kind)}
    replaced = []
    flag = ""
    for word in words:
        before, equals, value = word.partition("=")
        owner = before.replace("_", "-") if equals else flag
        value = value if equals else word
        renamed = new.get(owner, {}).get(value.replace("-", "_"))
        if renamed is not None:
            notes.append(
                f"{owner} {value} is now {owner} {renamed}, and the old value will be gone in the next version"
            )
            word = before + equals + renamed if equals else renamed
        replaced.append(word)
        flag = word.replace("_", "-")
    return replaced


def with_new_keys(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of a dataclass with the new names of its own fields, and of their values."""
    new = _turned(former_names(kind))
    with_names = {new.get(key, key): value for key, value in values.items()}
    for name, renamed in former_values(kind).items():
        if isinstance(old := with_names.get(name), str):
            with_names[name] = _turned(renamed).get(old, old)
    return with_names


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {old: new for new, old in names.items()}


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
