"""What a golu-detect recipe consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from golu_core.training.config import RunConfig, placement
from golu_core.training.optim import Optim
from golu_core.training.schedules import Schedule

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# the 21 classes of PASCAL VOC among COCO's categories, background first, as torchvision's reference has them
VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)


@dataclass(frozen=True)
class Model:
    """A network.

    Attributes:
        name: `deeplabv3` segments; `fasterrcnn`, `retinanet` and `maskrcnn` detect.
        backbone: `resnet50`, torchvision's; `small`, three stages for the digit scenes.
        own_activation: the activation of the network as published, which is swapped.
        shorter_side: detectors scale images to one of these, at random in training, and to the last in evaluation.
        longer_side: but no longer than this.
        trainable_stages: of the backbone, counted from its end, if it brings trained weights; 5 is all of it.
        aux_weight: of the auxiliary head's loss (DeepLabV3); 0 is no such head.
    """

    name: Literal["deeplabv3", "fasterrcnn", "retinanet", "maskrcnn"] = "fasterrcnn"
    backbone: Literal["resnet50", "small"] = "resnet50"
    own_activation: str = "relu"
    shorter_side: tuple[int, ...] = (800,)
    longer_side: int = 1333
    trainable_stages: int = 3
    aux_weight: float = 0.5


@dataclass(frozen=True)
class Data:
    """Where images and annotations in COCO's format come from.

    Attributes:
        name: folder below --data-dir in COCO 2017's published layout; also the data set's name in results.
        train_images, train_annotations, test_images, test_annotations: a folder of images and a file of annotations of
            your own, instead of the published places.
        classes: 91 takes COCO's category ids as they are; 0 numbers the file's categories from 1 in the order of their
            ids. Segmentation has its classes in `voc`.
        voc: segment PASCAL VOC's 21 classes instead of the file's categories.
        fewest_pixels: segmentation leaves out training images whose objects cover no more pixels.
        train_size, test_size: images as published, what is filtered left out; a difference is said and noted in
            result.json. 0 if not known.
    """

    name: str = "coco"
    train_images: Path | None = None
    train_annotations: Path | None = None
    test_images: Path | None = None
    test_annotations: Path | None = None
    classes: int = 91
    voc: bool = False
    fewest_pixels: int = 1000
    train_size: int = 117_266
    test_size: int = 5_000


@dataclass(frozen=True)
class Augment:
    """What happens to a training image.

    Attributes:
        flip: mirror every other image.
        resize: segmentation scales the shorter side to a random size between these.
        crop: and takes a random square of so many pixels; what lies outside the image is not counted.
        eval_side: shorter side in the evaluation of segmentation.
    """

    flip: bool = True
    resize: tuple[int, int] = (260, 1040)
    crop: int = 480
    eval_side: int = 520


@dataclass(frozen=True, kw_only=True)
class DetectConfig(RunConfig):
    """A golu-detect recipe: everything that a run of it needs."""

    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    backbone: str | None = None
    """Trained weights of the backbone: a run folder of golu-vision with the same activation, a safetensors file, or the
    name of torchvision's, such as IMAGENET1K_V1."""
    epochs: int = 26
    """Passes over the training set."""
    batch_size: int = 16
    """Images of one optimizer step, over all processes."""
    max_device_batch: int | None = placement(4)
    """Images that a device takes at once; a larger share of the batch is accumulated."""
    eval_batch: int = placement(1)
    """Images that a device takes at once in evaluation."""
    group_size: int = 4
    """So many images in a row have similar aspect ratios; 1 does not group."""
    warmup_steps: int = 0
    """Linear warm-up over so many steps, at most an epoch's less one."""
    clip: float | None = None
    """Largest norm of the gradient."""
    sync_batch_norm: bool = False
    """One batch norm over all GPUs."""
    drop_last: bool = True
    """Leave out the images that do not fill the epoch's last batch."""

    @property
    def own_activation(self) -> str:
        return self.model.own_activation
