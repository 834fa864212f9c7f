"""Analysis of a recipe's segmenter or detector on random images, for `golu-core analyze times`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from golu_core.training.tasks import TimingModel

from .config import DeepLabV3, DetectConfig, MaskRcnn, SegmentationAugment
from .evaluate import normalized, unit_range
from .model import build_model
from .scenes import SceneBatch
from .train import training_loss

_OBJECTS = 7  # an image of COCO has 7.3 on average


def timing_model(config: DetectConfig, samples: int, device: torch.device) -> TimingModel:
    """Return a timing model on images of the recipe's size with seven objects each, as `MakeTimingModel` describes."""
    classes = config.data.expected_classes
    model = build_model(config, classes)[0].to(device)
    side = _side(config)
    images = [torch.randint(256, (3, side, side), dtype=torch.uint8, device=device) for _ in range(samples)]
    targets = [_target(config, classes, side, device) for _ in range(samples)]
    places = torch.arange(samples)
    batch = SceneBatch(images, targets, places, places)

    def infer(network: nn.Module) -> object:
        if config.segments:
            return network(normalized(batch.images, device))
        return network([unit_range(image, device) for image in batch.images])

    return TimingModel(model, lambda network: training_loss(network, batch, config, device), infer, samples)


def _side(config: DetectConfig) -> int:
    """Return the side of a square image, in pixels, that the recipe does not resize."""
    if isinstance(config.augment, SegmentationAugment):
        return config.augment.crop
    assert not isinstance(config.model, DeepLabV3)  # the config has ruled it out
    return max(config.model.shorter_side)


def _target(config: DetectConfig, classes: int, side: int, device: torch.device) -> dict[str, Tensor]:
    """Return a target of seven boxes in a row, with masks for Mask R-CNN, or of one class per pixel."""
    if config.segments:
        return {"segmentation": torch.randint(classes, (side, side), dtype=torch.uint8, device=device)}
    left = torch.arange(_OBJECTS, device=device) * (side / (_OBJECTS + 1))
    corners = (left, left, left + side / 8, left + side / 8)
    target = {
        "boxes": torch.stack(corners, dim=1),
        "labels": torch.randint(1, classes, (_OBJECTS,), device=device),
    }
    if isinstance(config.model, MaskRcnn):
        rows = torch.arange(side, device=device)
        inside = (rows >= left[:, None]) & (rows < left[:, None] + side / 8)
        target["masks"] = (inside[:, :, None] & inside[:, None, :]).to(torch.uint8)
    return target
