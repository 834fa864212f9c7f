"""Finished runs as the task packages leave them, with numbers of the test's choice."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golu_core.training.config.identity import config_sha256
from golu_core.training.runs.results import PrimaryMetric, Result, SwappedActivations, Throughput, write_result
from golu_core.training.runs.run_files import write_config
from golu_core.training.tasks.task import installed_tasks

HIGHER_IS_BETTER = {"top1", "token_accuracy", "bleu", "miou", "box_map", "mask_map"}
ENVIRONMENT = {"python": "3.12.1", "torch": "2.15.0", "device": "cpu", "host_cpu": "a processor", "host_cores": "2"}


def recipe(task: str, name: str) -> Any:
    return installed_tasks()[task].recipes[name]


def published_rows() -> Iterator[tuple[str, Any]]:
    """Task and recipe of each row that the paper prints."""
    for task, found in installed_tasks().items():
        for config in found.recipes.values():
            if config.paper is not None and config.paper.results:
                yield task, config


def write_run(
    root: Path,
    task: str,
    name: str,
    activation: str,
    seed: int,
    metrics: dict[str, float],
    *,
    step_seconds: float = 0.1,
    curve: list[float] | None = None,
    place: Path | None = None,
    environment: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Writes config.json and result.json, and with `curve` metrics.jsonl; the first metric is the primary one."""
    config = dataclasses.replace(recipe(task, name), activation=activation, seed=seed, **settings)
    folder = place or root / task / name / activation / f"seed{seed}"
    folder.mkdir(parents=True)
    primary, value = next(iter(metrics.items()))
    steps = 1000
    result = Result(
        task=task,
        recipe=name,
        dataset=config.data.name,
        model="a model",
        activation=activation,
        seed=seed,
        primary_metric=PrimaryMetric(primary, value, primary in HIGHER_IS_BETTER),
        metrics=metrics,
        best={**metrics, "step": steps},
        parameters=1,
        steps=steps,
        train_seconds=steps * step_seconds,
        eval_seconds=10.0,
        throughput=Throughput("images/s", 1.0),
        world_size=1,
        data={"train": 10, "test": 5, "published": {"train": 10, "test": 5}, "fingerprint": "f"},
        environment=environment or ENVIRONMENT,
        config_sha256=config_sha256(config),
        activations=SwappedActivations(3, []),
    )
    write_config(folder, config)
    write_result(folder / "result.json", result)
    lines = [
        {"step": 10 * place, "epoch": place, "split": "test", "seconds": 1.0 * place, primary: metric, "loss": 1.0}
        for place, metric in enumerate(curve or [], 1)
    ]
    if lines:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def change_result(folder: Path, **changes: Any) -> None:
    """Changes fields of a result.json, whatever they then are, as a program would that is not ours."""
    path = folder / "result.json"
    values = {**json.loads(path.read_text()), **changes}
    values.pop("sha256", None)
    values.pop("files", None)
    path.write_text(json.dumps(values))


def write_digits(root: Path, values: dict[str, list[float]], **settings: Any) -> None:
    """Runs of golu-vision's `digits`: top-1 of each activation by seed."""
    for activation, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            write_run(root, "vision", "digits", activation, seed, {"top1": value}, **settings)


def write_published(root: Path) -> None:
    """The paper's tables as results: three seeds with the published mean, and the spread as their standard error."""
    for task, config in published_rows():
        names = [config.paper.metric, *(name for name in config.paper.results if name != config.paper.metric)]
        for activation in config.paper.results[config.paper.metric]:
            for seed in range(3):
                metrics = {}
                for name in names:
                    mean, spread = config.paper.results[name][activation]
                    metrics[name] = mean + (seed - 1) * spread * math.sqrt(3)
                first = metrics[names[0]]
                curve = [first * (0.5 if names[0] in HIGHER_IS_BETTER else 2.0), first]
                folder = f"runs/vision/resnet50-imagenet/{activation}/seed{seed}"
                given = dict.fromkeys(config.paper.given, folder)
                write_run(root, task, config.recipe, activation, seed, metrics, curve=curve, **given)
