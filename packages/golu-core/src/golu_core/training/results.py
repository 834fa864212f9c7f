"""result.json: one schema for the runs that write it and the tools that read it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .checkpoint import write_json
from .errors import RequestError

SCHEMA = "golu-result/1"
RESULT_FILE = "result.json"
_PACKAGES = (
    "torch",
    "torchvision",
    "accelerate",
    "golu-core",
    "golu-vision",
    "golu-lm",
    "golu-detect",
    "golu-diffusion",
)


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric by which runs of a recipe are compared."""

    name: str
    value: float
    higher_is_better: bool


@dataclass(frozen=True)
class Throughput:
    """Training samples or tokens a second, over all processes."""

    unit: str
    value: float


@dataclass(frozen=True)
class SwappedActivations:
    """How many activations were swapped, and which functional calls were left as published."""

    swapped: int
    left: list[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The content of result.json; its presence means that the run is finished.

    Attributes:
        metrics: final test metrics in the paper's units: top1 in %, perplexity, miou in %, loss.
        best: best test metrics of any epoch by the primary metric, with their `step`.
        data: sizes of the splits, the published sizes, and a fingerprint.
        environment: versions, device and host.
        other: fields of the file that this version does not know.
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
    schema: str = SCHEMA
    other: dict[str, Any] = field(default_factory=dict)


_NESTED: dict[str, Any] = {
    "primary_metric": PrimaryMetric,
    "throughput": Throughput,
    "activations": SwappedActivations,
}


def result_to_json(result: Result) -> dict[str, Any]:
    """The result as JSON values, unknown fields back in their place."""
    values = dataclasses.asdict(result)
    schema, other = values.pop("schema"), values.pop("other")
    return {"schema": schema, **values, **other}


def result_from_json(values: Mapping[str, Any]) -> Result:
    """The result that a file holds.

    Raises:
        RequestError: the schema is another, or a field is missing or of another shape.
    """
    if values.get("schema") != SCHEMA:
        raise RequestError(f"its schema is {values.get('schema')!r}, not {SCHEMA!r}")
    known = {f.name for f in dataclasses.fields(Result)} - {"other"}
    missing = sorted(known - values.keys())
    if missing:
        raise RequestError(f"it lacks {', '.join(missing)}")
    fields = {name: values[name] for name in known}
    try:
        for name, cls in _NESTED.items():
            fields[name] = cls(**fields[name])
    except TypeError as error:
        raise RequestError(f"its field {name} is malformed: {error}") from None
    return Result(**fields, other={name: value for name, value in values.items() if name not in known})


def write_result(path: Path, result: Result) -> None:
    """Writes result.json, whole or not at all."""
    write_json(path, result_to_json(result))


def read_result(path: Path) -> Result:
    """Reads result.json; RequestError with the file's name if it is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{path} is not a result: it holds no object")
    try:
        return result_from_json(values)
    except RequestError as error:
        raise RequestError(f"{path} is not a result: {error}") from None


def environment(device_name: str) -> dict[str, str]:
    """Versions of what computed a result, and on what."""
    import torch

    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda), "device": device_name}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["host_cpu"] = _processor_name()
    found["host_cores"] = str(os.cpu_count())
    found["system"] = platform.platform()
    return found


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
