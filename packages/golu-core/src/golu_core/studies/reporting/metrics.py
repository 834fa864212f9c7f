"""How tables write metrics and activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from golu_core.activation.names.registry import ACTIVATIONS
from golu_core.training.tasks.task import Metric, installed_tasks

# the order of the paper's tables; further activations follow in the registry's order
_FIRST = ("leaky_relu", "relu", "elu", "gelu", "swish", "mish")
_LAST = "golu"


def metric_of(task: str, name: str, higher_is_better: bool = False) -> Metric:
    """How to write a metric of a task; one that is not known keeps its name."""
    return _metrics_of(task).get(name) or Metric(name, 4, higher_is_better)


def secondary_metrics(task: str) -> list[str]:
    """The metrics that stand below the one by which a task's runs are compared."""
    return [name for name, metric in _metrics_of(task).items() if metric.secondary]


def metric_label(name: str) -> str:
    """A metric's name with its unit, as the first task that has it writes it."""
    for task in installed_tasks().values():
        if name in task.metrics:
            return task.metrics[name].label
    return name.replace("_", " ")


def _metrics_of(task: str) -> Mapping[str, Metric]:
    known = installed_tasks().get(task)
    return known.metrics if known else {}


def paper_name(activation: str) -> str:
    """The activation as tables write it: the paper's name, with parameters if it has any; else as it was named."""
    head, bracket, parameters = activation.partition("(")
    known = ACTIVATIONS.get(head)
    return f"{known.paper_name}{bracket}{parameters}" if known else activation


def in_table_order(activations: Iterable[str]) -> list[str]:
    """Activations in the order of the paper's tables, GoLU last, each once; others follow."""
    order = [*_FIRST, *(name for name in ACTIVATIONS if name not in (*_FIRST, _LAST))]
    places = {name: place for place, name in enumerate(order)}
    places[_LAST] = len(order) + 1
    return sorted(set(activations), key=lambda name: (places.get(name, len(order) + 2), name))
