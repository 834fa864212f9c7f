"""The paper's segmentation and detection experiments, one recipe per row, and the same four on scenes of digits.

Hyperparameters are those of the GoLU paper (Das et al., NeurIPS 2025, arXiv 2502.03654) and the authors' public code,
which is torchvision's reference training. Published results are means over three seeds, trained on 4 GPUs. Each
backbone is the ResNet-50 that golu-vision trained with the same activation and seed (`--backbone RUN_DIR`).
"""

from __future__ import annotations

from typing import Any

from golu_core.training import AdamW, Cosine, Sgd, StepWarmup
from golu_core.training.config import Milestones, Optim, PaperRow, Polynomial, PublishedAt, pictured, published

from .config import (
    Data,
    DeepLabV3,
    DetectConfig,
    DetectionAugment,
    FasterRcnn,
    MaskRcnn,
    Model,
    RetinaNet,
    SegmentationAugment,
)
from .samples import DIGIT_SCENES_NAME, DIGIT_SCENES_TEST, DIGIT_SCENES_TRAIN

COCO = Data()


_BACKBONE = "/resnet50-imagenet/{activation}/seed{seed}"
"""The end of the run folder from which each published backbone came."""


def _row(model: str, size: int, ddof: int = 0, further: tuple[PublishedAt, ...] = (), **columns: str) -> PaperRow:
    """Return a row of the paper's table; runs are compared by the first metric."""
    results = {metric: published(cells) for metric, cells in columns.items()}
    metric = next(iter(results))
    return PaperRow(model, "COCO 2017", metric, size, results, ddof, further, {"backbone": _BACKBONE})


def _at(lr: float | None, **means: str) -> PublishedAt:
    """Return the means in the paper's figures at a learning rate; None stands for the recipe's own."""
    results = {metric: pictured(cells) for metric, cells in means.items()}
    return PublishedAt({} if lr is None else {"optim.lr": lr}, results)


def _detector(name: str, paper: PaperRow, model: Model, optim: Optim) -> DetectConfig:
    """torchvision's reference: steps at epochs 16 and 22, linear warmup from lr / 1000 in the first epoch."""
    return DetectConfig(
        recipe=name,
        paper=paper,
        model=model,
        data=COCO,
        optim=optim,
        schedule=Milestones(
            milestones=(16, 22), factors=(0.1,), warmup=StepWarmup(steps=1000, start_factor=1e-3, within_epoch=True)
        ),
        epochs=26,
        batch_size=16,
        micro_batch_size=4,
        group_size=4,
    )


def _sgd(lr: float) -> Sgd:
    return Sgd(lr=lr, momentum=0.9, weight_decay=1e-4)


DEEPLABV3_RESNET50_COCO = DetectConfig(
    recipe="deeplabv3-resnet50-coco",
    paper=_row(
        "DeepLabV3-RN50",
        42_004_074,
        further=(
            _at(None, miou="65.11 65.55 60.70 65.59 64.14 64.40 65.98"),
            _at(0.02, miou="64.99 64.79 59.31 64.53 62.52 62.97 64.98"),
        ),
        miou="65.11±0.326 65.59±0.162 64.14±0.135 64.40±0.144 65.98±0.124",
    ),
    model=DeepLabV3(aux_weight=0.5),
    data=Data(classes="voc", train_size=92_518),
    augment=SegmentationAugment(flip=True, resize=(260, 1040), crop=480, eval_side=520, fewest_pixels=1000),
    optim=Sgd(lr=0.01, momentum=0.9, weight_decay=1e-4, lr_scales=(("aux_classifier.", 10.0),)),
    schedule=Polynomial(power=0.9, per="step"),
    epochs=30,
    batch_size=32,
    micro_batch_size=8,
    group_size=1,
)
"""The learning rate is that of the published table; the public code has 0.02 (`--optim.lr 0.02`)."""

FASTERRCNN_RESNET50_FPN_COCO = _detector(
    "fasterrcnn-resnet50-fpn-coco",
    _row("Faster R-CNN-FPN-RN50", 41_808_406, box_map="37.44±0.146 38.16±0.044 37.28±0.078 37.71±0.087 38.31±0.058"),
    FasterRcnn(),
    _sgd(0.02),
)

RETINANET_RESNET50_FPN_COCO = _detector(
    "retinanet-resnet50-fpn-coco",
    _row("RetinaNet-FPN-RN50", 38_198_935, box_map="39.90±0.063 40.68±0.090 40.27±0.087 40.45±0.093 40.77±0.065"),
    RetinaNet(shorter_side=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)),
    AdamW(lr=1e-4, weight_decay=0.05, decay="all_but_norms"),
)
"""torchvision's second version: P6 and P7 from C5, group norm in the heads, GIoU loss; multi-scale training."""

MASKRCNN_RESNET50_FPN_COCO = _detector(
    "maskrcnn-resnet50-fpn-coco",
    _row(
        "Mask R-CNN-FPN-RN50",
        44_454_513,
        ddof=1,
        further=(
            PublishedAt(
                results={
                    "box_map": {"leaky_relu": (38.42, None), "elu": (35.85, None)},
                    "mask_map": {"leaky_relu": (34.26, None), "elu": (32.38, None)},
                }
            ),
            _at(
                0.02,
                box_map="38.33 38.31 36.41 39.00 38.19 38.76 38.96",
                mask_map="34.19 34.19 32.81 34.73 33.99 34.70 34.54",
            ),
        ),
        box_map="38.25±0.144 39.12±0.028 38.10±0.187 38.56±0.138 39.36±0.192",
        mask_map="34.28±0.116 34.93±0.061 33.95±0.112 34.64±0.078 34.97±0.146",
    ),
    MaskRcnn(),
    _sgd(0.03),
)
"""The learning rate is that of the published table; the public code has 0.02."""

DIGIT_SCENES = Data(
    name=DIGIT_SCENES_NAME,
    classes="file",
    train_size=DIGIT_SCENES_TRAIN,
    test_size=DIGIT_SCENES_TEST,
)


def _on_digits(model: Model, metric: str, size: int, epochs: int) -> DetectConfig:
    """The same code path in a few minutes on two CPU cores: scenes of 96 x 96 pixels, a backbone of three stages."""
    segmentation = SegmentationAugment(flip=False, resize=(88, 112), crop=64, eval_side=96, fewest_pixels=0)
    return DetectConfig(
        recipe=f"{model.kind}-digits",
        paper=PaperRow(f"{model.kind} (small)", "scenes of digits", metric, size),
        model=model,
        data=DIGIT_SCENES,
        augment=segmentation if isinstance(model, DeepLabV3) else DetectionAugment(flip=False),
        optim=AdamW(lr=2e-3, weight_decay=0.01, decay="matrices"),
        schedule=Cosine(
            final_lr=0.0,
            per="step",
            warmup=StepWarmup(steps=40, start_factor=0.01, within_epoch=True, then="goes_on"),
        ),
        epochs=epochs,
        batch_size=8,
        micro_batch_size=8,
        group_size=1,
        clip=5.0,
    )


_SMALL: dict[str, Any] = {"backbone": "small", "shorter_side": (96,), "longer_side": 96}

DEEPLABV3_DIGITS = _on_digits(DeepLabV3(backbone="small"), "miou", 2_333_262, epochs=6)
FASTERRCNN_DIGITS = _on_digits(FasterRcnn(**_SMALL), "box_map", 1_487_302, epochs=7)
RETINANET_DIGITS = _on_digits(RetinaNet(**_SMALL), "box_map", 914_266, epochs=8)
MASKRCNN_DIGITS = _on_digits(MaskRcnn(**_SMALL), "box_map", 1_545_585, epochs=4)


def _own(name: str, model: Model, metric: str, size: int) -> DetectConfig:
    """Not in the paper: the user's own annotated images (`--data.root`); `auto_recipe` chooses most settings."""
    segments = isinstance(model, DeepLabV3)
    warmup = StepWarmup(steps=1000, start_factor=1e-3)
    return DetectConfig(
        recipe=name,
        paper=PaperRow(f"{model.kind}-RN50", "your own images", metric, size),
        model=model,
        data=Data(name=name, classes="file", train_size=0, test_size=0),
        augment=SegmentationAugment() if segments else DetectionAugment(),
        optim=_sgd(0.01 if segments else 0.02),
        schedule=Polynomial(power=0.9, per="step", warmup=warmup) if segments else Cosine(per="step", warmup=warmup),
        epochs=26,
        batch_size=16,
        micro_batch_size=8 if segments else 4,
        group_size=1,
    )


OBJECTS = _own("objects", FasterRcnn(), "box_map", 41_352_281)
INSTANCES = _own("instances", MaskRcnn(), "box_map", 43_975_515)
SEGMENTS = _own("segments", DeepLabV3(), "miou", 41_994_308)

RECIPES: dict[str, DetectConfig] = {
    recipe.recipe: recipe
    for recipe in (
        DEEPLABV3_DIGITS,
        FASTERRCNN_DIGITS,
        RETINANET_DIGITS,
        MASKRCNN_DIGITS,
        OBJECTS,
        INSTANCES,
        SEGMENTS,
        DEEPLABV3_RESNET50_COCO,
        FASTERRCNN_RESNET50_FPN_COCO,
        RETINANET_RESNET50_FPN_COCO,
        MASKRCNN_RESNET50_FPN_COCO,
    )
}
