"""What a golu-vision recipe consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from golu_core.training.config import RunConfig, placement
from golu_core.training.optim import Optim, WeightAverage
from golu_core.training.schedules import Schedule

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """A network.

    Attributes:
        name: `library/name`, with library one of torchvision, timm and cifar (this package's `cifar.py`).
        own_activation: the activation of the network as published, which is swapped.
        drop: dropout before the classifier (timm).
        drop_path: stochastic depth (timm).
    """

    name: str = "torchvision/resnet50"
    own_activation: str = "relu"
    drop: float = 0.0
    drop_path: float = 0.0


@dataclass(frozen=True)
class Data:
    """Where images come from and how large they are.

    Attributes:
        source: `folder`, class folders below `train` and `val` (or `test`); `cifar10`, torchvision's; `digits`,
            scikit-learn's scans, written as class folders; `hub`, anything that `datasets` loads.
        name: the data set's name in results, and its folder below --data-dir.
        root: a folder of class folders of your own, instead of `source`.
        hub: id on the hub or local path for `datasets`, instead of `source`.
        revision: revision of the hub data set.
        download: let torchvision download CIFAR-10.
        size: images are size x size pixels for the network.
        resize: shorter side before the centre crop in evaluation.
        interpolation: of training crops and of evaluation.
        in_memory: decode everything once, at `size`, and augment whole batches.
        mean, std: of the normalisation, per channel, of pixels in [0, 1].
        classes, train_images, test_images: as published; a difference is said and noted in result.json.
    """

    source: Literal["folder", "cifar10", "digits", "hub"] = "folder"
    name: str = "imagenet"
    root: Path | None = field(default=None)
    hub: str | None = None
    revision: str | None = None
    download: bool = placement(False)
    size: int = 224
    resize: int = 256
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    in_memory: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    classes: int = 1000
    train_images: int = 1_281_167
    test_images: int = 50_000


@dataclass(frozen=True)
class Augment:
    """What happens to a training image.

    Attributes:
        kind: `crop`, a shift of up to `pad` pixels and a flip, for images in memory; `torchvision`, RandomResizedCrop,
            flip and `policy` on uint8 tensors; `timm`, timm's own pipeline on PIL images.
        pad: pixels.
        flip: mirror every other image.
        policy: of `torchvision`: none, or AutoAugment as learned on ImageNet.
        rand_augment: timm's description of RandAugment.
        erase: probability of random erasing by noise, in `timm`.
        color_jitter: of `timm`, which leaves it out where there is a RandAugment.
        repeats: repeated augmentation: how often an image stands in a row in an epoch of unchanged length.
    """

    kind: Literal["crop", "torchvision", "timm"] = "torchvision"
    pad: int = 4
    flip: bool = True
    policy: Literal["none", "autoaugment"] = "none"
    rand_augment: str = ""
    erase: float = 0.0
    color_jitter: float = 0.4
    repeats: int = 1


@dataclass(frozen=True)
class Mix:
    """MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019).

    Attributes:
        mixup, cutmix: alpha of their Beta distribution; 0 is off. With both on, each group of images takes one of them.
        group: images that share one choice and one ratio: the batch of one device in the paper.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    group: int = 128


@dataclass(frozen=True, kw_only=True)
class VisionConfig(RunConfig):
    """A golu-vision recipe: everything that a run of it needs."""

    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    mix: Mix = Mix()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    average: WeightAverage = WeightAverage(decay=0.0)
    """Moving average of the weights; decay 0 is off."""
    epochs: int = 90
    """Passes over the training set."""
    batch_size: int = 256
    """Images of one optimizer step, over all processes."""
    max_device_batch: int | None = placement(None)
    """Images that a device takes at once; a larger share of the batch is accumulated."""
    eval_batch: int = placement(256)
    """Images that a device takes at once in evaluation."""
    label_smoothing: float = 0.0
    """Of the training loss."""
    clip: float | None = None
    """Largest norm of the gradient."""
    sync_batch_norm: bool = False
    """One batch norm over all GPUs."""
    drop_last: bool = False
    """Leave out the images that do not fill the epoch's last batch; otherwise the epoch's first ones fill it."""

    @property
    def own_activation(self) -> str:
        return self.model.own_activation
