"""result.json: one schema for the runs that write it and the tools that read it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...regular_files import regular_json
from ..messages.errors import RequestError
from ..storage.ownership import write_json

SCHEMA = "golu-result/1"
RESULT_FILE = "result.json"
VALIDATION, SAMPLED = "valid_", "sampled_"
"""How the names of metrics begin that are of the validation split, or of random windows of the test split."""
_CHECKSUM = "sha256"
_ROUNDING = 1e-4


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric by which runs of a recipe are compared."""

    name: str
    value: float
    higher_is_better: bool

    @property
    def shown(self) -> str:
        """The metric as commands print it: `accuracy 97.5`."""
        return f"{self.name} {self.value:.5g}"


@dataclass(frozen=True)
class Throughput:
    """Training samples or tokens per second, over all processes."""

    unit: str
    value: float


@dataclass(frozen=True)
class SwappedActivations:
    """The report of the activation swap, as stored in result.json.

    Attributes:
        swapped: The number of modules that were swapped.
        left: The functional calls that were left as published; None where they could not be found.
        untraced: The reason why they could not be found.

    Examples:
        >>> from golu_core.training import SwappedActivations
        >>> SwappedActivations(17, ["relu called in layer1.0 (2 times)"]).lines()
        ['left as published: relu called in layer1.0 (2 times)']
    """

    swapped: int
    left: list[str] | None
    untraced: str = ""

    def lines(self) -> list[str]:
        """What was left, for a person."""
        if self.left is None:
            return [f"functional calls could not be searched for: {self.untraced}"]
        return [f"left as published: {name}" for name in self.left]


def split_of(metric: str, data: Mapping[str, Any]) -> str:
    """Return the split that a metric of result.json is of: `validation` for `valid_bleu`, otherwise what was evaluated.

    Args:
        metric: The metric's name.
        data: The result's `data`, which names the split where it is not the test set.
    """
    return "validation" if metric.startswith(VALIDATION) else str(data.get("holdout", "test"))


def base_of(metric: str) -> str:
    """Return the metric without what it is of: `bleu` for `valid_bleu`, `loss` for `sampled_loss`."""
    return metric.removeprefix(VALIDATION).removeprefix(SAMPLED)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The content of result.json; its presence means that the run is finished.

    Attributes:
        metrics: The final test metrics in the paper's units: top1 in %, perplexity, miou in %, loss.
        best: The test metrics of the best epoch by the primary metric, with their `step`.
        data: The sizes of the splits, the published sizes, and a fingerprint.
        environment: The versions, device, and host.
        files: SHA-256 of the run's other files; none in results of version 0.1.
        other: Fields of the file that this version does not know.
    """

    task: str
    recipe: str
    dataset: str
    model: str
    activation: str
    seed: int
    primary_metric: PrimaryMetric
    metrics: dict[str, float]
    best: dict[str, float]
    parameters: int
    steps: int
    train_seconds: float
    eval_seconds: float
    throughput: Throughput
    world_size: int
    data: dict[str, Any]
    environment: dict[str, str]
    config_sha256: str
    activations: SwappedActivations
    files: dict[str, str] = field(default_factory=dict)
    schema: str = SCHEMA
    other: dict[str, Any] = field(default_factory=dict)


_NESTED: dict[str, Any] = {
    "primary_metric": PrimaryMetric,
    "throughput": Throughput,
    "activations": SwappedActivations,
}


def _result_to_json(result: Result) -> dict[str, Any]:
    """The result as JSON values, unknown fields back in their place, with a checksum of them all."""
    values = dataclasses.asdict(result)
    schema, other = values.pop("schema"), values.pop("other")
    if not result.activations.untraced:
        del values["activations"]["untraced"]
    values = {"schema": schema, **values, **other}
    return {**values, _CHECKSUM: _checksum(values)}


def _checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of the file's values but the checksum itself, whatever the spaces and the order in the file."""
    content = {name: value for name, value in values.items() if name != _CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def result_from_json(values: Mapping[str, Any]) -> Result:
    """Return the result that a file holds.

    Raises:
        RequestError: The schema differs, a field is missing or malformed, or the file was edited.
    """
    if values.get("schema") != SCHEMA:
        raise RequestError(f"its schema is {values.get('schema')!r}, not {SCHEMA!r}")
    known = {f.name for f in dataclasses.fields(Result)} - {"other"}
    missing = sorted(known - values.keys() - {"files"})
    if missing:
        raise RequestError(f"it lacks {', '.join(missing)}")
    if ("files" in values or _CHECKSUM in values) and values.get(_CHECKSUM) != _checksum(values):
        raise RequestError("it was changed or damaged: it does not have its own checksum")
    fields = {name: values[name] for name in known if name in values}
    try:
        for name, cls in _NESTED.items():
            fields[name] = cls(**fields[name])
    except TypeError as error:
        raise RequestError(f"its field {name} is malformed: {error}") from None
    if not isinstance(fields.get("files", {}), dict):
        raise RequestError("its field files is malformed")
    other = {name: value for name, value in values.items() if name not in known | {_CHECKSUM}}
    return Result(**fields, other=other)


def write_result(path: Path, result: Result) -> None:
    """Write result.json atomically."""
    write_json(path, _result_to_json(result))


def amend_result(path: Path, metrics: Mapping[str, float]) -> None:
    """Add metrics to an existing result.json."""
    result = read_result(path)
    write_result(path, dataclasses.replace(result, metrics={**result.metrics, **metrics}))


def read_result(path: Path) -> Result:
    """Read result.json; raise RequestError with the file's name if it is malformed."""
    try:
        values = regular_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{path} is not a result: it holds no object")
    try:
        return result_from_json(values)
    except RequestError as error:
        raise RequestError(f"{path} cannot be used: {error}") from None


def compared(metrics: Mapping[str, float], result: Result) -> str:
    """Return a sentence on the differences between new metrics and those of a result."""
    pairs = {name: (value, result.metrics[name]) for name, value in metrics.items() if name in result.metrics}
    exact = all(here == there or (here != here and there != there) for here, there in pairs.values())
    close = {n: math.isclose(here, there, rel_tol=_ROUNDING, abs_tol=1e-9) for n, (here, there) in pairs.items()}
    if exact:
        return f"the same as in {RESULT_FILE}, to the last digit"
    if all(close.values()):
        return f"the same as in {RESULT_FILE}, to rounding"
    listed = ", ".join(
        f"{name} {here:.6g} here and {there:.6g} there" for name, (here, there) in pairs.items() if not close[name]
    )
    return f"not the same as in {RESULT_FILE}: {listed}"
