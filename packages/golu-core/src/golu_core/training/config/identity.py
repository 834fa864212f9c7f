"""What a run is: the fields of its config that change its numbers, flat, and their checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .former_names import renamed_fields, renamed_values
from .run_config import RunConfig, to_json


@dataclass(frozen=True)
class IdentityRules:
    """How the fields of a kind of config count.

    Attributes:
        runtime: Names of the fields that say where and how a run runs; they are no part of its identity.
        added: Fields that older runs do not have, with their defaults, at which they do not count either.
        former: The names under which renamed fields enter the checksum, so that a run keeps the one it has.
        former_values: The same for renamed values, by field.
    """

    runtime: frozenset[str]
    added: Mapping[str, Any]
    former: Mapping[str, str]
    former_values: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, config: RunConfig) -> IdentityRules:
        """Return the rules of a config, which hold for any other of the same recipe."""
        kind = type(config)
        names, values = dict(renamed_fields(kind)), dict(renamed_values(kind))
        return cls(frozenset(runtime_fields(config)), dict(added_fields(config)), names, values)

    def flat(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `identity` does, for a config that is at hand as JSON values, under old names or new ones."""
        new = {old: name for name, old in self.former.items()}
        left_out = self.runtime | {self.former[name] for name in self.runtime & set(self.former)}
        flat = {new.get(name, name): _canonical(value) for name, value in flattened(values, left_out).items()}
        for name, renamed in self.former_values.items():
            for value, old in renamed.items():
                if flat.get(name) == old:
                    flat[name] = value
        return {name: value for name, value in flat.items() if name not in self.added or value != self.added[name]}

    def sha256(self, flat: Mapping[str, Any]) -> str:
        """Return the checksum of what `flat` or `identity` gives."""
        named = {}
        for name, value in flat.items():
            renamed = self.former_values.get(name, {})
            named[self.former.get(name, name)] = renamed.get(value, value) if isinstance(value, str) else value
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def identity(config: RunConfig) -> dict[str, Any]:
    """Return the fields that change a run's numbers, flat, as `optim.lr: 0.1`."""
    return IdentityRules.of(config).flat(to_json(config))


def config_sha256(config: RunConfig) -> str:
    """Return the checksum of a run's identity."""
    rules = IdentityRules.of(config)
    return rules.sha256(rules.flat(to_json(config)))


def flattened(values: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """Return JSON values with nested names, as `optim.lr`, without some."""
    flat: dict[str, Any] = {}
    _flatten(values, "", left_out, flat)
    return flat


def runtime_fields(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of the fields that say where and how a run runs, as `data.download`."""
    for f in dataclasses.fields(config):
        if not f.metadata.get("identity", True):
            yield prefix + f.name
        elif dataclasses.is_dataclass(value := getattr(config, f.name)):
            yield from runtime_fields(value, f"{prefix}{f.name}.")


def added_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names of the fields that older runs do not have, with their defaults."""
    for f in dataclasses.fields(config):
        if f.metadata.get("added", False):
            yield prefix + f.name, to_json(f.default)
        elif dataclasses.is_dataclass(value := getattr(config, f.name)):
            yield from added_fields(value, f"{prefix}{f.name}.")


def differences(config: RunConfig, other: RunConfig) -> list[str]:
    """Return the identity fields in which two configs differ, as `optim.lr: 0.1 there, 0.05 asked for`."""
    asked, there = identity(config), identity(other)
    defaults = {**dict(added_fields(other)), **dict(added_fields(config))}  # at which `identity` leaves fields out
    values = {
        name: (there.get(name, defaults.get(name, "absent")), asked.get(name, defaults.get(name, "absent")))
        for name in sorted({*asked, *there})
    }
    return [f"{name}: {old} there, {new} asked for" for name, (old, new) in values.items() if old != new]


def _flatten(values: Mapping[str, Any], prefix: str, left_out: frozenset[str], flat: dict[str, Any]) -> None:
    for key, value in values.items():
        name = prefix + key
        if name in left_out:
            continue
        if isinstance(value, dict) and value:
            _flatten(value, name + ".", left_out, flat)
        else:
            flat[name] = value


def _canonical(value: Any) -> Any:
    """A value as it counts: 1 and 1.0 are one number, whichever a recipe or a JSON file has."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
