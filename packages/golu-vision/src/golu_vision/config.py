"""What a golu-vision recipe consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from golu_core.training.config import EpochConfig, placement
from golu_core.training.errors import RequestError
from golu_core.training.fields import (
    Amount,
    Count,
    FolderName,
    NotNegative,
    Positive,
    Probability,
    Range,
    Samples,
    Share,
)
from golu_core.training.optim import WeightAverage

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """A network.

    Attributes:
        name: `library/name`, with library one of torchvision, timm and cifar (this package's `cifar.py`).
        own_activation: the activation of the network as published, which is swapped.
        drop: dropout before the classifier; timm's networks have it.
        drop_path: stochastic depth; some of timm's networks have it.
    """

    name: str = "torchvision/resnet50"
    own_activation: str = "relu"
    drop: Share = 0.0
    drop_path: Share = 0.0

    def check(self, flag: str) -> None:
        if (self.drop or self.drop_path) and not self.name.startswith("timm/"):
            raise RequestError(f"{flag}.drop and {flag}.drop-path are of timm's networks, and {self.name} is none")


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

    source: Literal["folder", "cifar10", "digits", "hub"] = placement("folder")
    name: FolderName = placement("imagenet")
    root: Path | None = placement(None)
    hub: str | None = placement(None)
    revision: str | None = placement(None)
    download: bool = placement(False)
    size: Annotated[int, Range(least=1, most=4096)] = 224
    resize: Annotated[int, Range(least=1, most=4096)] = 256
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    in_memory: bool = False
    mean: tuple[Probability, Probability, Probability] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    classes: Amount = placement(1000)
    train_images: Amount = placement(1_281_167)
    test_images: Amount = placement(50_000)

    @property
    def is_own(self) -> bool:
        """Whether the images are the user's, and not those of the recipe."""
        return self.root is not None or self.hub is not None

    @property
    def title(self) -> str:
        """The data set's name in results."""
        if self.root is not None:
            return self.root.resolve().name or "root"
        return self.name if self.hub is None else self.hub

    def check(self, flag: str) -> None:
        if self.root is not None and self.hub is not None:
            raise RequestError(f"{flag}.root and {flag}.hub exclude each other")
        if self.revision is not None and self.hub is None:
            raise RequestError(f"{flag}.revision is of a data set of the hub: name one by {flag}.hub")
        if self.source == "hub" and self.hub is None:
            raise RequestError(f"{flag}.hub must name a data set of the hub or a local path")
        if self.download and (self.source != "cifar10" or self.is_own):
            raise RequestError(f"{flag}.download is for CIFAR-10 alone")


@dataclass(frozen=True)
class Crop:
    """A shift and a flip, after the image was brought to its size.

    Attributes:
        pad: largest shift in pixels; what comes in from outside is black before normalization.
        flip: mirror every other image.
    """

    kind: ClassVar[str] = "crop"
    pad: Annotated[int, Range(least=0, most=1024)] = 4
    flip: bool = True


@dataclass(frozen=True)
class TorchvisionAugment:
    """RandomResizedCrop, flip and a policy, on uint8 tensors.

    Attributes:
        flip: mirror every other image.
        policy: none, or AutoAugment as learned on ImageNet.
    """

    kind: ClassVar[str] = "torchvision"
    flip: bool = True
    policy: Literal["none", "autoaugment"] = "none"


@dataclass(frozen=True)
class TimmAugment:
    """timm's own pipeline on PIL images: RandomResizedCrop, flip, RandAugment or color jitter, erasing.

    Attributes:
        flip: mirror every other image.
        rand_augment: timm's description of RandAugment, such as `rand-m9-mstd0.5`; empty for none.
        erase: probability of random erasing by noise.
        color_jitter: strength of color jitter, which timm leaves out where there is a RandAugment.
    """

    kind: ClassVar[str] = "timm"
    flip: bool = True
    rand_augment: str = ""
    erase: Probability = 0.0
    color_jitter: NotNegative = 0.0

    def check(self, flag: str) -> None:
        if self.rand_augment and self.color_jitter and "3a" not in self.rand_augment:
            raise RequestError(
                f"{flag}.color-jitter is left out by timm where there is a {flag}.rand-augment: set it to 0"
            )


@dataclass(frozen=True)
class Mix:
    """MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019).

    Attributes:
        mixup, cutmix: alpha of their Beta distribution; 0 is off. With both on, each group of images takes one of them.
        group: images that share one choice and one ratio: the batch of one device in the paper.
    """

    kind: ClassVar[str] = "mix"
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    group: Samples = 128

    def check(self, flag: str) -> None:
        if not self.mixup and not self.cutmix:
            raise RequestError(f"{flag}.mixup or {flag}.cutmix must be above 0; {flag} none mixes nothing")


@dataclass(frozen=True, kw_only=True)
class VisionConfig(EpochConfig):
    """A golu-vision recipe: everything that a run of it needs."""

    model: Model = Model()
    data: Data = Data()
    augment: Crop | TorchvisionAugment | TimmAugment = TorchvisionAugment()
    repeats: Count = 1
    """Repeated augmentation: how often an image stands in a row in an epoch of unchanged length."""
    mix: Mix | None = None
    """MixUp and CutMix."""
    average: WeightAverage | None = None
    """Moving average of the weights."""
    label_smoothing: Share = 0.0
    """Of the training loss."""

    @property
    def own_activation(self) -> str:
        return self.model.own_activation

    @property
    def primary_metric(self) -> str:
        return "top1"
