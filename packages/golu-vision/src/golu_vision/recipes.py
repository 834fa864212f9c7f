"""The paper's image classification experiments, one recipe per row, and `digits` to try everything in a minute.

Hyperparameters are those of the GoLU paper (Das et al., NeurIPS 2025, arXiv 2502.03654) and the authors' public
training commands; if they come from a library's reference script, the recipe names it. Published results are means over
three seeds. The ImageNet runs used 4 GPUs.
"""

from __future__ import annotations

from golu_core.training import AdamW, Cosine, EpochWarmup, Sgd, WeightAverage
from golu_core.training.config import (
    ExponentialDecay,
    Milestones,
    Optim,
    PaperRow,
    PublishedAt,
    RmsPropTf,
    Schedule,
    pictured,
    published,
)
from golu_core.training.data import DIGITS_TEST, DIGITS_TRAIN

from .config import Crop, Data, Mix, Model, TimmAugment, TorchvisionAugment, VisionConfig
from .small_recipes import small_recipes

IMAGENET = Data()
CIFAR10 = Data(
    source="cifar10",
    name="cifar10",
    size=32,
    resize=32,
    in_memory=True,
    classes=10,
    train_images=50_000,
    test_images=10_000,
)


def _top1(model: str, size: int, columns: str, **at_rates: str) -> PaperRow:
    """Return a row of the paper's table: ReLU, GELU, Swish, Mish, GoLU.

    `at_rates` has the means in the paper's figures, at the recipe's `own` learning rate and at 0.001 (`at_0001`).
    """
    settings: dict[str, dict[str, float]] = {"own": {}, "at_0001": {"optim.lr": 0.001}}
    further = tuple(PublishedAt(settings[rate], {"top1": pictured(means)}) for rate, means in at_rates.items())
    return PaperRow(model, "ImageNet-1k", "top1", size, {"top1": published(columns)}, further=further)


def _resnet(name: str, torchvision_name: str, paper: PaperRow, nesterov: bool = False) -> VisionConfig:
    """torchvision's reference training of convolutional networks, with SyncBatchNorm over the paper's 4 GPUs."""
    return VisionConfig(
        recipe=name,
        paper=paper,
        model=Model(f"torchvision/{torchvision_name}"),
        data=IMAGENET,
        optim=Sgd(lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=1e-4),
        schedule=Milestones(milestones=(30, 60), factors=(0.1,)),
        epochs=90,
        batch_size=256,
    )


RESNET18_IMAGENET = _resnet(
    "resnet18-imagenet",
    "resnet18",
    _top1("ResNet-18", 11_689_512, "69.74±0.07 70.66±0.05 70.60±0.06 70.53±0.06 70.76±0.06"),
)
RESNET34_IMAGENET = _resnet(
    "resnet34-imagenet",
    "resnet34",
    _top1(
        "ResNet-34",
        21_797_672,
        "73.26±0.01 73.44±0.04 72.74±0.05 72.73±0.07 73.71±0.04",
        own="73.26 73.25 69.27 73.44 72.74 72.73 73.71",
    ),
)
RESNET50_IMAGENET = _resnet(
    "resnet50-imagenet",
    "resnet50",
    _top1(
        "ResNet-50",
        25_557_032,
        "75.44±0.07 76.07±0.06 75.17±0.14 75.53±0.09 76.63±0.03",
        own="75.44 75.67 71.87 76.07 75.17 75.53 76.63",
    ),
)
WIDERESNET50_2_IMAGENET = _resnet(
    "wideresnet50-2-imagenet",
    "wide_resnet50_2",
    _top1("WideResNet-50-2", 68_883_240, "76.96±0.07 76.72±0.01 75.41±0.03 75.75±0.19 77.37±0.03"),
    nesterov=True,
)
DENSENET121_IMAGENET = _resnet(
    "densenet121-imagenet",
    "densenet121",
    _top1("DenseNet-121", 7_978_856, "74.95±0.09 74.64±0.11 72.81±0.06 72.97±0.10 75.25±0.03"),
    nesterov=True,
)

EFFICIENTNET_B0_IMAGENET = VisionConfig(
    # timm's training script for EfficientNet-B0: its defaults are 5 warmup epochs, label smoothing 0.1, no weight decay
    # on biases and norms, and an interpolation drawn for each image. Its --drop-connect 0.2 is parsed but never used,
    # so there is no stochastic depth. The paper reports the last weights; `top1_average` is the metric of the average.
    # Batch norm is not synchronized: each process normalizes over its 384 images.
    recipe="efficientnet-b0-imagenet",
    paper=_top1("EfficientNet-B0", 5_288_548, "76.52±0.07 76.90±0.01 76.84±0.02 76.76±0.06 76.86±0.04"),
    model=Model("timm/efficientnet_b0", default_activation="swish", drop=0.2),
    data=Data(interpolation="bicubic"),
    augment=TimmAugment(rand_augment="rand-m9-mstd0.5", erase=0.2, draw_interpolation=True),
    optim=RmsPropTf(lr=0.048, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5, decay="matrices"),
    schedule=ExponentialDecay(factor=0.97, every=2.4, warmup=EpochWarmup(epochs=5.0, start_lr=1e-6, then="goes_on")),
    average=WeightAverage(decay=0.9999, evaluate=False, ramp=False),
    epochs=450,
    batch_size=1536,
    micro_batch_size=384,
    label_smoothing=0.1,
    mixed_precision="fp16",
    drop_last=True,
    batch_norm="per_process",
)

TINYVIT_21M_IMAGENET = VisionConfig(
    # The TinyViT authors' training from scratch (Wu et al., ECCV 2022), with learning rates scaled by batch / 512 as in
    # their code. The published depths, widths, and windows are those of timm's model. Batch norm is not synchronized:
    # each process normalizes over its 256 images.
    recipe="tinyvit-21m-imagenet",
    paper=_top1("TinyViT-21M", 21_198_568, "82.91±0.02 83.05±0.03 82.92±0.06 83.01±0.02 83.21±0.02"),
    model=Model("timm/tiny_vit_21m_224", default_activation="gelu", drop_path=0.2),
    data=Data(interpolation="bicubic"),
    augment=TimmAugment(rand_augment="rand-m9-mstd0.5-inc1", erase=0.25),
    mix=Mix(mixup=0.8, cutmix=1.0, group=256),
    optim=AdamW(lr=5e-4 * 1024 / 512, weight_decay=0.05, decay="matrices"),
    schedule=Cosine(
        final_lr=5e-6 * 1024 / 512,
        per="step",
        warmup=EpochWarmup(epochs=20.0, start_lr=5e-7 * 1024 / 512, then="goes_on"),
    ),
    epochs=300,
    batch_size=1024,
    micro_batch_size=256,
    label_smoothing=0.1,
    clip=5.0,
    mixed_precision="fp16",
    drop_last=True,
    batch_norm="per_process",
)


def _vision_transformer(name: str, torchvision_name: str, paper: PaperRow) -> VisionConfig:
    """torchvision's reference training of ViT-B/32.

    Its weight average rescales the decay by (batch x every / epochs): 1 - 0.00002 x 4096 x 32 / 300, and is a copy of
    the weights during warmup.
    """
    return VisionConfig(
        recipe=name,
        paper=paper,
        model=Model(f"torchvision/{torchvision_name}", default_activation="gelu"),
        data=IMAGENET,
        augment=TorchvisionAugment(policy="autoaugment"),
        repeats=3,
        mix=Mix(mixup=0.2, cutmix=1.0, group=128),
        optim=AdamW(lr=3e-3, weight_decay=0.3),
        schedule=Cosine(warmup=EpochWarmup(epochs=30.0, start_factor=0.033)),
        average=WeightAverage(decay=1 - (1 - 0.99998) * 4096 * 32 / 300, every=32, copy_epochs=30, ramp=False),
        epochs=300,
        batch_size=4096,
        micro_batch_size=128,
        label_smoothing=0.11,
        clip=1.0,
        mixed_precision="fp16",
    )


VIT_B32_IMAGENET = _vision_transformer(
    "vit-b32-imagenet",
    "vit_b_32",
    _top1(
        "ViT-B/32",
        88_224_232,
        "74.51±0.04 75.48±0.05 72.31±2.15 75.16±0.07 75.74±0.09",
        own="74.51 74.53 65.82 75.48 72.31 75.16 75.74",
        at_0001="74.93 75.15 69.41 74.63 74.76 74.74 74.63",
    ),
)
VIT_B16_IMAGENET = _vision_transformer(
    "vit-b16-imagenet",
    "vit_b_16",
    _top1(
        "ViT-B/16",
        86_567_656,
        "80.06±0.05 79.39±0.99 79.19±0.94 77.97±1.95 80.72±0.04",
        own="80.06 79.93 73.36 79.39 79.19 77.97 80.72",
        at_0001="79.59 79.71 74.93 78.87 78.94 78.96 78.87",
    ),
)


def _cifar(
    name: str,
    model: Model,
    paper_model: str,
    size: int,
    optim: Optim,
    schedule: Schedule,
    epochs: int,
    batch_size: int = 128,
) -> VisionConfig:
    """A network on CIFAR-10 with random shifts of 4 pixels and flips, normalized as in the authors' code."""
    return VisionConfig(
        recipe=name,
        paper=PaperRow(paper_model, "CIFAR-10", "top1", size),
        model=model,
        data=CIFAR10,
        augment=Crop(pad=4),
        optim=optim,
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
    )


def _cifar_resnet(depth: int, size: int) -> VisionConfig:
    """He et al., CVPR 2016, section 4.2; ResNet-110 warms up at a tenth of the learning rate for one epoch.

    The authors' code lists epochs 81 and 122, and 2 for the end of the warmup, and compares them with the number of the
    starting epoch, counted from 1: the learning rate changes after 80 and 121 epochs, and after 1.
    """
    slow_start = depth == 110
    schedule = Milestones(
        milestones=(1, 80, 121) if slow_start else (80, 121),
        factors=(10.0, 0.1, 0.1) if slow_start else (0.1,),
    )
    optim = Sgd(lr=0.01 if slow_start else 0.1, momentum=0.9, weight_decay=1e-4)
    name, network = f"resnet{depth}-cifar10", Model(f"cifar/resnet{depth}", head_bias="uniform")
    return _cifar(name, network, f"ResNet-{depth}", size, optim, schedule, epochs=164)


RESNET20_CIFAR10 = _cifar_resnet(20, 272_474)
RESNET32_CIFAR10 = _cifar_resnet(32, 466_906)
RESNET44_CIFAR10 = _cifar_resnet(44, 661_338)
RESNET56_CIFAR10 = _cifar_resnet(56, 855_770)
RESNET110_CIFAR10 = _cifar_resnet(110, 1_730_714)

WIDERESNET28_2_CIFAR10 = _cifar(
    # The network of the authors' code; the one by Zagoruyko and Komodakis is `--model.name cifar/wideresnet28_2`.
    "wideresnet28-2-cifar10",
    Model("cifar/wideresnet28_2_biased"),
    "WideResNet-28-2",
    1_469_642,
    Sgd(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    Milestones(milestones=(59, 119, 159), factors=(0.2,)),
    epochs=200,
)
DENSENET40_CIFAR10 = _cifar(
    "densenet40-cifar10",
    Model("cifar/densenet40", head_bias="uniform"),
    "DenseNet-40",
    176_122,
    Sgd(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    Milestones(milestones=(149, 224), factors=(0.1,)),
    epochs=300,
    batch_size=64,
)
VIT_TI16_CIFAR10 = VisionConfig(
    # timm's training script: the base learning rate is for a batch of 256 and scales with its square root for AdamW;
    # images are resized to 224 pixels and normalized as timm's model expects. The authors' head has 1,000 outputs, 990
    # of which are never correct; this one has 10, one per class.
    recipe="vit-ti16-cifar10",
    paper=PaperRow("ViT-Ti/16-224", "CIFAR-10", "top1", 5_526_346),
    model=Model("timm/vit_tiny_patch16_224", default_activation="gelu", drop_path=0.1),
    data=Data(
        source="cifar10",
        name="cifar10",
        size=224,
        resize=248,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        classes=10,
        train_images=50_000,
        test_images=10_000,
    ),
    augment=TimmAugment(rand_augment="rand-m9-mstd0.5-inc1", erase=0.25, draw_interpolation=True),
    mix=Mix(mixup=0.8, cutmix=1.0, group=32),
    optim=AdamW(lr=5e-4 * (32 / 256) ** 0.5, weight_decay=0.05, decay="matrices"),
    schedule=Cosine(final_lr=5e-6, warmup=EpochWarmup(epochs=20.0, start_lr=5e-7, then="goes_on")),
    epochs=300,
    batch_size=32,
    label_smoothing=0.1,
    clip=5.0,
    drop_last=True,
)

DIGITS = VisionConfig(
    # Not in the paper: ResNet-20 on the 1,797 scans included in scikit-learn, to see everything work within a minute.
    recipe="digits",
    paper=PaperRow("ResNet-20", "scikit-learn digits", "top1", 272_474),
    model=Model("cifar/resnet20"),
    data=Data(
        source="digits",
        name="digits",
        size=32,
        resize=32,
        in_memory=True,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        classes=10,
        train_images=DIGITS_TRAIN,
        test_images=DIGITS_TEST,
    ),
    augment=Crop(pad=3, flip=False),
    optim=Sgd(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Cosine(per="step", warmup=EpochWarmup(epochs=1.0, start_factor=0.1)),
    epochs=8,
    batch_size=64,
    log_every=10,
)


IMAGES = VisionConfig(
    # Not in the paper: the user's own class folders (`--data.root`); `auto_recipe` chooses most settings from them.
    recipe="images",
    paper=PaperRow("ResNet-18", "your own images", "top1", 11_689_512),
    model=Model("torchvision/resnet18"),
    data=Data(source="folder", name="images"),
    augment=TorchvisionAugment(),
    optim=Sgd(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Cosine(per="step", warmup=EpochWarmup(epochs=1.0, start_factor=0.1)),
    epochs=90,
    batch_size=256,
    label_smoothing=0.1,
    log_every=10,
)

RECIPES: dict[str, VisionConfig] = {
    recipe.recipe: recipe
    for recipe in (
        DIGITS,
        IMAGES,
        *small_recipes(DIGITS, CIFAR10),
        RESNET18_IMAGENET,
        RESNET34_IMAGENET,
        RESNET50_IMAGENET,
        WIDERESNET50_2_IMAGENET,
        DENSENET121_IMAGENET,
        EFFICIENTNET_B0_IMAGENET,
        TINYVIT_21M_IMAGENET,
        VIT_B32_IMAGENET,
        VIT_B16_IMAGENET,
        RESNET20_CIFAR10,
        RESNET32_CIFAR10,
        RESNET44_CIFAR10,
        RESNET56_CIFAR10,
        RESNET110_CIFAR10,
        WIDERESNET28_2_CIFAR10,
        DENSENET40_CIFAR10,
        VIT_TI16_CIFAR10,
    )
}
"""All recipes by name."""
