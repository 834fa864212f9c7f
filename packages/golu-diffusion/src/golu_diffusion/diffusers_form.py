"""Convert the network to diffusers: `UNet2DModel` and `DDPMScheduler` of a `DDPMPipeline`, with the same outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .config import DiffusionConfig
from .model import Attention, Downsample, ResidualBlock, UNet, Upsample

_OLDEST = "0.30.0"  # oldest version of diffusers with this folder layout


def why_not(model: UNet, config: DiffusionConfig) -> str | None:
    """Return the reason why diffusers cannot represent a network; None if it can."""
    if config.model.multipliers[0] != 1:
        return "its first level is not as wide as its embedding of the step"
    if len(dict(_tensors(model))) != len(model.state_dict()):
        return "its activation has learnable parameters"
    return None


def write_pipeline(model: UNet, config: DiffusionConfig, folder: Path) -> None:
    """Write `model_index.json`, `unet`, and `scheduler`, as `DDPMPipeline.from_pretrained` reads them.

    Args:
        model: A network for which `why_not` returns None.
        config: The configuration of its run.
        folder: The folder to write to.
    """
    from safetensors.torch import save_file

    for name in ("unet", "scheduler"):
        (folder / name).mkdir()
    common = {"_diffusers_version": _OLDEST}
    _write(
        folder / "model_index.json",
        common
        | {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
    )
    _write(folder / "unet" / "config.json", common | _unet_config(config))
    _write(folder / "scheduler" / "scheduler_config.json", common | _scheduler_config(config))
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(model)}
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _unet_config(config: DiffusionConfig) -> dict[str, object]:
    """Return the arguments of UNet2DModel, with an unknown `act_fn` unless the network is the published one.

    diffusers hard-codes SiLU in two layers: with a known name, the model would load and return different outputs.
    """
    sizes, levels = config.model, range(len(config.model.multipliers))
    return {
        "_class_name": "UNet2DModel",
        "sample_size": config.data.size,
        "in_channels": config.data.channels,
        "out_channels": config.data.channels,
        "block_out_channels": [sizes.width * multiplier for multiplier in sizes.multipliers],
        "layers_per_block": sizes.blocks,
        "down_block_types": ["AttnDownBlock2D" if n in sizes.attention else "DownBlock2D" for n in levels],
        "up_block_types": ["AttnUpBlock2D" if n in sizes.attention else "UpBlock2D" for n in reversed(levels)],
        "attention_head_dim": None,
        "norm_num_groups": sizes.groups,
        "norm_eps": 1e-5,
        "dropout": sizes.dropout,
        "time_embedding_type": "positional",
        "freq_shift": 0,
        "flip_sin_to_cos": False,
        "act_fn": activation_name(config),
    }


def activation_name(config: DiffusionConfig) -> str:
    """Return the value of `act_fn`: diffusers' name for SiLU, or a name that has to be registered with diffusers."""
    return "silu" if config.activation == config.default_activation else f"golu-core:{config.activation}".lower()


def _scheduler_config(config: DiffusionConfig) -> dict[str, object]:
    """Return the arguments of DDPMScheduler that sample like `golu-diffusion sample` does by default.

    With fewer steps than in training, `trailing` begins at the last one, whose images are noise; diffusers' default
    begins before it (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024).
    """
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": config.noise.steps,
        "beta_start": config.noise.beta_start,
        "beta_end": config.noise.beta_end,
        "beta_schedule": "linear",
        "variance_type": "fixed_large",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
    }


def _tensors(model: UNet) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under diffusers' names."""
    first = model.time.layers[0].state_dict()
    columns = first["weight"]
    # sines and cosines alternate here; in diffusers all sines come first
    yield "time_embedding.linear_1.weight", torch.cat([columns[:, 0::2], columns[:, 1::2]], dim=1)
    yield "time_embedding.linear_1.bias", first["bias"]
    yield from _named("time_embedding.linear_2", model.time.layers[2])
    yield from _named("conv_in", model.head)
    yield from _named("conv_norm_out", model.tail[0])
    yield from _named("conv_out", model.tail[2])
    yield from _levels("down_blocks", model.down, "downsamplers")
    for number, layer in enumerate(model.middle):
        yield from _block("mid_block", number, layer)
    yield from _levels("up_blocks", model.up, "upsamplers")


def _levels(name: str, layers: nn.ModuleList, between: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the blocks of each level, and the layers between levels."""
    level, number = 0, 0
    for layer in layers:
        if isinstance(layer, (Downsample, Upsample)):
            yield from _named(f"{name}.{level}.{between}.0.conv", layer.convolution)
            level, number = level + 1, 0
        else:
            yield from _block(f"{name}.{level}", number, layer)
            number += 1


def _block(place: str, number: int, block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(block, ResidualBlock)
    name = f"{place}.resnets.{number}"
    yield from _named(f"{name}.norm1", block.first[0])
    yield from _named(f"{name}.conv1", block.first[2])
    yield from _named(f"{name}.time_emb_proj", block.time[1])
    yield from _named(f"{name}.norm2", block.second[0])
    yield from _named(f"{name}.conv2", block.second[3])
    if not isinstance(block.shortcut, nn.Identity):
        yield from _named(f"{name}.conv_shortcut", block.shortcut)
    if isinstance(block.attention, Attention):
        attention, name = block.attention, f"{place}.attentions.{number}"
        yield from _named(f"{name}.group_norm", attention.norm)
        for theirs, ours in (
            ("to_q", attention.query),
            ("to_k", attention.key),
            ("to_v", attention.value),
            ("to_out.0", attention.projection),
        ):  # linear layers there, convolutions of one pixel here
            tensors = ours.state_dict()
            yield f"{name}.{theirs}.weight", tensors["weight"].flatten(1)
            yield f"{name}.{theirs}.bias", tensors["bias"]


def _named(name: str, layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"{name}.{key}", tensor) for key, tensor in layer.state_dict().items())


def _write(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
