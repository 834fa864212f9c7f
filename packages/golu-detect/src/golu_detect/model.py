"""Build a recipe's network: torchvision's own builders, a pretrained backbone, and the run's activation throughout."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection, segmentation
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign

from golu_core.training import Purpose, RequestError, SwappedActivations, seed_global_generators, swapped_for
from golu_core.training.finetuning import torchvisions_weights
from golu_core.training.runs import RESULT_FILE, WEIGHTS_FILE, damaged_files, read_activation_source, read_result
from golu_core.training.storage import read_tensors

from .config import DeepLabV3, DetectConfig, FasterRcnn, MaskRcnn, Model, RetinaNet

Detector = FasterRcnn | RetinaNet | MaskRcnn

_STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # from the last, as torchvision freezes them
_TRAINED_STAGES = 3  # torchvision's default


def build_model(
    config: DetectConfig, classes: int, weights: dict[str, Tensor] | None = None
) -> tuple[nn.Module, SwappedActivations]:
    """Build the network with the run's activation; its weights depend only on the seed and the backbone's weights.

    Args:
        config: The run's configuration.
        classes: Number of classes, including the background.
        weights: Weights of the pretrained backbone, from `backbone_weights`.

    Returns:
        The network, the number of swapped activations, and the functional calls that keep the published activation.

    Raises:
        RequestError: The backbone's weights have a different shape.
    """
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    network = build_network(config.model, classes)
    if weights is not None:
        _load_backbone(network, weights, config)
    size = 96 if isinstance(config.model, DeepLabV3) else min(config.model.shorter_side[-1], 96)
    picture = torch.zeros(3, size, size)
    example = (picture[None].repeat(2, 1, 1, 1),) if config.segments else ([picture],)
    with _small_images(network):
        swapped = swapped_for(network, config.model.default_activation, config.activation, example)
    return network, swapped


@contextmanager
def _small_images(network: nn.Module) -> Iterator[None]:
    """Let a detector process the small example for finding its functional calls without resizing it."""
    transform: Any = getattr(network, "transform", None)
    if transform is None:
        yield
        return
    sizes = transform.min_size, transform.max_size
    transform.min_size, transform.max_size = (96,), 96
    try:
        yield
    finally:
        transform.min_size, transform.max_size = sizes


def build_network(model: Model, classes: int) -> nn.Module:
    """Build the published network, with weights from torch's global generator."""
    if model.backbone == "small":
        return _small(model, classes)
    plain = {"weights": None, "weights_backbone": None, "num_classes": classes}
    network: nn.Module
    if isinstance(model, DeepLabV3):
        network = segmentation.deeplabv3_resnet50(**plain, aux_loss=model.aux_weight > 0)
        return network
    builders = {
        FasterRcnn: detection.fasterrcnn_resnet50_fpn,
        RetinaNet: detection.retinanet_resnet50_fpn_v2,
        MaskRcnn: detection.maskrcnn_resnet50_fpn,
    }
    network = builders[type(model)](**plain, min_size=model.shorter_side, max_size=model.longer_side)
    return network


# ------------------------------------------------------------------------------------------------ the trained backbone


def backbone_weights(config: DetectConfig) -> dict[str, Tensor] | None:
    """Return the weights in `--backbone` without the classifier; None without `--backbone`.

    Raises:
        RequestError: The weights are missing, or belong to a different activation or network.
    """
    if config.backbone is None:
        return None
    path = Path(config.backbone)
    if path.is_dir():
        state = _of_a_run(path, config)
    elif path.is_file():
        state = read_tensors(path)
    else:
        state = _torchvisions(config.backbone, config.activation)
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def _of_a_run(folder: Path, config: DetectConfig) -> dict[str, Tensor]:
    result = read_result(folder / RESULT_FILE) if (folder / RESULT_FILE).exists() else None
    if result is None:
        raise RequestError(f"the run of the backbone in {folder} is not finished: it has no {RESULT_FILE}")
    if result.model != "torchvision/resnet50":
        raise RequestError(f"the backbone {folder} is a {result.model}, but torchvision/resnet50 is needed")
    if result.activation != config.activation:
        raise RequestError(
            f"the backbone {folder} was trained with {result.activation}, but {config.activation} is asked for: "
            f"the paper's detectors use a backbone of the same activation and seed"
        )
    source = read_activation_source(folder)
    if source != config.activation_source:
        raise RequestError(
            f"the backbone {folder} was trained with other code of {config.activation}: {source or 'none'} there, "
            f"{config.activation_source or 'none'} now"
        )
    damage = damaged_files(folder, result)
    if damage:
        raise RequestError(f"the backbone cannot be used: {'; '.join(damage)}")
    return read_tensors(folder / WEIGHTS_FILE)


def _torchvisions(name: str, activation: str) -> dict[str, Tensor]:
    enum = torchvision.models.ResNet50_Weights
    if name not in enum.__members__:
        known = ", ".join(enum.__members__)
        raise RequestError(
            f"the backbone {name!r} is neither a run folder, nor a file, nor one of torchvision's: {known}"
        )
    if activation != "relu":
        raise RequestError(f"torchvision's {name} was trained with relu, but {activation} is asked for")
    return dict(torchvisions_weights("resnet50", name))


def _load_backbone(network: nn.Module, weights: dict[str, Tensor], config: DetectConfig) -> None:
    """Load the weights and freeze the first stages, as torchvision does for a pretrained backbone."""
    body: nn.Module = network.backbone if config.segments else network.backbone.body  # type: ignore[union-attr, assignment]
    try:
        body.load_state_dict(weights)
    except RuntimeError as error:
        raise RequestError(f"the backbone {config.backbone} does not fit: {str(error)[:300]}") from None
    if isinstance(config.model, DeepLabV3):  # trains all stages
        return
    stages = _TRAINED_STAGES if config.model.trainable_stages is None else config.model.trainable_stages
    trained = set(_STAGES[:stages]) | ({"bn1"} if stages == 5 else set())
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] in trained)


# ------------------------------------------------------------------------------------------------- the small networks


class SmallBackbone(nn.Module):
    """Three residual stages with strides 4, 8, and 16, for scenes of 96 pixels."""

    channels = (48, 96, 128)

    def __init__(self, dilated: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU(inplace=True)
        first, second, third = self.channels
        self.layer1 = _residual(32, first, 2)
        self.layer2 = _residual(first, second, 1 if dilated else 2)
        self.layer3 = _residual(second, third, 1 if dilated else 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 128, H / 16, W / 16)."""
        x = self.relu(self.bn1(self.conv1(x)))
        y: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return y


def _residual(inputs: int, outputs: int, stride: int) -> nn.Module:
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, shortcut)


class _SegmentationFeatures(SmallBackbone):
    """The small backbone with its last two stages at stride 4, as DeepLabV3 expects."""

    def __init__(self) -> None:
        super().__init__(dilated=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        middle = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return OrderedDict(out=self.layer3(middle), aux=middle)


_FPN = 64


def _fpn() -> BackboneWithFPN:
    return BackboneWithFPN(
        SmallBackbone(), {"layer1": "0", "layer2": "1", "layer3": "2"}, list(SmallBackbone.channels), _FPN
    )


def _small_deeplabv3(model: DeepLabV3, classes: int) -> nn.Module:
    aux = FCNHead(SmallBackbone.channels[1], classes) if model.aux_weight > 0 else None
    head = DeepLabHead(SmallBackbone.channels[2], classes, atrous_rates=(2, 4, 6))
    return segmentation.DeepLabV3(_SegmentationFeatures(), head, aux)


def _rcnn_parts(model: Detector, classes: int) -> dict[str, object]:
    regions = ["0", "1", "2"]
    return {
        "min_size": model.shorter_side,
        "max_size": model.longer_side,
        "rpn_anchor_generator": AnchorGenerator(((12,), (24,), (40,), (64,)), ((0.7, 1.0, 1.5),) * 4),
        "rpn_pre_nms_top_n_train": 300,
        "rpn_post_nms_top_n_train": 150,
        "rpn_pre_nms_top_n_test": 300,
        "rpn_post_nms_top_n_test": 100,
        "rpn_batch_size_per_image": 64,
        "box_batch_size_per_image": 48,
        "box_detections_per_img": 30,
        "box_roi_pool": MultiScaleRoIAlign(regions, output_size=7, sampling_ratio=2),
        "box_head": TwoMLPHead(_FPN * 7 * 7, 256),
        "box_predictor": FastRCNNPredictor(256, classes),
    }


def _small_fasterrcnn(model: FasterRcnn, classes: int) -> nn.Module:
    return detection.FasterRCNN(_fpn(), **_rcnn_parts(model, classes))


def _small_maskrcnn(model: MaskRcnn, classes: int) -> nn.Module:
    masks = {
        "mask_roi_pool": MultiScaleRoIAlign(["0", "1", "2"], output_size=14, sampling_ratio=2),
        "mask_head": MaskRCNNHeads(_FPN, (48, 48), 1),
        "mask_predictor": MaskRCNNPredictor(48, 48, classes),
    }
    return detection.MaskRCNN(_fpn(), **_rcnn_parts(model, classes), **masks)


def _small_retinanet(model: RetinaNet, classes: int) -> nn.Module:
    anchors = AnchorGenerator(((10, 14), (20, 28), (40, 52), (64, 80)), ((0.6, 1.0, 1.6),) * 4)
    norm = partial(nn.GroupNorm, 16)  # in the heads, as in torchvision's second version
    head = RetinaNetHead(_FPN, anchors.num_anchors_per_location()[0], classes, norm_layer=norm)
    return detection.RetinaNet(
        _fpn(),
        classes,
        min_size=model.shorter_side,
        max_size=model.longer_side,
        anchor_generator=anchors,
        head=head,
        detections_per_img=30,
        topk_candidates=200,
    )


def _small(model: Model, classes: int) -> nn.Module:
    if isinstance(model, DeepLabV3):
        return _small_deeplabv3(model, classes)
    if isinstance(model, RetinaNet):
        return _small_retinanet(model, classes)
    return _small_maskrcnn(model, classes) if isinstance(model, MaskRcnn) else _small_fasterrcnn(model, classes)
