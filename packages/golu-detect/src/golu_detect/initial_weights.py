"""Initial weights of a detector or segmenter: torchvision's published weights, and heads for the same classes."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from golu_core.training import Processes
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

from .config import DetectConfig, Model
from .data import DetectData
from .model import build_network
from .predict import CLASSES_FILE
from .task import TASK

_BUILDERS = {
    "deeplabv3": "deeplabv3_resnet50",
    "fasterrcnn": "fasterrcnn_resnet50_fpn",
    "retinanet": "retinanet_resnet50_fpn_v2",
    "maskrcnn": "maskrcnn_resnet50_fpn",
}


def start_of_run(config: DetectConfig, model: nn.Module, data: DetectData, processes: Processes) -> Start | None:
    """Load the weights in `--init-from` into a network; return None without `--init-from`.

    Args:
        config: The run's configuration.
        model: The model, changed in place.
        data: The data set, which defines the classes of the head. The head of a run with different classes is
            reinitialized; weights from other programs do not name their classes, so a head of the same size is kept.
        processes: The run's processes.

    Raises:
        RequestError: The weights cannot be read, or belong to a different network.
    """
    if config.init_from is None:
        return None
    with torch.device("meta"):
        small, large = (build_network(config.model, n) for n in (data.classes, data.classes + 1))
    return start_given(
        config,
        TASK,
        model,
        processes,
        partial(read_given, libraries=_libraries(config.model)),
        head=tensors_of_head(small, large),
        with_head=lambda given: _are_classes_of(given, data),
    )


def _libraries(model: Model) -> dict[str, Library]:
    if model.backbone != "resnet50":
        return {}
    return {"torchvision": lambda tag: (torchvisions_weights(_BUILDERS[model.kind], tag), "relu")}


def _are_classes_of(given: GivenWeights, data: DetectData) -> bool | None:
    """Return whether a run's head has these classes; None if the weights do not name their classes."""
    theirs = classes_there(given, CLASSES_FILE, "names")
    if theirs is None:
        return None
    return bool(theirs == {str(number): name for number, name in data.names.items()})
