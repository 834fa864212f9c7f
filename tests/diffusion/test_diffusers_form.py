"""The network and the process in diffusers' form: its own code gives our numbers, or says what it lacks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from golu_core import build_activation, replace_activations
from golu_diffusion.config import DiffusionConfig, Model
from golu_diffusion.diffusers_form import why_not, write_pipeline
from golu_diffusion.diffusion import Diffusion
from golu_diffusion.model import build_model
from golu_diffusion.recipes import RECIPES

diffusers = pytest.importorskip("diffusers")

SIZES = {
    "digits": {},
    "two levels": {"width": 16, "multipliers": (1, 3), "attention": (0, 1), "blocks": 3, "groups": 8},
    "no attention": {"width": 8, "multipliers": (1, 1, 2), "attention": (), "blocks": 1, "groups": 2},
    "one level": {"width": 8, "multipliers": (1,), "attention": (0,), "blocks": 2, "groups": 4},
}


def config_of(**changes: object) -> DiffusionConfig:
    recipe = RECIPES["ddpm-digits"]
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def loaded(folder: Path, config: DiffusionConfig) -> nn.Module:
    """As the model card says."""
    from diffusers.models.activations import ACT2CLS

    name = json.loads((folder / "unet" / "config.json").read_text())["act_fn"]
    ACT2CLS.setdefault(name, lambda: build_activation(config.activation))
    unet: nn.Module = diffusers.DDPMPipeline.from_pretrained(folder).unet.eval()
    if config.activation != "swish":
        replace_activations(unet, "swish", config.activation)
    return unet


@pytest.mark.parametrize(
    ("sizes", "activation", "channels"),
    [
        *((sizes, "golu", 3) for sizes in SIZES),
        *(("two levels", activation, 1) for activation in ("swish", "relu", "golu(beta=0.5)")),
    ],
)
def test_the_numbers_are_ours(sizes, activation, channels, tmp_path):
    recipe = RECIPES["ddpm-digits"]
    config = config_of(
        activation=activation,
        model=dataclasses.replace(recipe.model, **SIZES[sizes]),
        data=dataclasses.replace(recipe.data, channels=channels),
    )
    model = build_model(config)[0].eval()
    with torch.no_grad():  # so that no weight is left at 0 or 1, where a wrong name would not be seen
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert why_not(model, config) is None
    write_pipeline(model, config, tmp_path)
    theirs = loaded(tmp_path, config)
    x, steps = torch.randn(3, channels, 16, 16), torch.tensor([0, 17, 999])
    with torch.no_grad():
        ours, found = model(x, steps), theirs(x, steps).sample
    torch.testing.assert_close(found, ours, atol=1e-5 * float(ours.abs().max()), rtol=1e-4)


def test_the_scheduler_steps_as_we_do(tmp_path):
    config = config_of()
    write_pipeline(build_model(config)[0], config, tmp_path)
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    scheduler.set_timesteps(config.noise.steps)
    assert scheduler.timesteps.tolist() == list(range(config.noise.steps))[::-1]
    quick = diffusers.DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    quick.set_timesteps(10)
    assert quick.timesteps[0] == config.noise.steps - 1  # where noise is drawn; diffusers' default begins below it
    diffusion = Diffusion(config.noise)
    for step in (999, 500, 1, 0):
        x, predicted = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
        found = scheduler.step(predicted, step, x, generator=torch.Generator().manual_seed(1)).prev_sample
        draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        ours = diffusion.ddpm_step(x, step, diffusion.in_range(x, step, predicted), draw)
        torch.testing.assert_close(found, ours, atol=2e-5, rtol=1e-4)


def test_diffusers_alone_says_that_it_does_not_know_the_activation(tmp_path):
    """A network with another activation must not load as one with SiLU, in silence."""
    from diffusers.models.activations import ACT2CLS

    for activation in ("golu(beta=0.7)", "relu", "gelu", "mish"):
        config = config_of(activation=activation)
        folder = tmp_path / activation
        folder.mkdir()
        write_pipeline(build_model(config)[0], config, folder)
        ACT2CLS.pop(json.loads((folder / "unet" / "config.json").read_text())["act_fn"], None)
        with pytest.raises(ValueError, match="not found"):
            diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet")


def test_what_has_no_form_there_is_named():
    config = config_of(activation="golu(learnable=True)")
    assert why_not(build_model(config)[0], config) == "its activation has learnable parameters"
    config = config_of(model=Model(width=8, multipliers=(2, 2), attention=(), groups=4))
    assert "first level" in str(why_not(build_model(config)[0], config))
