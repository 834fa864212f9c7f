"""Fields that are one of several dataclasses, each with just the fields that it reads, and how they are named.

`augment: Crop | TimmAugment` is such a field, `average: WeightAverage | None` another. Each dataclass has a class
attribute `kind`: its name in config.json, and on the command line, where `--augment timm` chooses it.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..messages.errors import RequestError
from .former_names import former_names, former_values, with_new_keys

if TYPE_CHECKING:
    import cattrs

KIND = "kind"
_NONE = "none"


def alternatives(hint: Any) -> dict[str, Any] | None:
    """The dataclasses of a union by their kinds, with `none` where it takes None; None if it is not such a union."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    members = typing.get_args(hint)
    found: dict[str, Any] = {
        getattr(member, KIND): member
        for member in members
        if hasattr(member, KIND) and dataclasses.is_dataclass(member)
    }
    if not found or len(found) + (type(None) in members) != len(members):
        return None
    return {**found, _NONE: None} if type(None) in members else found


def variant_fields(values: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Paths of a config's fields that are variants, outer ones first, each with its alternatives."""
    hints = typing.get_type_hints(type(values), include_extras=True)
    for f in dataclasses.fields(values):
        value = getattr(values, f.name)
        kinds = alternatives(hints[f.name])
        if kinds is not None:
            yield prefix + f.name, kinds
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from variant_fields(value, f"{prefix}{f.name}.")


def chosen(default: Any, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Apply the choices on the command line, such as `--optim adamw`, to a recipe.

    `--optim adamw` makes `optim` an AdamW with its own defaults. Where a field is None, a flag of its only alternative
    (`--average.decay 0.99`) is choice enough.

    Args:
        default: The recipe.
        arguments: The command-line arguments.

    Returns:
        The recipe with the choices applied, and the remaining arguments.

    Raises:
        RequestError: There is no such choice; the message lists the available ones.
    """
    left = list(arguments)
    done: set[str] = set()
    while True:
        pending = [(path, kinds) for path, kinds in variant_fields(default) if path not in done]
        if not pending:
            return default, left
        path, kinds = pending[0]
        done.add(path)
        name, left = _without(left, path)
        if name is not None:
            kind = name.lower().replace("-", "_")
            if kind not in kinds:
                near = difflib.get_close_matches(kind, kinds, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise RequestError(f"--{_flag(path)} must be one of {', '.join(kinds)}, not {name!r}{hint}")
            if kind != kind_of(_value_at(default, path)):
                default = _with(default, path, None if kinds[kind] is None else kinds[kind]())
        elif _value_at(default, path) is None:
            implied = _implied(left, path, kinds)
            if implied is not None:
                default = _with(default, path, implied())


def kind_of(value: Any) -> str:
    """Return the name of a choice."""
    return _NONE if value is None else str(getattr(value, KIND))


def read_variants(converter: cattrs.Converter) -> None:
    """Make a converter of JSON values understand the `kind` of dataclasses, and former names of their fields."""
    from cattrs.gen import make_dict_structure_fn

    def one_of_several(value: Any, hint: Any) -> Any:
        kinds = alternatives(hint)
        assert kinds is not None
        if value is None and _NONE in kinds:
            return None
        kind = str(value.get(KIND)) if isinstance(value, Mapping) else ""
        if kinds.get(kind) is None:
            raise ValueError(f"its kind is {kind!r}, and must be one of {', '.join(kinds)}")
        return converter.structure({k: v for k, v in value.items() if k != KIND}, kinds[kind])

    def of_one_kind(hint: Any) -> Any:
        structure = make_dict_structure_fn(hint, converter, _cattrs_forbid_extra_keys=True)

        def read(value: Any, _: Any) -> Any:
            without_kind = {k: v for k, v in value.items() if not (_has_kind(hint) and (k, v) == (KIND, kind_of(hint)))}
            return structure(with_new_keys(hint, without_kind), hint)

        return read

    converter.register_structure_hook_factory(lambda hint: _has_kind(hint) or _has_former_names(hint), of_one_kind)
    converter.register_structure_hook_func(lambda hint: alternatives(hint) is not None, one_of_several)


def _has_kind(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) and hasattr(hint, KIND)


def _has_former_names(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) and isinstance(hint, type) and bool(former_names(hint) or former_values(hint))


def help_of(values: Any) -> str:
    """The choices of a recipe, as sentences for `--help`."""
    lines = []
    for path, kinds in variant_fields(values):
        here = kind_of(_value_at(values, path))
        lines.append(f"--{_flag(path)} {{{','.join(kinds)}}}, here {here}{_implying(values, path, kinds)}")
    return "\n".join(["choices, each with its own flags, which --help lists after the choice is made:", *lines])


def _implying(values: Any, path: str, kinds: dict[str, Any]) -> str:
    """The flags that choose an alternative on their own, as `chosen` reads them."""
    if _value_at(values, path) is not None:
        return ""
    flags = {
        name: [flag for flag in _flags_of(kind, path) if _implied([flag], path, kinds) is kind]
        for name, kind in kinds.items()
        if kind is not None
    }
    return "".join(f"; {name} is also chosen by {', '.join(found)}" for name, found in flags.items() if found)


def _flags_of(kind: Any, path: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield f"--{_flag(path)}.{_flag(field.name)}"
        if hints[field.name] is bool:
            yield f"--{_flag(path)}.no-{_flag(field.name)}"


def _flag(path: str) -> str:
    return path.replace("_", "-")


def _without(arguments: list[str], path: str) -> tuple[str | None, list[str]]:
    """Return the last value of a flag, `--flag value` or `--flag=value`, and the arguments without it."""
    spellings = {f"--{path}", f"--{_flag(path)}"}
    found, left, words = None, [], iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in spellings:
            left.append(word)
        else:
            found = value if equals else next(words, "")
    return found, left


def _implied(arguments: list[str], path: str, kinds: dict[str, Any]) -> Any:
    starts = (f"--{path}.", f"--{_flag(path)}.")
    fields = {
        word.partition("=")[0].split(".")[-1].replace("-", "_").removeprefix("no_")
        for word in arguments
        if word.startswith(starts)
    }
    fitting = [
        kind
        for kind in kinds.values()
        if kind is not None and fields and fields <= {f.name for f in dataclasses.fields(kind)}
    ]
    return fitting[0] if len(fitting) == 1 else None


def _value_at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = getattr(values, name)
    return values


def _with(values: Any, path: str, new: Any) -> Any:
    name, _, rest = path.partition(".")
    return dataclasses.replace(values, **{name: _with(getattr(values, name), rest, new) if rest else new})
