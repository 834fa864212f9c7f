"""How far the runs of a table row are from the paper's protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .metrics import paper_name
from .summary import Row, hardware

_PAPER_SEEDS = 3
"""Seeds of each mean in the paper."""
_NOT_SOFTWARE = {"device", "host_cpu", "host_cores", "system", "golu_on_cpu"}


@dataclass(frozen=True)
class Setting:
    """A hyperparameter: what the recipe says, and what the runs had."""

    name: str
    expected: str
    found: str

    @property
    def changed(self) -> bool:
        """Whether it was overridden."""
        return self.expected != self.found


@dataclass(frozen=True)
class Card:
    """The reproducibility card of a recipe.

    Attributes:
        title: the recipe.
        departures: Differences from the paper's protocol, as sentences; none for a faithful reproduction.
        facts: hardware, software, seeds, data, time: name and lines.
        settings: all hyperparameters.
    """

    title: str
    departures: list[str]
    facts: list[tuple[str, list[str]]]
    settings: list[Setting]


def card(row: Row) -> Card:
    """The card of a row of runs."""
    return Card(
        title=row.name,
        departures=[
            *_settings_departures(row),
            *_seed_departures(row),
            *_data_departures(row),
            *_other_departures(row),
        ],
        facts=[
            ("hardware", _hardware(row)),
            ("software", _software(row)),
            ("seeds", _seeds(row)),
            ("data", _data(row)),
            ("activations", _activations(row)),
            ("time", _time(row)),
        ],
        settings=_settings(row),
    )


def _settings(row: Row) -> list[Setting]:
    if row.settings is None:
        return []
    expected = {name: value for name, value, _ in row.overrides}
    return [Setting(name, str(expected.get(name, value)), str(value)) for name, value in sorted(row.settings.items())]


def _settings_departures(row: Row) -> list[str]:
    if row.settings is None:
        return ["the configs of these runs are not known"]
    return [f"{name} is {found}, the recipe has {expected}" for name, expected, found in row.overrides]


def _seed_departures(row: Row) -> list[str]:
    counts = {name: cell.n + len(cell.failed) for name, cell in row.cells.items()}
    few = [f"{paper_name(name)} {count}" for name, count in counts.items() if count < _PAPER_SEEDS]
    failed = [f"{paper_name(name)} {len(cell.failed)}" for name, cell in row.cells.items() if cell.failed]
    sentences = [f"fewer seeds than the paper's {_PAPER_SEEDS}: {', '.join(few)}"] if few else []
    return sentences + ([f"runs that failed: {', '.join(failed)}"] if failed else [])


def _data_departures(row: Row) -> list[str]:
    return sorted(
        {
            f"{split} data: {_with_commas(found)}, the paper has {_with_commas(size)}"
            for run in row.runs
            for split, size in _published(run.result.data).items()
            for found in [_size(run.result.data, split)]
            if found != size
        }
    )


def _published(data: Mapping[str, Any]) -> dict[str, Any]:
    published = data.get("published")
    return {name: size for name, size in published.items() if size} if isinstance(published, dict) else {}


def _size(data: Mapping[str, Any], split: str) -> Any:
    """Samples of a split: images, or documents where results count tokens and bytes too; None if not known."""
    found = data.get(split)
    return found.get("documents") if isinstance(found, dict) else found


def _other_departures(row: Row) -> list[str]:
    found = []
    if len({hardware(run) for run in row.runs}) > 1:
        found.append("the runs were on different hardware")
    if len({str(run.result.environment.get("torch")) for run in row.runs}) > 1:
        found.append("the runs had different versions of torch")
    if len({str(run.result.data.get("fingerprint")) for run in row.runs}) > 1:
        found.append("the runs had different data: their fingerprints differ")
    return found


def _hardware(row: Row) -> list[str]:
    places: Counter[str] = Counter()
    for run in row.runs:
        device, processor = hardware(run)
        cores = run.result.environment.get("host_cores", "?")
        name = processor if device == "cpu" else f"{device}, {processor}"
        places[f"{run.result.world_size} x {name}, {cores} cores"] += 1
    return _counted(places)


def _software(row: Row) -> list[str]:
    names = sorted({name for run in row.runs for name in run.result.environment} - _NOT_SOFTWARE)
    lines = []
    for name in names:
        versions = sorted({str(run.result.environment.get(name, "none")) for run in row.runs})
        lines.append(f"{name} {', '.join(versions)}")
    return lines


def _seeds(row: Row) -> list[str]:
    seeds = {name: sorted([*cell.values, *cell.failed]) for name, cell in row.cells.items()}
    distinct = {tuple(listed) for listed in seeds.values()}
    if len(distinct) == 1:
        return [f"{', '.join(map(str, next(iter(distinct))))} for each activation"]
    return [f"{paper_name(name)}: {', '.join(map(str, listed))}" for name, listed in seeds.items()]


def _data(row: Row) -> list[str]:
    lines: Counter[str] = Counter()
    for run in row.runs:
        data, published = run.result.data, _published(run.result.data)
        splits = [split for split in dict.fromkeys(["train", "test", *published]) if split in data]
        sizes = [
            f"{split} {_with_commas(_size(data, split))}"
            + (f" (published {_with_commas(published[split])})" if split in published else "")
            for split in splits
        ]
        lines[f"{run.result.dataset}: {', '.join(sizes)}; fingerprint {data.get('fingerprint', 'none')}"] += 1
    return _counted(lines)


def _with_commas(size: Any) -> str:
    if size is None:
        return "not known"
    return f"{size:,}" if isinstance(size, int) else str(size)


def _activations(row: Row) -> list[str]:
    lines = {
        f"{swaps.swapped} swapped; left as published: "
        + (f"not known ({swaps.untraced})" if swaps.left is None else ", ".join(swaps.left) or "none")
        for run in row.runs
        if run.result.activation != row.default_activation
        for swaps in [run.result.activations]
    }
    return sorted(lines) or ["only the architecture's own"]


def _time(row: Row) -> list[str]:
    training = sum(run.result.train_seconds for run in row.runs)
    evaluation = sum(run.result.eval_seconds for run in row.runs)
    return [f"{training / 3600:.2f} h of training and {evaluation / 3600:.2f} h of evaluation in {len(row.runs)} runs"]


def _counted(lines: Mapping[str, int] | Counter[str]) -> list[str]:
    items: Iterable[tuple[str, int]] = sorted(lines.items(), key=lambda item: (-item[1], item[0]))
    listed = list(items)
    return [text if len(listed) == 1 else f"{text} ({count} runs)" for text, count in listed]
