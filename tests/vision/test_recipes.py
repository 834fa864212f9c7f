"""Every recipe against an independent source: the paper, torchvision, timm, torch."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from golu_core.training.config.run_config import from_json, to_json
from golu_core.training.config.schedules import learning_rate
from golu_core.training.data.orders import plan_batches
from golu_core.training.messages.errors import RequestError
from golu_vision.config import Model, VisionConfig
from golu_vision.mixing import check_mixing
from golu_vision.model import build_model, build_network, check_model_name
from golu_vision.recipes import RECIPES
from golu_vision.train import epoch_order

# parameters of the CIFAR networks as their papers print them, in millions
PUBLISHED_MILLIONS = {
    "resnet20-cifar10": 0.27,
    "resnet32-cifar10": 0.46,
    "resnet44-cifar10": 0.66,
    "resnet56-cifar10": 0.85,
    "resnet110-cifar10": 1.7,
    "wideresnet28-2-cifar10": 1.5,
    "densenet40-cifar10": 0.18,
}
# (recipe, steps an epoch, {epoch: learning rate}), from recipes of the paper worked out by hand
PUBLISHED_RATES = [
    ("resnet50-imagenet", 5005, {0: 0.1, 29: 0.1, 30: 0.01, 60: 0.001, 89: 0.001}),
    ("efficientnet-b0-imagenet", 834, {0: 1e-6, 5: 0.048 * 0.97**2, 12: 0.048 * 0.97**5, 449: 0.048 * 0.97**187}),
    ("tinyvit-21m-imagenet", 1251, {0: 1e-6, 20: 1e-5 + 0.5 * (1e-3 - 1e-5) * 1.9781476007338057}),
    ("vit-b16-imagenet", 313, {0: 9.9e-5, 30: 3e-3, 165: 1.5e-3}),
    ("resnet20-cifar10", 391, {0: 0.1, 79: 0.1, 80: 0.01, 120: 0.01, 121: 0.001}),
    ("resnet110-cifar10", 391, {0: 0.01, 1: 0.1, 79: 0.1, 80: 0.01, 121: 0.001}),
    ("wideresnet28-2-cifar10", 391, {58: 0.1, 59: 0.02, 119: 0.004, 159: 0.0008}),
    ("densenet40-cifar10", 782, {148: 0.1, 149: 0.01, 224: 0.001}),
    ("vit-ti16-cifar10", 1562, {0: 5e-7, 20: 5e-6 + 0.5 * (5e-4 * 8**-0.5 - 5e-6) * 1.9781476007338057}),
]


def network(name):
    recipe = RECIPES[name]
    return build_network(recipe.model, recipe.data.classes, recipe.data)


@pytest.mark.parametrize("name", RECIPES)
def test_model_has_the_stated_parameters_and_the_swapped_activation(name):
    recipe = RECIPES[name]
    model, swapped = build_model(recipe, recipe.data.classes)
    assert sum(p.numel() for p in model.parameters()) == recipe.paper.size
    assert swapped.swapped > 0
    own = {"relu": nn.ReLU, "gelu": nn.GELU, "swish": nn.SiLU}[recipe.model.default_activation]
    assert not any(isinstance(module, own) for module in model.modules())
    assert swapped.left == (["relu called in the model's own forward"] if "densenet121" in name else [])
    if name in PUBLISHED_MILLIONS:
        digits = 1 if PUBLISHED_MILLIONS[name] >= 1 else 2
        assert abs(recipe.paper.size / 1e6 - PUBLISHED_MILLIONS[name]) <= 10**-digits


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.model.name.startswith("torchvision/")])
def test_torchvision_networks_are_torchvisions(name):
    weights = torchvision.models.get_model_weights(RECIPES[name].model.name.partition("/")[2])
    assert RECIPES[name].paper.size == weights.IMAGENET1K_V1.meta["num_params"]


@pytest.mark.parametrize(("name", "steps", "rates"), PUBLISHED_RATES)
def test_learning_rates_and_epoch_lengths(name, steps, rates):
    recipe = RECIPES[name]
    order = epoch_order(recipe, recipe.data.train_images)
    assert order.steps_per_epoch == steps
    rate = partial(learning_rate, recipe.schedule, recipe.optim.lr, steps_per_epoch=steps, epochs=recipe.epochs)
    for epoch, expected in rates.items():
        assert rate(epoch * steps) == pytest.approx(expected, rel=1e-6)
    last = rate(recipe.epochs * steps - 1)
    assert 0 <= last <= recipe.optim.lr


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_batches_divide_and_can_be_mixed(name, processes):
    recipe = RECIPES[name]
    plan = plan_batches(recipe.batch_size, processes, recipe.micro_batch_size)
    if recipe.mix is not None:
        check_mixing(recipe.mix, plan)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_json(name):
    recipe = RECIPES[name]
    assert from_json(VisionConfig, json.loads(json.dumps(to_json(recipe)))) == recipe


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.model.name.startswith("cifar/")])
def test_cifar_networks_train_one_step(name):
    model = network(name)
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.model.name.startswith("mlp/")])
def test_perceptrons_are_their_layers(name):
    """The logits by torch's functions, from the same weights."""
    model, side = network(name), RECIPES[name].data.size
    x = torch.randn(3, 1, side, side).expand(-1, 3, -1, -1)
    if RECIPES[name].data.source == "cifar10":
        x = torch.randn(3, 3, side, side)
    hidden = (x if model.channels == 3 else x[:, :1]).flatten(1)
    for linear, norm, _ in zip(*[iter(model.blocks)] * 3, strict=True):
        hidden = F.relu(F.layer_norm(F.linear(hidden, linear.weight, linear.bias), (512,), norm.weight, norm.bias))
    torch.testing.assert_close(model(x), F.linear(hidden, model.head.weight, model.head.bias))


@pytest.mark.parametrize("name", ["mlp/512", "mlp/0x4", "mlp/2x512x3", "mlp/"])
def test_a_perceptrons_name_says_blocks_and_width(name):
    with pytest.raises(RequestError, match="write the number of blocks and their width"):
        check_model_name(Model(name))


def test_cifar_resnet_gives_the_logits_of_torchvisions_blocks():
    """The same weights in torchvision's BasicBlock give the same logits."""
    from torchvision.models.resnet import BasicBlock

    ours = network("resnet20-cifar10").eval()
    x = torch.randn(2, 3, 32, 32)
    features = ours.stem(x)
    for block in ours.stages:
        conv = block.conv1
        downsample = None if isinstance(block.shortcut, nn.Identity) else block.shortcut
        theirs = BasicBlock(conv.in_channels, conv.out_channels, conv.stride[0], downsample).eval()
        names = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}
        for target, source in names.items():
            getattr(theirs, target).load_state_dict(getattr(block, source).state_dict())
        features = theirs(features)
    torch.testing.assert_close(ours.head(features.mean(dim=(2, 3))), ours(x))


def test_initial_weights_follow_the_seed_alone():
    from dataclasses import replace

    recipe = RECIPES["resnet20-cifar10"]
    first, _ = build_model(recipe, 10)
    torch.rand(3)
    other_activation, _ = build_model(replace(recipe, activation="relu"), 10)
    other_seed, _ = build_model(replace(recipe, seed=1), 10)
    for name, value in first.state_dict().items():
        assert torch.equal(value, other_activation.state_dict()[name])
    assert not torch.equal(first.head.weight, other_seed.head.weight)


def test_vit_average_is_torchvisions():
    """torchvision's reference: adjust = batch * steps / epochs; alpha = min(1, (1 - decay) * adjust)."""
    adjust = 4096 * 32 / 300
    assert RECIPES["vit-b16-imagenet"].average.decay == pytest.approx(1 - min(1.0, (1 - 0.99998) * adjust))
