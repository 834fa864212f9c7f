"""The settings that a study chose for each activation: what `tuned.json` in its output folder holds.

Each pilot seed chooses a setting by itself, and a seed of the study trains with the choice of one pilot seed: seeds
take turns at them. With one common choice, all seeds of the study would share its luck, and reports would claim too
much: see the simulation in docs/studies.md. The common choice, by the median over pilot seeds, is the one to use
elsewhere.
"""

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
"""The ending of settings that name the tokenizer of the metrics."""
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
        base: A checksum of all other settings of the runs.
    """

    task: str
    recipe: str
    variant: str
    activation: str
    metric: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    base: str

    @property
    def pilot_seeds(self) -> list[int]:
        """The seeds of the pilot runs, in order."""
        return [int(seed) for seed in self.trials[0].values]

    @property
    def chosen(self) -> Trial:
        """The trial with the best median over pilot seeds; of equal ones the recipe's own, then the earlier one."""
        return self._best([trial.median(self.higher_is_better) for trial in self.trials])

    @property
    def setting(self) -> Setting:
        """The values by flag that are best over all pilot seeds."""
        return self.chosen.setting

    def chosen_by(self, pilot: int) -> Trial:
        """Return the trial that is best at one pilot seed, with ties as in `chosen`."""
        worst = -math.inf if self.higher_is_better else math.inf
        found = [trial.values[str(pilot)] for trial in self.trials]
        return self._best([worst if value is None else value for value in found])

    def setting_of(self, seed: int) -> Setting:
        """Return the values that a seed of the study is trained with: seeds take turns at the pilot seeds."""
        return self.chosen_by(self.pilot_seeds[seed % len(self.pilot_seeds)]).setting

    def _best(self, values: Sequence[float]) -> Trial:
        signed = [-value if self.higher_is_better else value for value in values]
        return self.trials[signed.index(min(signed))]

    def is_own(self, setting: Setting) -> bool:
        """Whether a setting is the recipe's own."""
        return setting == self.trials[0].setting

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
    """Yield a line for each choice, such as `digits relu: optim.lr 0.05, the best of 9 settings (top1 97.5, …)`."""
    for choice in choices:
        name = " ".join(filter(None, (choice.recipe, choice.variant, choice.activation)))
        chosen = ", ".join(f"{flag} {value}" for flag, value in choice.setting.items())
        best, own = (trial.median(choice.higher_is_better) for trial in (choice.chosen, choice.trials[0]))
        kept = "the recipe's own" if choice.is_own(choice.setting) else f"the recipe's own setting {own:.5g}"
        seeds = len(choice.pilot_seeds)
        agreeing = sum(choice.chosen_by(seed) is choice.chosen for seed in choice.pilot_seeds)
        yield f"{name}: {chosen}, the best of {len(choice.trials)} settings ({choice.metric} {best:.5g}, {kept})"
        if agreeing < seeds:
            yield f"{name}: {agreeing} of {seeds} pilot seeds chose it; each seed is trained with a pilot seed's choice"
        for flag in choice.at_edge:
            yield f"{name}: {flag} is at the edge of the range tried, so other values may be better: widen tune"


def as_json(choice: Choice) -> dict[str, Any]:
    """Return a choice as JSON files have it."""
    by_pilot = {str(seed): choice.chosen_by(seed).setting for seed in choice.pilot_seeds}
    chosen = {"setting": choice.setting, "setting_by_pilot_seed": by_pilot, "at_edge": choice.at_edge}
    return {**dataclasses.asdict(choice), **chosen}


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
