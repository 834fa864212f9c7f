"""The CIFAR networks and pipelines as the authors' code has them, against networks written down a second time here."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from golu_vision.config import Model, TimmAugment
from golu_vision.model import build_network
from golu_vision.recipes import RECIPES
from golu_vision.transforms import training_transform
from vision_program import VISION, shrink

WIDE = "wideresnet28-2-cifar10"


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    recipe = RECIPES[name]
    return build_network(recipe.model, recipe.data.classes, recipe.data)


def wide_resnet(state: dict[str, torch.Tensor], x: torch.Tensor, training: bool) -> torch.Tensor:
    """Logits of the published WideResNet-28-2 from a state dict, by torch's functions alone."""

    def norm(x, name, momentum=0.1):
        value = partial(state.__getitem__)
        statistics = value(f"{name}.running_mean").clone(), value(f"{name}.running_var").clone()
        return F.batch_norm(x, *statistics, value(f"{name}.weight"), value(f"{name}.bias"), training, momentum)

    def conv(x, name, stride=1, padding=1):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)

    x = conv(x, "features.0")
    for number in range(12):
        block, stride = f"features.{1 + number}", 2 if number in (4, 8) else 1
        y = conv(F.relu(norm(x, f"{block}.norm1")), f"{block}.conv1")
        y = conv(F.relu(norm(y, f"{block}.norm2")), f"{block}.conv2", stride)
        x = y + (conv(x, f"{block}.shortcut", stride, 0) if number in (0, 4, 8) else x)
    x = F.relu(norm(x, "features.13"))
    return F.linear(x.mean(dim=(2, 3)), state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("training", [True, False])
def test_the_wide_resnet_gives_the_logits_of_the_published_one(training):
    model = network(WIDE).train(training)
    state = {name: torch.randn_like(v) * 0.1 if v.ndim else v for name, v in model.state_dict().items()}
    state = {name: v.abs() + 0.5 if name.endswith("running_var") else v for name, v in state.items()}
    model.load_state_dict(state)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), wide_resnet(state, x, training), rtol=1e-4, atol=1e-4)


def test_the_wide_resnet_begins_as_published():
    model = network(WIDE)
    assert sum(p.numel() for p in model.parameters()) == 1_469_642
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
            bound = math.sqrt(2) * math.sqrt(6 / (fan_in + fan_out))
            assert module.weight.abs().max() <= bound
            if module.weight.numel() > 1000:  # uniform up to the bound
                assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)
            assert not module.bias.any()
    momenta = [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert momenta == [0.1] * 24 + [0.9]


def test_the_network_of_the_original_paper_is_still_there():
    original = build_network(Model("cifar/wideresnet28_2"), 10, RECIPES[WIDE].data)
    assert sum(p.numel() for p in original.parameters()) == 1_467_610


@pytest.mark.parametrize("name", ["resnet20-cifar10", "resnet110-cifar10", "densenet40-cifar10"])
def test_the_heads_bias_begins_as_torchs(name):
    head = network(name).head
    bound = 1 / math.sqrt(head.in_features)
    assert head.bias.abs().max() <= bound and head.bias.std() > 0.2 * bound
    assert head.weight.std().item() == pytest.approx(math.sqrt(2 / head.in_features), rel=0.15)  # He initialization


def test_the_heads_bias_of_the_quick_recipe_is_zero():
    assert not network("digits").head.bias.any()


def test_the_heads_bias_does_not_move_other_initial_weights():
    torch.manual_seed(0)
    zero = build_network(Model("cifar/resnet20"), 10, RECIPES["digits"].data)
    other = network("resnet20-cifar10")
    for (name, here), there in zip(zero.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(here, there) == (name != "head.bias")


DRAWN = {"efficientnet-b0-imagenet": True, "vit-ti16-cifar10": True, "tinyvit-21m-imagenet": False}


@pytest.mark.parametrize(("name", "drawn"), DRAWN.items())
def test_interpolation_is_drawn_for_each_image_where_published(name, drawn):
    from timm.data.auto_augment import RandAugment
    from timm.data.transforms import RandomResizedCropAndInterpolation

    recipe = RECIPES[name]
    assert isinstance(recipe.augment, TimmAugment) and recipe.data.interpolation == "bicubic"
    steps = training_transform(recipe.data, recipe.augment).transforms[1].transforms
    (crop,) = (step for step in steps if isinstance(step, RandomResizedCropAndInterpolation))
    (policy,) = (step for step in steps if isinstance(step, RandAugment))
    in_policy = policy.ops[0].kwargs["resample"]
    names = [getattr(mode, "value", mode) for mode in (crop.interpolation if drawn else [crop.interpolation])]
    assert names == (["bilinear", "bicubic"] if drawn else ["bicubic"])
    assert isinstance(in_policy, tuple) == drawn and (not drawn or len(in_policy) == 2)


def test_efficientnet_has_no_stochastic_depth():
    from timm.layers import DropPath

    model = network("efficientnet-b0-imagenet")
    assert not any(isinstance(module, DropPath) for module in model.modules())
    assert model.drop_rate == 0.2


def test_the_result_is_of_the_last_weights_with_the_averages_next_to_it(few_digits, tmp_path):
    data = ["--data.root", str(few_digits)]
    flags = [*shrink("efficientnet-b0-imagenet"), "--log-every", "1", "--average.decay", "0.9"]
    done = VISION.run("train", "efficientnet-b0-imagenet", *flags, *data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    metrics = result["metrics"]
    assert result["primary_metric"]["name"] == "top1" and metrics["loss_average"] != metrics["loss"]
    evaluated = VISION.run("evaluate", str(path.parent), cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"loss_average {metrics['loss_average']:.6g}" in evaluated.stdout
    assert "the same as in result.json" in evaluated.stderr

    flags += ["--average.evaluate", "--seed", "1"]
    done = VISION.run("train", "efficientnet-b0-imagenet", *flags, *data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    averaged = json.loads((path.parents[1] / "seed1" / "result.json").read_text())
    assert "loss_average" not in averaged["metrics"]
