"""How long tools/aggregate.py takes over many results, and how much memory."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from golu_core.studies.reporting.metrics import metric_of
from golu_core.training.config.identity import config_sha256
from golu_core.training.runs.results import PrimaryMetric, Result, SwappedActivations, Throughput, write_result
from golu_core.training.runs.run_files import run_folder, write_config
from golu_core.training.tasks.task import installed_tasks
from measuring import Row

_ACTIVATIONS = ("leaky_relu", "relu", "elu", "gelu", "swish", "mish", "golu")


def write_results(folder: Path, count: int) -> int:
    """Writes config.json and result.json of about `count` runs, spread over all recipes and seven activations."""
    values = random.Random(0)
    recipes = [
        (task, recipe) for task, found in installed_tasks().items() for recipe in found.recipes.values() if recipe.paper
    ]
    seeds = -(-count // (len(recipes) * len(_ACTIVATIONS)))
    written = 0
    for task, recipe in recipes:
        for activation in _ACTIVATIONS:
            for seed in range(seeds):
                config = dataclasses.replace(recipe, activation=activation, seed=seed, output_dir=folder)
                name = recipe.paper.metric
                value = 50 + values.random()
                result = Result(
                    task=task,
                    recipe=recipe.recipe,
                    dataset=recipe.paper.dataset,
                    model=recipe.paper.model,
                    activation=activation,
                    seed=seed,
                    primary_metric=PrimaryMetric(name, value, metric_of(task, name).higher_is_better),
                    metrics={name: value, "loss": 1.0},
                    best={name: value, "step": 1000},
                    parameters=recipe.paper.size,
                    steps=1000,
                    train_seconds=100.0 + values.random(),
                    eval_seconds=10.0,
                    throughput=Throughput("images/s", 1000.0),
                    world_size=4,
                    data={"train": 1, "test": 1, "fingerprint": "f"},
                    environment={"python": "3.12.1", "torch": "2.15.0", "device": "a GPU", "host_cpu": "a processor"},
                    config_sha256=config_sha256(config),
                    activations=SwappedActivations(10, []),
                )
                place = run_folder(config, task)
                place.mkdir(parents=True)
                write_config(place, config)
                write_result(place / "result.json", result)
                written += 1
    return written


def aggregate_rows(count: int = 10_000, rounds: int = 3) -> list[Row]:
    """Seconds and memory of the whole command, start of Python included, for the tables and for the whole report."""
    with tempfile.TemporaryDirectory() as top:
        runs = Path(top) / "runs"
        written = write_results(runs, count)
        script = str(Path(__file__).with_name("aggregate.py"))
        rows: list[Row] = []
        for what, more in (("tables", []), ("report", ["--out", str(Path(top) / "report")])):
            measured = sorted(seconds_and_mib([sys.executable, script, str(runs), *more]) for _ in range(rounds))
            seconds, mib = measured[len(measured) // 2]
            rows.append({"what": what, "results": written, "seconds": seconds, "peak_mib": mib})
    return rows


def seconds_and_mib(command: list[str]) -> tuple[float, float]:
    """Wall time and peak memory of a command, measured by a process of its own."""
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return seconds, int(done.stdout) / unit
