"""What the paper's image classifiers were trained with; see `published_ingredients`."""

from __future__ import annotations

import math
from collections.abc import Callable

from published_rates import Rate, steps_at, timm_epochs, timm_updates, torch_epochs
from published_row import Differs, Row, Value

IMAGENET = "0.485 0.456 0.406; 0.229 0.224 0.225"
LAST_BATCH = Differs(
    "the smaller rest of the images",
    "filled up with the epoch's first images",
    "a step has the recipe's batch size, always",
)
ORDER = Differs(
    "not of the run's seed: every run has the same order",
    "follows the seed",
    "seeds should be independent runs",
)
PLAIN = {
    "dropout": "none",
    "clip": "none",
    "precision": "float32",
    "mixing": "none",
    "loss": "cross-entropy",
    "average": "none",
    "number": "top-1 of the last weights",
}
SQUARE = "crop of 8% to 100%, 0.75 to 1.33, to 224"


def torchvision_cnn(parameters: str, activations: int, tensors: int, nesterov: bool = False) -> Row:
    """torchvision's reference training on 4 GPUs with --sync-bn."""
    return Row(
        {
            **PLAIN,
            "parameters": parameters,
            "activations": f"{activations} ReLU",
            "initial weights": "torchvision's",
            "training images": f"{SQUARE}, bilinear; flip 0.5",
            "normalization": IMAGENET,
            "optimizer": "SGD, rate 0.1, momentum 0.9" + ", Nesterov" * nesterov,
            "weight decay": f"0.0001 on {tensors} tensors",
            "batch": "256",
            "length": "90 epochs of 5,005, 450,450 updates",
            "batch norm": "over 256 images",
            "evaluation": "shorter side 256, bilinear; center crop 224",
        },
        "0.1, a tenth after every 30 epochs",
        steps_at(0.1, {30: 0.1, 60: 0.1}),
        {"last batch": LAST_BATCH, "order of images": ORDER},
    )


def vision_transformer(parameters: str) -> Row:
    """torchvision's reference training of ViT-B on 4 GPUs with 8 micro-batches of 128."""
    ours = "decay 0.9913 every 32 updates, a copy for 30 epochs"
    return Row(
        {
            **PLAIN,
            "parameters": parameters,
            "activations": "12 GELU",
            "initial weights": "torchvision's",
            "training images": f"{SQUARE}, bilinear; flip 0.5; AutoAugment imagenet, bilinear; "
            "each image 3 times in a row",
            "normalization": IMAGENET,
            "mixing": "MixUp 0.2 or CutMix 1, in groups of 128",
            "loss": "cross-entropy, label smoothing 0.11",
            "optimizer": "AdamW, rate 0.003, betas 0.9 0.999, eps 1e-08",
            "weight decay": "0.3 on 152 tensors",
            "batch": "4,096",
            "length": "300 epochs of 313, 93,900 updates",
            "clip": "norm 1",
            "precision": "float16",
            "batch norm": "none",
            "average": Differs(
                "decay 0.965 every 32 micro-batches on 4 GPUs",
                ours,
                "torchvision's reference, after which the setting is named; the code multiplies by the number of "
                "GPUs once more",
            ),
            "evaluation": "shorter side 256, bilinear; center crop 224",
            "number": "top-1 of the average",
        },
        "cosine from 0.003 to 0 by epochs, after 30 linear ones from 0.033 times the rate",
        torch_epochs(0.003, 300, 30, 0.033),
        {"last batch": LAST_BATCH, "order of images": ORDER},
    )


EFFICIENTNET = Row(
    {
        **PLAIN,
        "parameters": "5,288,548",
        "activations": "49 SiLU",
        "initial weights": "timm's",
        "dropout": "dropout 0.2",  # --drop-connect 0.2 is read and never used
        "training images": f"{SQUARE}, bilinear or bicubic; flip 0.5; RandAugment 2 of 15, magnitude 9 ± 0.5, "
        "interpolation drawn; erasing 0.2 by noise",
        "normalization": IMAGENET,
        "loss": "cross-entropy, label smoothing 0.1",
        "optimizer": "RMSpropTF, rate 0.048, alpha 0.9, momentum 0.9, eps 0.001",
        "weight decay": "1e-05 on 82 tensors, 0 on 131 tensors",
        "batch": "1,536",
        "length": "450 epochs of 834, 375,300 updates",
        "precision": "float16",
        "batch norm": "over 384 images",
        "average": "decay 0.9999 every update",
        "evaluation": "shorter side 256, bicubic; center crop 224",
    },
    "0.048, 0.97 times after every 2.4 epochs, after 5 linear ones from 1e-6",
    timm_epochs("StepLRScheduler", 0.048, 450, decay_t=2.4, decay_rate=0.97, warmup_t=5, warmup_lr_init=1e-6),
    {"order of images": ORDER},
)
TINYVIT = Row(
    {
        **PLAIN,
        "parameters": "21,198,568",
        "activations": "23 GELU",
        "initial weights": "timm's",
        "dropout": "stochastic depth up to 0.2",
        "training images": f"{SQUARE}, bicubic; flip 0.5; RandAugment 2 of 15, magnitude 9 ± 0.5 growing with it, "
        "interpolation not drawn; erasing 0.25 by noise",
        "normalization": IMAGENET,
        "mixing": "MixUp 0.8 or CutMix 1, in groups of 256",
        "loss": "cross-entropy, label smoothing 0.1",
        "optimizer": "AdamW, rate 0.001, betas 0.9 0.999, eps 1e-08",
        "weight decay": "0.05 on 68 tensors, 0 on 147 tensors",
        "batch": "1,024",
        "length": "300 epochs of 1,251, 375,300 updates",
        "clip": "norm 5",
        "precision": "float16",
        "batch norm": "over 256 images",
        "evaluation": "shorter side 256, bicubic; center crop 224",
        "number": Differs(
            "`Max accuracy`, which may be the best epoch's on the test set",
            "top-1 of the last weights",
            "a best epoch chosen on the test set is too good a number; `best` in result.json has it",
        ),
    },
    Differs(
        "cosine from 0.001 to 1e-5 by updates, after 20 linear epochs from 1e-6; update n has the rate of n − 1",
        "the same, update n with its own rate",
        "one update of 375,300",
    ),
    timm_updates(0.001, 300, 20, lr_min=1e-5, warmup_lr_init=1e-6, warmup_prefix=False),
    {
        "seed": Differs(
            "`--seed` is read and never used: three runs with the same weights and order",
            "weights, order and augmentation follow it",
            "seeds should be independent runs; the printed ± 0.02 is that of nondeterminism",
        ),
    },
)


def cifar(
    parameters: str, activations: int, tensors: int, rates: str, rate: Callable[[int], Rate], **changed: Value
) -> Row:
    """The authors' script for CIFAR-10: one GPU, rates by `epoch + 1 in milestone`."""
    return Row(
        {
            **PLAIN,
            "parameters": parameters,
            "activations": f"{activations} ReLU",
            "initial weights": "normal, variance 2 / inputs; the head's bias uniform",
            "training images": "crop of 32 padded by 4; flip 0.5",
            "normalization": IMAGENET,
            "optimizer": "SGD, rate 0.1, momentum 0.9",
            "weight decay": f"0.0001 on {tensors} tensors",
            "batch": "128",
            "length": "164 epochs of 391, 64,124 updates",
            "batch norm": "over 128 images",
            "evaluation": "as they are",
            **{name.replace("_", " "): value for name, value in changed.items()},
        },
        rates,
        rate,
        {"last batch": LAST_BATCH},
    )


def cifar_resnet(parameters: str, activations: int, tensors: int) -> Row:
    """He et al.'s ResNets but the deepest."""
    rates = "0.1, a tenth after 80 and 121 epochs"
    return cifar(parameters, activations, tensors, rates, steps_at(0.1, {80: 0.1, 121: 0.1}))


NESTEROV = "SGD, rate 0.1, momentum 0.9, Nesterov"
VIT_TI = Row(
    {
        **PLAIN,
        "parameters": Differs(
            "5,717,416, a head of 1,000 outputs", "5,526,346", "10 outputs: the other 990 are never right"
        ),
        "activations": "12 GELU",
        "initial weights": "timm's",
        "dropout": "stochastic depth up to 0.1",
        "training images": f"{SQUARE}, bilinear or bicubic; flip 0.5; RandAugment 2 of 15, magnitude 9 ± 0.5 growing "
        "with it, interpolation drawn; erasing 0.25 by noise",
        "normalization": "0.5 0.5 0.5; 0.5 0.5 0.5",
        "mixing": "MixUp 0.8 or CutMix 1, in groups of 32",
        "loss": Differs(
            "cross-entropy, label smoothing 0.1 over 1,000 classes",
            "cross-entropy, label smoothing 0.1",
            "there are 10 classes",
        ),
        "optimizer": "AdamW, rate 0.000176777, betas 0.9 0.999, eps 1e-08",  # 5e-4 · √(32/256)
        "weight decay": "0.05 on 50 tensors, 0 on 102 tensors",
        "batch": "32",
        "length": "300 epochs of 1,562, 468,600 updates",
        "clip": "norm 5",
        "batch norm": "none",
        "evaluation": "shorter side 248, bicubic; center crop 224",
    },
    "cosine from 5e-4 · √(32/256) to 5e-6 by epochs, after 20 linear ones from 5e-7",
    timm_epochs(
        "CosineLRScheduler",
        5e-4 * math.sqrt(32 / 256),
        300,
        t_initial=300,
        lr_min=5e-6,
        warmup_t=20,
        warmup_lr_init=5e-7,
    ),
    {},
)


def perceptron(parameters: str, per_epoch: str, images: str, normalization: str) -> Row:
    """The script of the small ablations, at two blocks."""
    return Row(
        {
            **PLAIN,
            "parameters": parameters,
            "activations": "2 ReLU",
            "initial weights": "uniform, variance 1 / (3 inputs); the head's bias uniform",
            "training images": images,
            "normalization": normalization,
            "optimizer": "SGD, rate 0.01, momentum 0.9",
            "weight decay": "0 on 10 tensors",
            "batch": "128",
            "length": f"8 epochs of {per_epoch} updates",
            "batch norm": "none",
            "evaluation": "as they are",
        },
        "0.01 throughout",
        steps_at(0.01, {}),
        {"last batch": LAST_BATCH, "seeds": "1, 2, 3"},
    )
