"""What each row of the paper was trained with, typed from the paper, the published commands and the published code.

Nothing here is read from our recipes. Where a recipe does something else, the entry is a `Differs` with a reason.
`ingredients` reads the same from the recipes, `test_ingredients` compares, and `tools/ingredient_table.py` prints both.
"""

from __future__ import annotations

from collections.abc import Callable

from published_images import (
    EFFICIENTNET,
    NESTEROV,
    TINYVIT,
    VIT_TI,
    cifar,
    cifar_resnet,
    perceptron,
    torchvision_cnn,
    vision_transformer,
)
from published_rates import Rate, described_cosine, detection, fairseq, nanogpt, polynomial, steps_at
from published_row import Differs, Row, Value

# ------------------------------------------------------------------------------------------------------ language models

WHOLE_SPLIT = Differs(
    "an estimate from 200 random batches before the last update",
    "the whole test split after it, with the estimate as `sampled_perplexity`",
    "estimates swing by 0.2 in perplexity from one to the next, as much as the printed lead of GPT2-S",
)


def language_model(values: dict[str, Value], rates: str, rate: Callable[[int], Rate]) -> Row:
    """nanoGPT's training on 4 GPUs."""
    common: dict[str, Value] = {"clip": "norm 1", "precision": "bfloat16"}
    windows = Differs(
        "`seed * rank`: at seed 0 all processes draw the same windows",
        "from seed, step and place in the batch",
        "seeds and processes should see different data",
    )
    return Row({**common, **values}, rates, rate, {"number": WHOLE_SPLIT, "windows": windows})


BABYGPT = language_model(
    {
        "parameters": Differs("30,036,864, as its context is", "30,331,776", "follows from the context"),
        "activations": "6 GELU",
        "network": "6 layers, 6 heads, width 384, no biases",
        "context": Differs("256 in the code, 1024 in the paper", "1024", "the paper's text is what is cited"),
        "dropout": "dropout 0.2",
        "optimizer": "AdamW, rate 0.001, betas 0.9 0.99, eps 1e-08",
        "weight decay": "0.1 on 26 tensors, 0 on 13 tensors",
        "batch": "640",
        "length": "10,000 updates",
        "estimates": "every 250 updates, 200 batches",
    },
    "cosine from 0.001 to 0.0001, after 100 linear updates from 0",
    nanogpt(1e-3, 1e-4, 100, 10_000),
)
GPT2S = language_model(
    {
        "parameters": "124,373,760",
        "activations": "12 GELU",
        "network": "12 layers, 12 heads, width 768, no biases",
        "context": "1024",
        "dropout": "none",
        "optimizer": "AdamW, rate 0.0006, betas 0.9 0.95, eps 1e-08",
        "weight decay": "0.1 on 50 tensors, 0 on 25 tensors",
        "batch": "480",
        "length": "600,000 updates",
        "estimates": "every 1,000 updates, 200 batches",
    },
    "cosine from 0.0006 to 0.00006, after 2,000 linear updates from 0",
    nanogpt(6e-4, 6e-5, 2_000, 600_000),
)
TRANSFORMER = Row(
    {
        "parameters": "60,915,712",
        "activations": "12 ReLU",
        "dropout": "dropout 0.1",
        "optimizer": "AdamW, rate 0.0007, betas 0.9 0.98, eps 1e-08",
        "weight decay": "0 on 253 tensors",
        "batch": "8",
        "length": "100,000 updates",
        "clip": "none",
        "precision": "float16",
        "average": "mean of the last 5, 1500 updates apart",
        "loss": "cross-entropy, label smoothing 0.1",
    },
    "inverse square root from 0.0007, after 4,000 linear updates from 1e-7",
    fairseq(7e-4, 1e-7, 4_000),
    {
        "source": Differs(
            "not known: the public code has nothing of it",
            "fairseq's base model and, where it is silent, Vaswani et al.",
            "the paper says that fairseq trained it",
        )
    },
)

# ----------------------------------------------------------------------------------------- segmentation and detection

BACKBONE = "the ResNet-50 of the same activation and seed"
DEEPLABV3 = Row(
    {
        "parameters": "42,004,074",
        "activations": "25 ReLU",
        "dropout": "dropout 0.5",
        "training images": "shorter side 260 to 1040; flip 0.5; crop of 480",
        "loss": "cross-entropy, 0.5 times the auxiliary head's added",
        "optimizer": Differs(
            "SGD, rate 0.02, momentum 0.9 in the command, 0.01 in the table",
            "SGD, rate 0.01, momentum 0.9",
            "the printed values are those of 0.01; `--optim.lr 0.02` has the other published ones next to it",
        ),
        "weight decay": "0.0001 on 182 tensors, 0.0001 on 5 tensors at 10 times the rate",
        "batch": "32",
        "length": "30 epochs of 2,891, 86,730 updates",
        "clip": "none",
        "precision": "float32",
        "batch norm": "over 32 images",
        "evaluation": "shorter side 520",
    },
    "(1 − progress)^0.9 by updates",
    polynomial(0.01, 30),
    {
        "backbone": BACKBONE,
        "padding in evaluation": Differs(
            "images of a batch to a common size",
            "each image by itself",
            "padding reaches the outputs near an image's edge",
        ),
        "test loss": Differs(
            "the mean of batch means, with half of the auxiliary loss in it",
            "the mean over all pixels, of the main head alone",
            "a mean over pixels does not depend on the batch size",
        ),
    },
)


def detector(
    parameters: str, activations: int, optimizer: Value, decay: str, rate: float, sides: str = "800", **more: Value
) -> Row:
    """torchvision's reference on 4 GPUs with 4 images each."""
    return Row(
        {
            "parameters": parameters,
            "activations": f"{activations} ReLU",
            "dropout": "none",
            "training images": f"flip 0.5; shorter side {sides}, longer at most 1333",
            "grouping": "aspect ratios, 4 images",
            "optimizer": optimizer,
            "weight decay": decay,
            "batch": "16",
            "length": "26 epochs of 7,329, 190,554 updates",
            "clip": "none",
            "precision": "float32",
            "batch norm": "over 16 images",
            "evaluation": "one image, shorter side 800",
        },
        f"{rate:g}, a tenth after 16 and 22 epochs, after at most 1,000 linear updates from a thousandth",
        detection(rate),
        {"backbone": f"{BACKBONE}, three stages trained", **{k.replace("_", " "): v for k, v in more.items()}},
    )


FASTERRCNN = detector("41,808,406", 18, "SGD, rate 0.02, momentum 0.9", "0.0001 on 189 tensors", 0.02)
RETINANET = detector(
    "38,198,935",
    25,
    "AdamW, rate 0.0001, betas 0.9 0.999, eps 1e-08",
    "0.05 on 81 tensors, 0 on 122 tensors",
    1e-4,
    sides="480 512 544 576 608 640 672 704 736 768 800",
    scaling_of_training_images=Differs(
        "by Pillow, bilinear with antialiasing, before the network",
        "by torch, bilinear without antialiasing, in the network; up to 38 levels apart when shrinking",
        "training images are scaled as test images are, by the same code",
    ),
)
MASKRCNN = detector(
    "44,454,513",
    23,
    Differs(
        "SGD, rate 0.02, momentum 0.9 in the command, 0.03 in the table",
        "SGD, rate 0.03, momentum 0.9",
        "the printed values are those of 0.03; `--optim.lr 0.02` has the other published ones next to it",
    ),
    "0.0001 on 201 tensors",
    0.03,
)

# ---------------------------------------------------------------------------------------------------------- diffusion


def diffusion(length: Value, rate_words: Value, rate: Callable[[int], Rate], optimizer: str) -> Row:
    """The DDPM of the paper."""
    return Row(
        {
            "parameters": "35,746,307",
            "activations": "68 SiLU",
            "network": "width 128, times 1 2 2 2, 2 blocks",
            "dropout": "dropout 0.1",
            "noise": "1000 steps, 0.0001 to 0.02",
            "training images": "64 x 64; flip 0.5",
            "optimizer": optimizer,
            "weight decay": "0.01 on 328 tensors",
            "batch": "64",
            "length": length,
            "clip": "none",
            "precision": "float16",
            "average": "none",
        },
        rate_words,
        rate,
        {
            "validation": Differs(
                "4,928 images of the first process, one draw of noise, with dropout",
                "all 19,867 images, without dropout",
                "the last ten epochs of the published loss swing by more than the activations differ",
            )
        },
    )


CONSTANT = "AdamW, rate 0.0001, betas 0.9 0.999, eps 1e-08"
HALF = Differs(
    "31,750 updates of each of four networks that never meet",
    "50 epochs of 2,543, 127,150 updates",
    "the length as the paper describes it; `ddpm-celeba` has the published number",
)

PUBLISHED: dict[str, dict[str, Row]] = {
    "ResNets, WideResNet-50-2 and DenseNet-121 on ImageNet-1k": {
        "resnet18-imagenet": torchvision_cnn("11,689,512", 9, 62),
        "resnet34-imagenet": torchvision_cnn("21,797,672", 17, 110),
        "resnet50-imagenet": torchvision_cnn("25,557,032", 17, 161),
        "wideresnet50-2-imagenet": torchvision_cnn("68,883,240", 17, 161, nesterov=True),
        "densenet121-imagenet": torchvision_cnn("7,978,856", 120, 364, nesterov=True),
    },
    "EfficientNet-B0 and TinyViT on ImageNet-1k": {
        "efficientnet-b0-imagenet": EFFICIENTNET,
        "tinyvit-21m-imagenet": TINYVIT,
    },
    "ViT-B on ImageNet-1k": {
        "vit-b32-imagenet": vision_transformer("88,224,232"),
        "vit-b16-imagenet": vision_transformer("86,567,656"),
    },
    "CIFAR-10": {
        "resnet20-cifar10": cifar_resnet("272,474", 19, 65),
        "resnet32-cifar10": cifar_resnet("466,906", 31, 101),
        "resnet44-cifar10": cifar_resnet("661,338", 43, 137),
        "resnet56-cifar10": cifar_resnet("855,770", 55, 173),
        "resnet110-cifar10": cifar(
            "1,730,714",
            109,
            335,
            "0.01, ten times after 1 epoch, a tenth after 80 and 121",
            steps_at(0.01, {1: 10.0, 80: 0.1, 121: 0.1}),
            optimizer="SGD, rate 0.01, momentum 0.9",
        ),
        "wideresnet28-2-cifar10": cifar(
            "1,469,642",
            25,
            108,
            "0.1, a fifth after 59, 119 and 159 epochs",
            steps_at(0.1, {59: 0.2, 119: 0.2, 159: 0.2}),
            initial_weights="uniform, variance 4 / (inputs + outputs); the head's bias 0",  # Xavier, gain √2
            optimizer=NESTEROV,
            weight_decay="0.0005 on 108 tensors",
            length="200 epochs of 391, 78,200 updates",
        ),
        "densenet40-cifar10": cifar(
            "176,122",
            39,
            119,
            "0.1, a tenth after 149 and 224 epochs",
            steps_at(0.1, {149: 0.1, 224: 0.1}),
            optimizer=NESTEROV,
            batch="64",
            batch_norm="over 64 images",
            length="300 epochs of 782, 234,600 updates",
        ),
        "vit-ti16-cifar10": VIT_TI,
    },
    "Small ablations": {
        "mlp-mnist": perceptron("671,754", "469, 3,752", "as they are", "0.5 0.5 0.5; 0.5 0.5 0.5"),
        "mlp-cifar10": perceptron(
            "1,843,210", "391, 3,128", "crop of 32 padded by 4; flip 0.5", "0.4914 0.4822 0.4465; 0.247 0.243 0.261"
        ),
    },
    "Language models": {"babygpt-tinystories": BABYGPT, "gpt2s-openwebtext": GPT2S},
    "Translation (as fairseq publishes it; the paper's settings are not known)": {"transformer-wmt14": TRANSFORMER},
    "Segmentation": {"deeplabv3-resnet50-coco": DEEPLABV3},
    "Detection": {
        "fasterrcnn-resnet50-fpn-coco": FASTERRCNN,
        "retinanet-resnet50-fpn-coco": RETINANET,
        "maskrcnn-resnet50-fpn-coco": MASKRCNN,
    },
    "Diffusion": {
        "ddpm-celeba": diffusion(
            "12.5 passes, 31,750 updates", "0.0001 throughout, as the code has it", steps_at(1e-4, {}), CONSTANT
        ),
        "ddpm-celeba-50": diffusion(HALF, "0.0001 throughout, as the code has it", steps_at(1e-4, {}), CONSTANT),
        "ddpm-celeba-cosine": diffusion(
            HALF,
            "cosine from 0.001 to 0, after 1,000 linear updates from a tenth, as the paper describes it",
            described_cosine(1e-3, 1_000, 50),
            "AdamW, rate 0.001, betas 0.9 0.999, eps 1e-08",
        ),
    },
}
"""All rows by the heading under which the page prints them."""
ROWS: dict[str, Row] = {name: row for group in PUBLISHED.values() for name, row in group.items()}
