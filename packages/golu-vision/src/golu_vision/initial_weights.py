"""Where a classifier may start: weights that torchvision and timm publish, and a head that is of the same classes."""

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
    """Loads what `--init-from` names into a classifier; None where it names nothing.

    Args:
        config: of the run.
        model: is changed in place.
        classes: names of the run's classes. A head of other classes is made new; weights of other programs do not name
            theirs, and keep a head of the same size.
        processes: of the run.

    Raises:
        RequestError: the weights cannot be read, or are of another network.
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
    """Names of the tensors whose shape follows from the number of classes."""
    with torch.device("meta"):
        small, large = (build_network(config.model, n, config.data) for n in (classes, classes + 1))
    return tensors_of_head(small, large)


def _libraries_of(model: Model) -> dict[str, Library]:
    """What fetches published weights of a network: the library that it is of."""
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
    except Exception as error:  # the hub's and the network's own
        raise RequestError(f"timm cannot download {tag} of {name}: {str(error)[:300]}") from None
    return found.state_dict()


def _are_classes_of(given: GivenWeights, classes: Sequence[str]) -> bool | None:
    """Whether a run's head is of these classes; None where nothing names its own."""
    theirs = classes_there(given, CLASSES_FILE, "classes")
    if theirs is None:
        return None
    return list(theirs) == list(classes)
