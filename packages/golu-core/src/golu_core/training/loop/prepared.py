"""`Prepared`: the objects that `Run.prepare` creates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.identity import config_sha256
from ..runs.provenance import environment
from ..runs.results import PrimaryMetric, Result, SwappedActivations, Throughput
from ..runs.run_files import RunIdentity
from ..tasks.task import Task
from .learner import Learner
from .steps import Steps


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train.

    Attributes:
        learner: The model and its optimizer.
        steps: The optimizer steps.
        identity: The config, inputs, and environment that determine the run's numbers.
    """

    learner: Learner
    steps: Steps
    identity: RunIdentity

    def result(
        self,
        task: Task[Any],
        metrics: dict[str, float],
        *,
        dataset: str,
        model: str,
        data: Mapping[str, Any],
        activations: SwappedActivations,
        other: Mapping[str, Any],
    ) -> Result:
        """Return the content of result.json for the current weights."""
        steps, config, position = self.steps, self.steps.config, self.steps.position
        name = config.primary_metric
        held_out = {} if config.holdout == "test" else {"holdout": config.holdout}
        return Result(
            task=task.name,
            recipe=config.recipe,
            dataset=dataset,
            model=model,
            activation=config.activation,
            seed=config.seed,
            primary_metric=PrimaryMetric(name, metrics[name], task.metrics[name].higher_is_better),
            metrics=metrics,
            best=position.best,
            parameters=sum(p.numel() for p in self.learner.bare_model.parameters()),
            steps=position.step,
            train_seconds=round(position.train_seconds, 3),
            eval_seconds=round(position.eval_seconds, 3),
            throughput=Throughput(task.unit, round(steps.log.throughput, 2)),
            world_size=steps.processes.count,
            data={**data, **held_out, **self.identity.inputs_to_result()},
            environment=environment(steps.processes.device_name, task.distribution),
            config_sha256=config_sha256(config),
            activations=activations,
            other={**other, **self.learner.learned_parameters()},
        )
