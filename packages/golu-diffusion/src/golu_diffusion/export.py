"""`golu-diffusion export`: the network that predicts noise, for ONNX Runtime or torch.export, and its schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from golu_core.training.exporting import Exportable, activation_file, export_run, spec_in_export
from golu_core.training.finished import FinishedRun
from golu_core.training.results import Result

from .config import DiffusionConfig
from .train import build_model


def export_command(arguments: Sequence[str]) -> None:
    """`golu-diffusion export RUN_DIR --out DIR [--format onnx|pt2|safetensors]`."""
    export_run(arguments, "golu-diffusion export RUN_DIR", _of_run)


def _of_run(folder: Path) -> tuple[Exportable, Result]:
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config
    model, _ = build_model(config)
    finished.load_evaluated_weights(model, config.average)
    images = torch.randn(2, *config.data.shape, generator=torch.Generator().manual_seed(0))
    network = Exportable(
        model=model.eval(),
        example=(images, torch.tensor([0, config.noise.steps - 1])),
        inputs=("images", "steps"),
        output="noise",
        pipeline="unconditional-image-generation",
        files={"diffusion.json": schedule_of(config), **activation_file(config.activation)},
        loading=[
            "import torch",
            "from safetensors.torch import load_model",
            "from golu_diffusion.config import Model",
            "from golu_diffusion.unet import UNet",
            f"sizes = Model(**{dataclasses.asdict(config.model)!r})",
            f"model = UNet(sizes, {spec_in_export(config.activation)!r}, {config.data.channels})",
            'load_model(model, "model.safetensors")',
        ],
        needs="golu-diffusion",
    )
    return network, finished.result


def schedule_of(config: DiffusionConfig) -> dict[str, object]:
    """What sampling needs besides the network (Ho et al., 2020, section 4)."""
    noise, data = config.noise, config.data
    return {
        "predicts": "the noise in images",
        "steps": noise.steps,
        "variances": {"first": noise.first, "last": noise.last, "growth": "linear"},
        "steps_counted_from": 0,
        "images": {"channels": data.channels, "size": data.size, "range": [-1, 1]},
    }
