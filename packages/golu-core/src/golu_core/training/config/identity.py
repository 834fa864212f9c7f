"""What a run is: the fields of its config that change its numbers, flat, and their checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .run_config import RunConfig, to_json


def identity(config: RunConfig) -> dict[str, Any]:
    """The fields that change a run's numbers, flat, as `optim.lr: 0.1`."""
    return flat_identity(to_json(config), frozenset(placement_fields(config)), dict(later_fields(config)))


def flat_identity(values: Mapping[str, Any], placements: frozenset[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` of a config that is at hand as JSON values.

    Args:
        values: what `to_json` gives, or config.json holds.
        placements: the `placement_fields` of any config of the same recipe.
        defaults: its `later_fields`.
    """
    flat = {name: _canonical(value) for name, value in flattened(values, placements).items()}
    return {name: value for name, value in flat.items() if name not in defaults or value != defaults[name]}


def flattened(values: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """JSON values with nested names, as `optim.lr`, without some."""
    flat: dict[str, Any] = {}
    _flatten(values, "", left_out, flat)
    return flat


def placement_fields(config: Any, prefix: str = "") -> Iterator[str]:
    """Names of the fields that say where and how a run runs, as `data.download`."""
    for f in dataclasses.fields(config):
        if not f.metadata.get("identity", True):
            yield prefix + f.name
        elif dataclasses.is_dataclass(value := getattr(config, f.name)):
            yield from placement_fields(value, f"{prefix}{f.name}.")


def later_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names of the fields that older runs do not have, with their defaults."""
    for f in dataclasses.fields(config):
        if f.metadata.get("later", False):
            yield prefix + f.name, to_json(f.default)
        elif dataclasses.is_dataclass(value := getattr(config, f.name)):
            yield from later_fields(value, f"{prefix}{f.name}.")


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


def config_sha256(config: RunConfig) -> str:
    """Checksum of a run's identity."""
    return identity_sha256(identity(config))


def identity_sha256(flat: Mapping[str, Any]) -> str:
    """Checksum of what `identity` gives."""
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def differences(config: RunConfig, other: RunConfig) -> list[str]:
    """The identity fields in which two configs differ, as `optim.lr: 0.1 there, 0.05 asked for`."""
    asked, there = identity(config), identity(other)
    missing = "absent"
    return [
        f"{name}: {there.get(name, missing)} there, {asked.get(name, missing)} asked for"
        for name in sorted({*asked, *there})
        if there.get(name, missing) != asked.get(name, missing)
    ]
