"""Every field of every recipe, changed: its numbers change with its identity, or the request is refused.

The rule that is tested: a run whose identity (config, and what its data are) is another has other numbers, and one
whose identity is the same has the same, bit for bit. Fields are found from the dataclasses, and values from their
types: a new field falls under it without being named.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from command_line import runner_in_this_process
from golu_core.activation.names.registry import ACTIVATIONS
from golu_core.training.config.variants import alternatives, kind_of, variant_fields
from golu_core.training.tasks.command_line import CommandLine

OUTCOMES = ("numbers change", "refused", "place: same numbers", "trains nothing")
# other values of these make a step many times as slow; one step shows as well whether numbers change
COSTLY = ("compile", "model.backbone")
ONE_STEP = ("--max-steps", "1")


@dataclass(frozen=True)
class Flip:
    """One field of a config, changed.

    Attributes:
        path: of the field, `optim.lr`.
        flags: that change it.
    """

    path: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.flags)


def flips_of(config: Any, prefix: str = "") -> Iterator[Flip]:
    """All changes of one field each."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for f in dataclasses.fields(config):
        value, hint, path = getattr(config, f.name), hints[f.name], prefix + f.name
        flag = "--" + path.replace("_", "-")
        kinds = alternatives(hint)
        if kinds is not None:
            yield from (Flip(path, (flag, kind)) for kind in kinds if kind != kind_of(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from flips_of(value, f"{path}.")
        elif kinds is None:
            for words in _others(value, hint):
                yield Flip(path, (_turned_off(flag),) if words == ["no"] else (flag, *words))


def _turned_off(flag: str) -> str:
    """`--data.no-download` of `--data.download`."""
    *owners, name = flag.removeprefix("--").split(".")
    return "--" + ".".join([*owners, f"no-{name}"])


def _others(value: Any, hint: Any) -> Iterator[list[str]]:
    """Other values of a type, as words of the command line; `["no"]` for a switch that is turned off."""
    literals = _literals(hint)
    if isinstance(value, bool):
        yield ["no"] if value else []
    elif literals:
        yield from ([str(other)] for other in literals if other != value)
    elif isinstance(value, str) and value.lower() in ACTIVATIONS:
        yield ["tanh" if value != "tanh" else "relu"]
    elif isinstance(value, tuple):
        yield from _other_tuples(value, hint)
    elif value is None:
        yield [_first_value(hint)]
    else:
        yield [_other(value)]


def _other_tuples(value: tuple[Any, ...], hint: Any) -> Iterator[list[str]]:
    if value:
        words = [str(item) for part in value for item in (part if isinstance(part, tuple) else (part,))]
        numbers = [
            n for n, part in enumerate(words) if part.replace(".", "").replace("-", "").replace("e", "").isdigit()
        ]
        for n in numbers:
            yield [*words[:n], _other(float(words[n]) if not words[n].isdigit() else int(words[n])), *words[n + 1 :]]
    else:
        inner = typing.get_args(hint)[0]
        yield ["" if part is str else _first_value(part) for part in (typing.get_args(inner) or (inner,))]


def _other(value: Any) -> str:
    if isinstance(value, int):
        return str(2 * value if value else 1)
    if isinstance(value, float):
        return repr(0.5 * value if value else 0.25)
    return f"{value}x"


def _first_value(hint: Any) -> str:
    """Some value of a type that None is one of."""
    kinds = {getattr(part, "__origin__", part) for part in (*typing.get_args(hint), hint)}
    if int in kinds:
        return "2"
    return "0.5" if float in kinds else "something-else"


def _literals(hint: Any) -> tuple[Any, ...]:
    parts = (hint, *typing.get_args(hint))
    return next((typing.get_args(part) for part in parts if typing.get_origin(part) is typing.Literal), ())


@dataclass(frozen=True)
class Numbers:
    """What came out of a run: weights, test metrics, result; and who it is."""

    weights: tuple[str, ...]
    tests: tuple[str, ...]
    metrics: str
    identity: str

    @property
    def values(self) -> tuple[Any, ...]:
        """Everything but the identity."""
        return self.weights, self.tests, self.metrics


def numbers_below(folder: Path) -> Numbers | None:
    """The numbers of the one finished run below a folder; None if there is none."""
    found = list(folder.rglob("result.json"))
    if not found:
        return None
    (path,) = found
    result = json.loads(path.read_text())
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    tests = [{k: v for k, v in line.items() if k != "seconds"} for line in lines if line["split"] == "test"]
    return Numbers(
        weights=tuple(hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.parent.glob("*.safetensors"))),
        tests=tuple(json.dumps(line, sort_keys=True) for line in tests),
        metrics=json.dumps([result["metrics"], result["best"]], sort_keys=True),
        identity=json.dumps(
            [result["config_sha256"], result["data"]["fingerprint"], result["data"].get("inputs")], sort_keys=True
        ),
    )


def outcome(done: SimpleNamespace, folder: Path, base: Numbers) -> str:
    """What a flip did, as one of OUTCOMES; an assertion fails where it broke the rule."""
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 2:
        assert len(done.stderr + done.stdout) > 20
        assert not list(folder.rglob("config.json")), "a refused request wrote something"
        return "refused"
    assert done.returncode == 0, done.stderr
    found = numbers_below(folder)
    if found is None:
        assert not list(folder.rglob("config.json"))
        return "trains nothing"
    if found.identity == base.identity:
        assert found.values == base.values, "the numbers changed, and the identity did not"
        return "place: same numbers"
    assert found.values != base.values, "the identity changed, and the numbers did not"
    return "numbers change"


def distinct_bases(
    command_line: CommandLine[Any], shrink: Callable[[str], list[str]]
) -> dict[str, tuple[list[str], list[Flip]]]:
    """For each recipe its shrunken flags, and its flips but for those that an earlier recipe has.

    A field of a variant (`optim.lr` of SGD) is read by that variant's code alone, and is changed once for each type of
    its owner; the others are changed once for each combination of variants.
    """
    found: dict[str, tuple[list[str], list[Flip]]] = {}
    seen = set()
    for name in command_line.recipes:
        flags = shrink(name)
        config = command_line.config([name, *flags])
        kinds = {path: kind_of(_at(config, path)) for path, _ in variant_fields(config)}
        flips = []
        for flip in flips_of(config):
            owner = flip.path.rpartition(".")[0]
            inside = any(owner == path or owner.startswith(f"{path}.") for path in kinds)
            key = (flip.path, type(_at(config, owner)), None if inside else tuple(kinds.items()), flip.flags[1:])
            if flip.path == "compile":  # half a minute each: once for a task
                key = (flip.path, None, None)
            if (key if not inside else key[:3]) in seen:
                continue
            flips.append((flip, key if not inside else key[:3]))
        seen |= {key for _, key in flips}
        if flips:
            found[name] = flags, [flip for flip, _ in flips]
    return found


def _at(config: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        config = getattr(config, name)
    return config


class FlipCases:
    """The flips of a task as parameters of a test, and the numbers of their bases.

    Args:
        command_line: of the task.
        shrink: flags that make a recipe a matter of a second.
        quick: recipes of whose flips one in six belongs to the default tests; the others are `slow`, as is whatever
            compiles.
        slow: recipes with all their flips among the slow tests. Of the others one in eight is, which changes from field
            to field; GOLU_ALL_FLIPS=1 takes all, in about an hour.
    """

    def __init__(
        self,
        command_line: CommandLine[Any],
        shrink: Callable[[str], list[str]],
        *,
        quick: tuple[str, ...] = (),
        slow: tuple[str, ...] = (),
        inductor: bool = False,
    ) -> None:
        self.bases = distinct_bases(command_line, shrink)
        self.command_line = command_line
        self.quick = quick
        self.whole = (*quick, *slow)
        self.inductor = inductor or bool(os.environ.get("GOLU_ALL_FLIPS"))
        self._numbers: dict[tuple[str, ...], Numbers] = {}

    def parameters(self) -> list[Any]:
        """One for each recipe and flip."""
        cases = [(recipe, flip) for recipe, (_, flips) in self.bases.items() for flip in flips]
        if not os.environ.get("GOLU_ALL_FLIPS"):
            cases = [case for case in cases if case[0] in self.whole or _is_sampled(*case)]
        return [
            pytest.param(
                recipe, flip, id=f"{recipe} {flip}", marks=() if self._is_quick(recipe, flip) else pytest.mark.slow
            )
            for recipe, flip in cases
        ]

    def _is_quick(self, recipe: str, flip: Flip) -> bool:
        return recipe in self.quick and flip.path != "compile" and _hashed(recipe, flip) % 6 == 0

    def check(self, recipe: str, flip: Flip, places: list[str], cwd: Path, monkeypatch: Any, capfd: Any) -> None:
        """Runs a recipe with one field changed, and its base if that was not run yet.

        Args:
            places: flags that say where the data are.
            cwd: an empty folder.
            monkeypatch, capfd: of pytest.
        """
        run = runner_in_this_process(self.command_line, monkeypatch, capfd)
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", _save_nothing)  # which takes most of a short run's time
        if not self.inductor:
            traced = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
            monkeypatch.setattr(torch.nn.Module, "compile", traced)
        common = ["train", recipe, *self.bases[recipe][0], *places, *(ONE_STEP if flip.path in COSTLY else ())]
        base = self._numbers_of_base(run, common, cwd)
        (cwd / "flipped").mkdir()
        if flip.path == "data_dir" and "--data-dir" in places:  # the same data at another place
            shutil.copytree(places[places.index("--data-dir") + 1], cwd / "flipped" / flip.flags[1])
        done = run(*common, *flip.flags, cwd=cwd / "flipped")
        seen = outcome(done, cwd / "flipped", base)
        note_outcome(self.command_line.program, recipe, flip, seen, done.stderr)

    def _numbers_of_base(self, run: Callable[..., SimpleNamespace], words: list[str], cwd: Path) -> Numbers:
        """The numbers of an unchanged command, which is run once."""
        if tuple(words) not in self._numbers:
            (cwd / "base").mkdir()
            done = run(*words, cwd=cwd / "base")
            assert done.returncode == 0, done.stderr
            found = numbers_below(cwd / "base")
            assert found is not None
            self._numbers[tuple(words)] = found
        return self._numbers[tuple(words)]


def _is_sampled(recipe: str, flip: Flip) -> bool:
    return _hashed(recipe, flip) % 8 == 0


def _hashed(recipe: str, flip: Flip) -> int:
    return hashlib.sha256(f"{recipe} {flip}".encode()).digest()[0]


def _save_nothing(figure: Any, path: Path, **options: Any) -> None:
    Path(path).write_bytes(b"a picture")


def note_outcome(task: str, recipe: str, flip: Flip, seen: str, message: str) -> None:
    """Adds a line to the file that GOLU_FLIPS names, of which tools/field_table.py makes a page."""
    path = os.environ.get("GOLU_FLIPS")
    if path:
        line = {
            "task": task,
            "recipe": recipe,
            "path": flip.path,
            "flags": str(flip),
            "outcome": seen,
            "message": message[-300:],
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
