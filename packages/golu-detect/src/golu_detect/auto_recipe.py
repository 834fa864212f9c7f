"""The recipes `objects`, `instances`, and `segments`: network, image size, and schedule for annotated images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from golu_core.training import AdamW, Sgd, StepWarmup
from golu_core.training.config import (
    Fitted,
    Optim,
    fitting_batch,
    median,
    passes,
    power_of_two,
    rounded,
    with_test_share,
)

from .config import DeepLabV3, DetectConfig, DetectionAugment, Model, RetinaNet, SegmentationAugment
from .data import DetectData, load_data

Backbone = Literal["resnet50", "small"]

_SMALL = 160  # pixels of the longer side up to which the network of the digit scenes is used
_RATIO = 5 / 3  # torchvision's ratio of the longer side to the shorter one, 1333 to 800
_DETECTED, _ENLARGED = 800, 320  # shorter side in torchvision, and here for smaller images
_SEGMENTED, _CROPPED = 520, 480  # shorter side and crop size in torchvision
_CLIP = 5.0
_TUNED, _RATE_TUNED = 3, 0.1  # with pretrained weights: a third of the epochs, a tenth of the learning rate


def fit_scenes(recipe: DetectConfig, asked: DetectConfig, given: frozenset[str]) -> Fitted[DetectConfig] | None:
    """Return the recipe for the requested images or those in DATA_DIR/NAME; None if there are none.

    Hyperparameters of the ResNet-50 networks are those of torchvision's references, and the small networks use those of
    the digit recipes. The rules that depend on the number of images are our own.

    Raises:
        RequestError: Images or annotations are malformed.
    """
    root = None if asked.data.is_own else asked.data_dir / asked.data.name
    if root is not None and not root.is_dir():
        return None
    loaded, share = _loaded(asked, root)
    count, (shorter, longer) = len(loaded.train), _median_sides(loaded)
    of_a_library = asked.backbone is not None or (asked.init_from or "").startswith("torchvision:")
    by_side: Backbone = "small" if longer <= _SMALL and not of_a_library else "resnet50"
    backbone = asked.model.backbone if "model.backbone" in given else by_side
    tuned = asked.init_from is not None
    most = 32 if recipe.segments else 16
    batch = asked.batch_size if "batch_size" in given else power_of_two(count / 16, 4, most)
    batch = fitting_batch(batch, count)
    by_count = round(passes(count, 26, 26, 100) / (_TUNED if tuned else 1))
    epochs = asked.epochs if "epochs" in given else by_count
    warmup = StepWarmup(steps=max(1, min(1000, epochs * (count // batch) // 20)), start_factor=1e-3)
    same_kind = isinstance(asked.model, type(recipe.model))
    model = _fitted_model(recipe.model if same_kind else type(asked.model)(), backbone, shorter)
    optim = _optim(model, batch)
    fitted = replace(
        recipe,
        model=model,
        data=replace(recipe.data, root=root, test_share=share, train_size=count, test_size=len(loaded.test)),
        augment=_segmentation(shorter, backbone) if recipe.segments else DetectionAugment(),
        optim=replace(optim, lr=rounded(optim.lr * (_RATE_TUNED if tuned else 1.0))),
        schedule=replace(recipe.schedule, warmup=warmup),
        epochs=epochs,
        batch_size=batch,
        micro_batch_size=min(batch, 8 if backbone == "small" or recipe.segments else 4),
        clip=_CLIP if backbone == "small" else None,
    )
    found = (
        f"{count:,} training and {len(loaded.test):,} test images with objects of {len(loaded.labels):,} classes, "
        f"{shorter:,} x {longer:,} pixels at the median"
    )
    return Fitted(fitted, found, count)


def _loaded(asked: DetectConfig, root: Path | None) -> tuple[DetectData, float | None]:
    """Load the data; if they have no split, also return the fraction held out for testing."""
    data = asked.data if root is None else replace(asked.data, root=root)
    if isinstance(asked.augment, SegmentationAugment):
        asked = replace(asked, augment=replace(asked.augment, fewest_pixels=0))

    def load(share: float | None) -> DetectData:
        return load_data(replace(asked, data=replace(data, test_share=share)))

    return (load(None), None) if data.root is None else with_test_share(load, data.test_share)


def _median_sides(loaded: DetectData) -> tuple[int, int]:
    """Return the medians of the shorter and longer sides of all training images, according to the annotations."""
    sides = [sorted((image.height, image.width)) for image in loaded.train.images]
    return median([short for short, _ in sides]), median([long for _, long in sides])


def _fitted_model(model: Model, backbone: Backbone, shorter: int) -> Model:
    """Return the model with its backbone and, for a detector, the sizes to which it resizes images."""
    if isinstance(model, DeepLabV3):
        return replace(model, backbone=backbone)
    smallest = 64 if backbone == "small" else _ENLARGED
    side = min(_DETECTED, max(smallest, _to_multiple(shorter, 32)))
    return replace(model, backbone=backbone, shorter_side=(side,), longer_side=round(side * _RATIO))


def _segmentation(shorter: int, backbone: Backbone) -> SegmentationAugment:
    """Return resize and crop sizes in the proportions of torchvision or the digit recipes; no image is left out."""
    side = min(_SEGMENTED, max(64, _to_multiple(shorter, 8)))
    if backbone == "small":
        return SegmentationAugment(
            resize=(side * 11 // 12, side * 7 // 6), crop=side * 2 // 3, eval_side=side, fewest_pixels=0
        )
    crop = side * _CROPPED // _SEGMENTED
    return SegmentationAugment(resize=(side // 2, side * 2), crop=crop, eval_side=side, fewest_pixels=0)


def _optim(model: Model, batch: int) -> Optim:
    """Return the network's optimizer; SGD's rate scales with the batch size, AdamW's with its square root."""
    if model.backbone == "small":
        return AdamW(lr=2e-3 * (batch / 8) ** 0.5, weight_decay=0.01, decay="matrices")
    if isinstance(model, DeepLabV3):
        aux = (("aux_classifier.", 10.0),) if model.aux_weight > 0 else ()
        return Sgd(lr=0.01 * batch / 32, momentum=0.9, weight_decay=1e-4, lr_scales=aux)
    if isinstance(model, RetinaNet):
        return AdamW(lr=1e-4 * (batch / 16) ** 0.5, weight_decay=0.05, decay="all_but_norms")
    return Sgd(lr=0.02 * batch / 16, momentum=0.9, weight_decay=1e-4)


def _to_multiple(value: int, of: int) -> int:
    return max(of, round(value / of) * of)
