"""Initial weights of a classifier: torchvision's and timm's published weights, and heads for the same classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from golu_core.training import Processes, RequestError
from golu_core.training.finetuning import (
    GivenWeights,
    Library,
    Start,
    classes_there,
    read_given,
    start_given,
    tensors_of_head,
    torchvisions_weights,
)

from .config import Model, VisionConfig
from .model import build_network
from .task import TASK

CLASSES_FILE = "classes.json"


def start_of_run(config: VisionConfig, model: nn.Module, classes: Sequence[str], processes: Processes) -> Start | None:
    """Load the weights in `--init-from` into a classifier; return None without `--init-from`.

    Args:
        config: The run's configuration.
        model: The model, changed in place.
        classes: The run's class names. The head of a run with different classes is reinitialized; weights from other
            programs do not name their classes, so a head of the same size is kept.
        processes: The run's processes.

    Raises:
        RequestError: The weights cannot be read, or belong to a different network.
    """
    if config.init_from is None:
        return None
    return start_given(
        config,
        TASK,
        model,
        processes,
        partial(read_given, libraries=_libraries_of(config.model)),
        head=_head_of(config, len(classes)),
        with_head=lambda given: _are_classes_of(given, classes),
    )


def _head_of(config: VisionConfig, classes: int) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    with torch.device("meta"):
        small, large = (build_network(config.model, n, config.data) for n in (classes, classes + 1))
    return tensors_of_head(small, large)


def _libraries_of(model: Model) -> dict[str, Library]:
    """Return the library of a network, which can download its published weights."""
    library, _, name = model.name.partition("/")
    fetch: dict[str, Callable[[str, str], Mapping[str, Tensor]]] = {"torchvision": torchvisions_weights, "timm": _timms}
    return {library: lambda tag: (fetch[library](name, tag), model.default_activation)} if library in fetch else {}


def _timms(name: str, tag: str) -> Mapping[str, Tensor]:
    import timm

    tags = [found.partition(".")[2] for found in timm.list_pretrained(f"{name}.*")]
    if tag != "default" and tag not in tags:
        raise RequestError(f"timm has no weights {tag!r} of {name}; it has {', '.join(['default', *tags])}")
    try:
        found: nn.Module = timm.create_model(name if tag == "default" else f"{name}.{tag}", pretrained=True)
    except Exception as error:  # from the hub and the network connection
        raise RequestError(f"timm cannot download {tag} of {name}: {str(error)[:300]}") from None
    return found.state_dict()


def _are_classes_of(given: GivenWeights, classes: Sequence[str]) -> bool | None:
    """Return whether a run's head has these classes; None if the weights do not name their classes."""
    theirs = classes_there(given, CLASSES_FILE, "classes")
    if theirs is None:
        return None
    return list(theirs) == list(classes)
