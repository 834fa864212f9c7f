"""`golu-diffusion export`: export the noise-predicting network for ONNX Runtime, torch.export, or diffusers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from golu_core.training import FinishedRun
from golu_core.training.export import Exportable, activation_file, export_run, spec_in_export
from golu_core.training.runs import Result

from .config import DiffusionConfig
from .diffusers_form import activation_name, why_not, write_pipeline
from .model import build_model


def export_command(arguments: Sequence[str]) -> None:
    """Run `golu-diffusion export RUN_DIR --out DIR [--format onnx|pt2|safetensors]`."""
    export_run(arguments, "golu-diffusion export", _of_run)


def _of_run(folder: Path) -> tuple[Exportable, Result]:
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config
    model, _ = build_model(config)
    finished.load_evaluated_weights(model, config.average)
    images = torch.randn(2, *config.data.shape, generator=torch.Generator().manual_seed(0))
    problem = why_not(model, config)
    network = Exportable(
        model=model.eval(),
        example=(images, torch.tensor([0, config.noise.steps - 1])),
        inputs=("images", "steps"),
        output="noise",
        pipeline="unconditional-image-generation",
        files={"diffusion.json": _schedule_of(config), **activation_file(config.activation)},
        loading=_loading(config) if problem is not None else _loading_by_diffusers(config),
        needs=f"golu-diffusion; diffusers has no form of it: {problem}"
        if problem is not None
        else _needs_of_diffusers(config),
        library="pytorch" if problem is not None else "diffusers",
        called="model.eval()({})" if problem is not None else "model.eval()({}).sample",
        writers={} if problem is not None else {"safetensors": lambda _, place: write_pipeline(model, config, place)},
    )
    return network, finished.result


def _loading(config: DiffusionConfig) -> list[str]:
    """Return the Python code that builds `model` from model.safetensors."""
    return [
        "import torch",
        "from safetensors.torch import load_model",
        "from golu_diffusion.config import Model",
        "from golu_diffusion.model import UNet",
        f"sizes = Model(**{dataclasses.asdict(config.model)!r})",
        f"model = UNet(sizes, {spec_in_export(config.activation)!r}, {config.data.channels})",
        'load_model(model, "model.safetensors")',
    ]


def _loading_by_diffusers(config: DiffusionConfig) -> list[str]:
    """Return the Python code that loads `model` from the pipeline's folder; `pipeline()` then samples."""
    load = ["import torch", "from diffusers import DDPMPipeline", 'pipeline = DDPMPipeline.from_pretrained(".")']
    if config.activation == config.default_activation:
        return [*load, "model = pipeline.unet"]
    spec, name = spec_in_export(config.activation), activation_name(config)
    return [
        *load[:2],
        "from diffusers.models.activations import ACT2CLS",
        "from golu_core import build_activation, replace_activations",
        f"ACT2CLS[{name!r}] = lambda: build_activation({spec!r})",
        load[2],
        f"replace_activations(pipeline.unet, {config.default_activation!r}, {spec!r})  # two are built in",
        "model = pipeline.unet",
    ]


def _needs_of_diffusers(config: DiffusionConfig) -> str:
    if config.activation == config.default_activation:
        return "diffusers"
    return "diffusers, and golu-core for the activation; without it, diffusers fails with an unknown activation"


def _schedule_of(config: DiffusionConfig) -> dict[str, object]:
    """Return the settings that sampling needs in addition to the network (Ho et al., 2020, section 4)."""
    noise, data = config.noise, config.data
    return {
        "predicts": "the noise in images",
        "steps": noise.steps,
        "variances": {"first": noise.beta_start, "last": noise.beta_end, "growth": "linear"},
        "steps_counted_from": 0,
        "images": {"channels": data.channels, "size": data.size, "range": [-1, 1]},
    }
