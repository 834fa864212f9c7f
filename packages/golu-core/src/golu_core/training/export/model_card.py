"""The model card of an exported network: what it is, how it was made, how good it is, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..messages.text_sinks import markdown_text, yaml_value
from ..runs.results import SAMPLED, Result, base_of, split_of
from ..tasks.task import installed_tasks, with_current_task

_CARD_FILE = "README.md"


class Usage(NamedTuple):
    """The usage section of a model card.

    Attributes:
        pipeline: The task's pipeline tag on the Hub, such as `image-classification`.
        library: The Hub's name of the library that loads the network.
        needs: A sentence on the requirements for loading it.
        code: Lines of Python that load the network and assign an output to `y`.
    """

    pipeline: str
    library: str
    needs: str
    code: Sequence[str]


def write_card(folder: Path, result: Result, use: Usage) -> None:
    """Write the card, with the header that hubs read: JSON, which YAML includes.

    Args:
        folder: The folder of the exported network.
        result: The result of the run that trained the network.
        use: The usage section.
    """
    (folder / _CARD_FILE).write_text(_card(with_current_task(result), use), encoding="utf-8")


def _card(result: Result, use: Usage) -> str:
    header = {
        "library_name": use.library,
        "pipeline_tag": use.pipeline,
        "tags": list(dict.fromkeys(["golu", result.activation])),
        "model-index": [
            {
                "name": f"{result.recipe}-{result.activation}",
                "results": [_listed(result, use, split, metrics) for split, metrics in _by_split(result).items()],
            }
        ],
    }
    rows = [
        ("architecture", f"{result.model}, {result.parameters:,} parameters"),
        ("activation", result.activation),
        ("data", ", ".join([result.dataset, *_facts(result)])),
        *((name, _measured(result, name, value)) for name, value in result.metrics.items()),
        (
            "training",
            f"recipe {result.recipe}, seed {result.seed}, {result.steps:,} steps, {_processes(result.world_size)}",
        ),
        ("software", ", ".join(f"{name} {v}" for name, v in result.environment.items() if name in _SOFTWARE)),
        ("needs", use.needs),
    ]
    table = "\n".join(f"| {markdown_text(name)} | {markdown_text(text)} |" for name, text in rows)
    lines = [f"{name}: {yaml_value(value)}" for name, value in header.items()]
    code = "\n".join(use.code)
    title = markdown_text(f"{result.model} with {result.activation}, trained on {result.dataset}")
    return (
        "---\n" + "\n".join(lines) + f"\n---\n\n# {title}\n\n"
        f"| | |\n|---|---|\n{table}\n\nTo load it, in its folder:\n\n```python\n{code}\n```\n"
    )


def _by_split(result: Result) -> dict[str, dict[str, float]]:
    """Return the metrics of each split of the data, by the split's name."""
    found: dict[str, dict[str, float]] = {}
    for name, value in result.metrics.items():
        found.setdefault(split_of(name, result.data), {})[name] = value
    return found


def _listed(result: Result, use: Usage, split: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return an entry of a hub's model index."""
    return {
        "task": {"type": use.pipeline},
        "dataset": {"name": result.dataset, "type": result.dataset, "split": split},
        "metrics": [{"type": name, "value": value} for name, value in metrics.items()],
    }


def _measured(result: Result, name: str, value: float) -> str:
    """Return a metric with its unit, and what of the data it is of: `31.2, on the validation split`."""
    known = installed_tasks()[result.task].metrics if result.task in installed_tasks() else {}
    metric = known.get(base_of(name))
    percent = "%" if metric is not None and metric.label.endswith("(%)") else ""
    sampled = "random windows of " if name.startswith(SAMPLED) else ""
    return f"{value:.6g}{percent}, on {sampled}the {split_of(name, result.data)} split"


def _facts(result: Result) -> list[str]:
    """Return what the task says of the data: `1,437 training images`, `10 classes`."""
    task = installed_tasks().get(result.task)
    unit = "samples" if task is None else task.unit.removesuffix("/s")
    titles = {**_SPLITS, "test": split_of("", result.data)}
    found = [f"{title} {_shown(result.data[split], unit)}" for split, title in titles.items() if split in result.data]
    if "classes" in result.data:
        found.append(_shown(result.data["classes"], "classes"))
    if "fingerprint" in result.data:
        found.append(f"fingerprint {result.data['fingerprint']}")
    return found


_SPLITS = {"train": "training", "valid": "validation", "test": "test"}
_SOFTWARE = ("python", "torch", "golu-core", "golu-vision", "golu-diffusion", "golu-detect", "golu-lm", "git_revision")


def _shown(value: Any, unit: str) -> str:
    """Return a count with its unit, `360 images`, or several: `24 pairs and 310 + 402 subwords`."""
    if isinstance(value, Mapping):
        counts = {name: sum(count.values()) if isinstance(count, Mapping) else count for name, count in value.items()}
        return " and ".join(_shown(count, name.replace("_", " ")) for name, count in counts.items() if count)
    if isinstance(value, (list, tuple)):  # source and target of a translation
        return f"{' + '.join(f'{count:,}' for count in value)} {unit}"
    return f"{value:,} {unit}" if isinstance(value, int) else f"{value} {unit}"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
