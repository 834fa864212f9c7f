"""Recipes on small images: the perceptrons of the paper's small ablations, and Fashion-MNIST, which the paper lacks."""

from __future__ import annotations

from dataclasses import replace

from golu_core.training import Constant, Cosine, EpochWarmup, Sgd
from golu_core.training.config import PaperRow

from .config import Crop, Data, Model, VisionConfig

_UNCHANGED = Crop(pad=0, flip=False)
_MNIST = Data(
    source="mnist",
    name="mnist",
    size=28,
    resize=28,
    in_memory=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    classes=10,
    train_images=60_000,
    test_images=10_000,
)
_FASHION = replace(_MNIST, source="fashion", name="fashion-mnist")
"""Xiao, Rasul and Vollgraf, arXiv 1708.07747: photographs of clothes, as many and as large as MNIST's digits."""


def small_recipes(digits: VisionConfig, cifar10: Data) -> tuple[VisionConfig, ...]:
    """Return the recipes.

    Args:
        digits: The recipe `digits`, whose images the smallest perceptron uses.
        cifar10: The data of the CIFAR-10 recipes.
    """
    augmented = replace(cifar10, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))
    return (
        _mlp("mlp-digits", replace(digits.data, size=8, resize=8), "scikit-learn digits", 303_114),
        _mlp("mlp-mnist", _MNIST, "MNIST", 671_754),
        _mlp("mlp-fashion", _FASHION, "Fashion-MNIST", 671_754),
        _mlp("mlp-cifar10", augmented, "CIFAR-10", 1_843_210, Crop(pad=4)),
        _resnet20_fashion(),
    )


def _mlp(name: str, data: Data, data_title: str, parameters: int, augment: Crop = _UNCHANGED) -> VisionConfig:
    """The paper's small ablations: SGD with momentum alone, at the settings that are fixed while one of them is varied.

    The studies `mlp-*.toml` vary depth, learning rate, epochs, and batch size, at seeds 1 to 3 as published; two blocks
    are this recipe's choice.
    """
    return VisionConfig(
        recipe=name,
        paper=PaperRow("MLP, 2 blocks", data_title, "top1", parameters),
        model=Model("mlp/2x512"),
        data=data,
        augment=augment,
        optim=Sgd(lr=0.01, momentum=0.9, weight_decay=0.0),
        schedule=Constant(),
        epochs=8,
        batch_size=128,
        log_every=10,
    )


def _resnet20_fashion() -> VisionConfig:
    """ResNet-20 at the settings of the recipe `digits`, with the flips and shifts that are usual for CIFAR-10.

    The mean and the deviation are those of the training images' pixels.
    """
    return VisionConfig(
        recipe="resnet20-fashion",
        paper=PaperRow("ResNet-20", "Fashion-MNIST", "top1", 272_474),
        model=Model("cifar/resnet20"),
        data=replace(_FASHION, mean=(0.286, 0.286, 0.286), std=(0.353, 0.353, 0.353)),
        augment=Crop(pad=2, flip=True),
        optim=Sgd(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=Cosine(per="step", warmup=EpochWarmup(epochs=1.0, start_factor=0.1)),
        epochs=20,
        batch_size=128,
        log_every=10,
    )
