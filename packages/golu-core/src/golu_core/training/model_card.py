"""The model card of an exported network: what it is, how it was made, how good it is, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from .results import RESULT_FILE, Result
from .text_sinks import markdown_text, yaml_value

CARD_FILE = "README.md"


class Use(NamedTuple):
    """How a network is used.

    Attributes:
        pipeline: what hubs call its task, such as `image-classification`.
        library: what hubs call the library that loads it.
        needs: what loading it needs, as a sentence.
        code: lines of Python that load it and leave an output in `y`.
    """

    pipeline: str
    library: str
    needs: str
    code: Sequence[str]


def write_card(folder: Path, run: Path, result: Result, use: Use) -> None:
    """Writes the card, with the header that hubs read: JSON, which YAML includes.

    Args:
        folder: of the exported network.
        run: folder of the run that it is from.
        result: of that run.
        use: of the network.
    """
    evaluated = datetime.fromtimestamp((run / RESULT_FILE).stat().st_mtime, UTC).date().isoformat()
    (folder / CARD_FILE).write_text(_card(result, use, evaluated), encoding="utf-8")


def _card(result: Result, use: Use, evaluated: str) -> str:
    metrics = [{"type": name, "value": value} for name, value in result.metrics.items()]
    header = {
        "library_name": use.library,
        "pipeline_tag": use.pipeline,
        "tags": list(dict.fromkeys(["golu", result.activation])),
        "model-index": [
            {
                "name": f"{result.recipe}-{result.activation}",
                "results": [
                    {
                        "task": {"type": use.pipeline},
                        "dataset": {"name": result.dataset, "type": result.dataset},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    data = {name: value for name, value in result.data.items() if name in _DATA}
    rows = [
        ("architecture", f"{result.model}, {result.parameters:,} parameters"),
        ("activation", result.activation),
        ("data", ", ".join(f"{name} {_shown(value)}" for name, value in {"set": result.dataset, **data}.items())),
        *((name, f"{value:.6g}, on the test split, {evaluated}") for name, value in result.metrics.items()),
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


_DATA = ("train", "test", "classes", "fingerprint")
_SOFTWARE = ("python", "torch", "golu-core", "golu-vision", "golu-diffusion", "golu-detect", "golu-lm", "git_revision")


def _shown(value: Mapping[str, int] | int | str) -> str:
    if isinstance(value, Mapping):
        return " and ".join(f"{_shown(count)} {name.replace('_', ' ')}" for name, count in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
