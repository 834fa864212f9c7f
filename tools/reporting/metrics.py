"""How tables write metrics and activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from golu_core.activation.registry import ACTIVATIONS

# the order of the paper's tables; further activations follow in the registry's order
_FIRST = ("leaky_relu", "relu", "elu", "gelu", "swish", "mish")
_LAST = "golu"


@dataclass(frozen=True)
class Metric:
    """A metric of result.json.

    Attributes:
        label: as tables write it, with its unit.
        decimals: that tables show, as the paper does.
        higher_is_better: its direction.
    """

    label: str
    decimals: int
    higher_is_better: bool


METRICS = {
    "top1": Metric("top-1 (%)", 2, True),
    "perplexity": Metric("perplexity", 3, False),
    "token_accuracy": Metric("token accuracy (%)", 3, True),
    "miou": Metric("mIoU (%)", 2, True),
    "box_map": Metric("box mAP (%)", 2, True),
    "mask_map": Metric("mask mAP (%)", 2, True),
    "loss": Metric("loss", 5, False),
    "fid": Metric("FID", 2, False),
}
# shown beneath the metric by which runs are compared, where results have them
SECONDARY = ("token_accuracy", "mask_map", "fid")


def metric_of(name: str, higher_is_better: bool = False) -> Metric:
    """How to write a metric; one that is not known keeps its name."""
    return METRICS.get(name) or Metric(name, 4, higher_is_better)


def paper_name(activation: str) -> str:
    """The activation as tables write it."""
    known = ACTIVATIONS.get(activation)
    return known.paper_name if known else activation


def in_table_order(activations: Iterable[str]) -> list[str]:
    """Activations in the order of the paper's tables, GoLU last, each once."""
    order = [*_FIRST, *(name for name in ACTIVATIONS if name not in (*_FIRST, _LAST))]
    places = {name: place for place, name in enumerate(order)}
    places[_LAST] = len(order) + 1
    return sorted(set(activations), key=lambda name: (places.get(name, len(order)), name))
