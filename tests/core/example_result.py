"""A result of the test's choice."""

from __future__ import annotations

from typing import Any

from golu_core.training.runs.results import PrimaryMetric, Result, SwappedActivations, Throughput


def example_result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "task": "vision",
        "recipe": "digits",
        "dataset": "digits",
        "model": "m",
        "activation": "golu",
        "seed": 0,
        "primary_metric": PrimaryMetric("top1", 99.0, True),
        "metrics": {"top1": 99.0},
        "best": {"top1": 99.5, "step": 3},
        "parameters": 1,
        "steps": 2,
        "train_seconds": 1.0,
        "eval_seconds": 1.0,
        "throughput": Throughput("images/s", 3.0),
        "world_size": 1,
        "data": {},
        "environment": {},
        "config_sha256": "0",
        "activations": SwappedActivations(1, []),
    }
    return Result(**{**values, **changes})
