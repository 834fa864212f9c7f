"""The settings that a study chose for each activation: what `tuned.json` in its output folder holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golu_core.regular_files import regular_json
from golu_core.training.messages.errors import RequestError

TUNED_FILE = "tuned.json"
_FORMAT = "golu-tuned/1"
DATA = "data (fingerprint)"
"""The name under which the settings of runs have what their data are."""
TOKENIZER = "(tokenizer)"
"""How the names of settings end that have what metrics were taken with."""
Setting = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One setting of one recipe and activation, with the results of its pilot runs.

    Attributes:
        setting: Values by flag.
        values: The metric on the held-out data by pilot seed; None for a run that its own numbers ended.
    """

    setting: Setting
    values: dict[str, float | None]

    def median(self, higher_is_better: bool) -> float:
        """Return the median over pilot seeds, in which a failed run is the worst."""
        worst = -math.inf if higher_is_better else math.inf
        return statistics.median([worst if value is None else value for value in self.values.values()])


@dataclass(frozen=True)
class Choice:
    """The setting that was chosen for one activation.

    Attributes:
        task, recipe, variant, activation: What it was chosen for; `variant` is empty unless flags are varied.
        metric: The metric on the held-out data.
        higher_is_better: Whether a higher value of it is better.
        trials: All settings that were tried; the first is the recipe's own.
        chosen: The index of the chosen one.
        base: A checksum of all other settings of the runs.
    """

    task: str
    recipe: str
    variant: str
    activation: str
    metric: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    chosen: int
    base: str

    @property
    def setting(self) -> Setting:
        """The chosen values by flag."""
        return self.trials[self.chosen].setting

    @property
    def is_own(self) -> bool:
        """Whether it is the recipe's own setting."""
        return self.chosen == 0

    @property
    def at_edge(self) -> list[str]:
        """The flags whose chosen value is the lowest or the highest that was tried, so that others may be better."""
        found = []
        for name, value in self.setting.items():
            tried = [trial.setting[name] for trial in self.trials]
            numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in tried)
            if numeric and len(set(tried)) > 1 and value in (min(tried), max(tried)):
                found.append(name)
        return found


def choice_lines(choices: Sequence[Choice]) -> Iterator[str]:
    """Yield a line for each choice, such as `digits relu: optim.lr 0.05 of 0.01 to 1 (top1 97.5, own 0.1: 97.2)`."""
    for choice in choices:
        name = " ".join(filter(None, (choice.recipe, choice.variant, choice.activation)))
        chosen = ", ".join(f"{flag} {value}" for flag, value in choice.setting.items())
        best, own = (choice.trials[n].median(choice.higher_is_better) for n in (choice.chosen, 0))
        kept = "the recipe's own" if choice.is_own else f"the recipe's own setting {own:.5g}"
        yield f"{name}: {chosen}, the best of {len(choice.trials)} settings ({choice.metric} {best:.5g}, {kept})"
        for flag in choice.at_edge:
            yield f"{name}: {flag} is at the edge of what was tried, so that other values may be better: widen tune"


def as_json(choice: Choice) -> dict[str, Any]:
    """Return a choice as JSON files have it."""
    return {**dataclasses.asdict(choice), "setting": choice.setting, "at_edge": choice.at_edge}


def choices_text(choices: Sequence[Choice]) -> str:
    """Return the content of tuned.json."""
    return json.dumps(_signed([as_json(choice) for choice in choices]), indent=1) + "\n"


def _signed(choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    text = json.dumps(choices, sort_keys=True)
    return {"format": _FORMAT, "choices": choices, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_choices(folder: Path) -> list[Choice]:
    """Return the choices in a study's output folder; none where there is no tuned.json.

    Raises:
        RequestError: The file is damaged.
    """
    path = folder / TUNED_FILE
    if not path.exists():
        return []
    try:
        content = regular_json(path)
        if content["format"] != _FORMAT or _signed(content["choices"])["sha256"] != content["sha256"]:
            raise ValueError("its checksum is that of other content")
        return [_from_json(values) for values in content["choices"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(f"{path} cannot be used ({type(error).__name__}: {error})") from None


def _from_json(values: Mapping[str, Any]) -> Choice:
    known = {name: values[name] for name in (f.name for f in dataclasses.fields(Choice))}
    trials = tuple(Trial(dict(trial["setting"]), dict(trial["values"])) for trial in known.pop("trials"))
    return Choice(**known, trials=trials)


def field_of(flag: str) -> str:
    """Return the name in a config of what a flag sets: `optim.weight_decay` for `optim.weight-decay`."""
    return flag.replace("-", "_")


def base_of(settings: Mapping[str, Any], flags: Iterable[str]) -> str:
    """Return a checksum of a run's settings without those that were tuned, and without the data that it used."""
    tuned = {*map(field_of, flags), "holdout", DATA}
    kept = {name: value for name, value in settings.items() if name not in tuned and not name.endswith(TOKENIZER)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
