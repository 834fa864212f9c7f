"""`golu-vision export`: export a classifier for ONNX Runtime, torch.export, or timm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from golu_core.training import FinishedRun
from golu_core.training.export import Exportable, activation_file, export_run, spec_in_export
from golu_core.training.runs import Result

from .config import VisionConfig
from .model import build_model
from .predict import classes_of_run

_PREPROCESSING = "preprocessing.json"


def export_command(arguments: Sequence[str]) -> None:
    """Run `golu-vision export RUN_DIR --out DIR [--format onnx|pt2|safetensors]`."""
    export_run(arguments, "golu-vision export", _of_run)


def _of_run(folder: Path) -> tuple[Exportable, Result]:
    finished = FinishedRun.at(folder, VisionConfig)
    config, classes = finished.config, classes_of_run(finished)
    model, _ = build_model(config, len(classes))
    finished.load_evaluated_weights(model, config.average)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, config.data.size, config.data.size, generator=generator)
    is_timm = config.model.name.startswith("timm/")
    own = config.activation == config.model.default_activation
    network = Exportable(
        model=model.eval(),
        example=(images,),
        inputs=("images",),
        output="logits",
        pipeline="image-classification",
        files={
            _PREPROCESSING: preprocessing_of(config, classes),
            **({"config.json": _timm_config(config, classes, model)} if is_timm else {}),
            **activation_file(config.activation),
        },
        loading=_loading(config, len(classes)),
        needs="timm" if is_timm and own else "golu-vision" if not is_timm else "timm, and golu-core for the activation",
        library="timm" if is_timm else "pytorch",
    )
    return network, finished.result


def preprocessing_of(config: VisionConfig, classes: Sequence[str]) -> dict[str, Any]:
    """Return how evaluation converts an image to the network's input, and the names of the network's outputs."""
    data = config.data
    return {
        "channels": "RGB",
        "transparent_pixels_on": data.background,
        "resize_shorter_side": data.resize,
        "interpolation": data.interpolation,
        "antialias": True,
        "center_crop": data.size,
        "scale": "pixels / 255",
        "mean": list(data.mean),
        "std": list(data.std),
        "layout": "NCHW float32",
        "classes": list(classes),
    }


def _timm_config(config: VisionConfig, classes: Sequence[str], model: nn.Module) -> dict[str, Any]:
    """Return the config that `timm.create_model("local-dir:...")` reads together with model.safetensors.

    If the activation is not the network's default, the config names an architecture that timm does not know, so timm
    refuses it: under the plain name it would load the weights, use its own activation, and silently return different
    outputs.
    """
    data, name = config.data, config.model.name.partition("/")[2]
    own_cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    swapped = f"{name} with {config.activation} instead of {config.model.default_activation}: see README.md"
    return {
        "architecture": name if config.activation == config.model.default_activation else swapped,
        "num_classes": len(classes),
        "label_names": list(classes),
        "pretrained_cfg": {
            "input_size": [3, data.size, data.size],
            # makes timm build a network for this image size, such as a vision transformer's position embeddings
            "fixed_input_size": bool(own_cfg.get("fixed_input_size", False)),
            "interpolation": data.interpolation,
            "crop_pct": data.size / data.resize,
            "crop_mode": "center",
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": len(classes),
        },
    }


def _loading(config: VisionConfig, classes: int) -> list[str]:
    """Return the Python code that builds `model`, with a given number of outputs, from model.safetensors."""
    library, _, name = config.model.name.partition("/")
    own, activation = config.model.default_activation, spec_in_export(config.activation)
    source = "folder" if config.data.is_own else config.data.source
    swap = [
        "from golu_core import replace_activations",
        f"replace_activations(model, {own!r}, {activation!r})",
    ]
    if library == "timm" and activation == own:
        return ["import timm, torch", 'model = timm.create_model("local-dir:.", pretrained=True)']
    build = {
        "timm": [
            "import json, timm, torch",
            'config = json.load(open("config.json"))["pretrained_cfg"]',
            f"model = timm.create_model({name!r}, pretrained_cfg=config, num_classes={classes})",
        ],
        "torchvision": [
            "import torch, torchvision",
            f"model = torchvision.models.get_model({name!r}, weights=None, num_classes={classes})",
        ],
        "cifar": [
            "import torch",
            "from golu_vision.cifar import CIFAR_MODELS",
            f"model = CIFAR_MODELS[{name!r}]({classes})",
        ],
        "mlp": [
            "import torch",
            "from golu_vision.config import Data",
            "from golu_vision.mlp import build_mlp",
            f"model = build_mlp({name!r}, Data(source={source!r}, size={config.data.size}), {classes})",
        ],
    }[library]
    load = ["from safetensors.torch import load_model", 'load_model(model, "model.safetensors")']
    return build + (swap if activation != own else []) + load
