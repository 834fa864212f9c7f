"""What a golu-vision recipe consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from golu_core.training import (
    EpochConfig,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Probability,
    RequestError,
    WeightAverage,
    added_field,
    runtime_field,
)
from golu_core.training.config import Background, BatchNorm, FolderName, PositiveFloat, Range, Samples

GRAY_SOURCES = ("digits", "mnist")
"""Sources whose images have three equal channels."""
HeadBias = Literal["zeros", "uniform"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """A network.

    Attributes:
        name: `library/name`; the library is torchvision, timm, or this package's cifar or mlp (`mlp/2x512` has two
            blocks of width 512).
        default_activation: The published model's activation, which `activation` replaces.
        drop: Dropout before the classifier, for timm's networks.
        drop_path: Stochastic depth, for some of timm's networks.
        head_bias: Initial bias of the classifier, for this package's ResNets and DenseNets: `zeros`, or `uniform`,
            torch's default.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"default_activation": "own_activation"}

    name: str = "torchvision/resnet50"
    default_activation: str = "relu"
    drop: Fraction = 0.0
    drop_path: Fraction = 0.0
    head_bias: HeadBias = added_field("zeros")

    def check(self, flag: str) -> None:
        if self.head_bias != "zeros" and (not self.name.startswith("cifar/") or self.name.endswith("_biased")):
            raise RequestError(
                f"{flag}.head-bias is for golu-vision's own ResNets and DenseNets, and {self.name} is not one of them"
            )
        if (self.drop or self.drop_path) and not self.name.startswith("timm/"):
            raise RequestError(
                f"{flag}.drop and {flag}.drop-path are of timm's networks, and {self.name} is not one of them"
            )


@dataclass(frozen=True)
class Data:
    """Where images come from and how large they are.

    Attributes:
        source: `folder`: class folders in `train` and `val` (or `test`); `cifar10` and `mnist`: torchvision's;
            `digits`: scikit-learn's scans, written as class folders.
        name: Name of the data set in results, and its folder in --data-dir.
        root: Folder of your own with class folders, instead of `source`.
        hub: Id on the hub or local path for `datasets`, instead of `source`.
        test_share: Share of each class that is kept for the test, where `root` has class folders without a split; files
            with related names stay together.
        revision: Revision of the hub data set.
        download: Let torchvision download CIFAR-10 or MNIST.
        size: Side in pixels of the square images that the network gets.
        resize: Shorter side before the center crop in evaluation.
        background: What transparent pixels are put on.
        interpolation: How images are scaled in evaluation, and in training unless its augmentation draws it.
        in_memory: Decode everything once, at `size`, and augment whole batches.
        mean: Mean of each channel for the normalization, of pixels in [0, 1].
        std: Standard deviation of each channel for the normalization.
        classes: Classes of the published data set; a difference is said and noted in result.json.
        train_images: Training images of the published data set.
        test_images: Test images of the published data set.
    """

    # a data set of the hub is named by `hub`, whatever `source` is
    FORMER_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {"source": {"folder": "hub"}}

    source: Literal["folder", "cifar10", "mnist", "digits"] = runtime_field("folder")
    name: FolderName = runtime_field("imagenet")
    root: Path | None = runtime_field(None)
    hub: str | None = runtime_field(None)
    test_share: Annotated[float, Range(gt=0, lt=1)] | None = None
    revision: str | None = runtime_field(None)
    download: bool = runtime_field(False)
    size: Annotated[int, Range(ge=1, le=4096)] = 224
    resize: Annotated[int, Range(ge=1, le=4096)] = 256
    background: Background = "white"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    in_memory: bool = False
    mean: tuple[Probability, Probability, Probability] = IMAGENET_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD
    classes: NonNegativeInt = runtime_field(1000)
    train_images: NonNegativeInt = runtime_field(1_281_167)
    test_images: NonNegativeInt = runtime_field(50_000)

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
            raise RequestError(f"{flag}.root and {flag}.hub cannot be combined")
        if self.revision is not None and self.hub is None:
            raise RequestError(f"{flag}.revision is for a data set on the hub: name one with {flag}.hub")
        if self.test_share is not None and self.root is None:
            raise RequestError(f"{flag}.test-share is for class folders of your own: name them with {flag}.root")
        if self.background != "white" and self.source in (*GRAY_SOURCES, "cifar10") and not self.is_own:
            raise RequestError(f"{flag}.background is for transparent pixels, and {self.source} has none")
        if self.download and (self.source not in ("cifar10", "mnist") or self.is_own):
            raise RequestError(f"{flag}.download is for CIFAR-10 and MNIST only")


@dataclass(frozen=True)
class Crop:
    """A shift and a flip, after the image was brought to its size.

    Attributes:
        pad: Largest shift in pixels; what comes in from outside is black before normalization.
        flip: Mirror every other image.
    """

    kind: ClassVar[str] = "crop"
    pad: Annotated[int, Range(ge=0, le=1024)] = 4
    flip: bool = True


@dataclass(frozen=True)
class TorchvisionAugment:
    """RandomResizedCrop, flip and a policy, on uint8 tensors.

    Attributes:
        flip: Mirror every other image.
        policy: No policy, or AutoAugment as learned on ImageNet.
    """

    kind: ClassVar[str] = "torchvision"
    flip: bool = True
    policy: Literal["none", "autoaugment"] = "none"


@dataclass(frozen=True)
class TimmAugment:
    """timm's own pipeline on PIL images: RandomResizedCrop, flip, RandAugment or color jitter, erasing.

    Attributes:
        flip: Mirror every other image.
        rand_augment: RandAugment in timm's notation, such as `rand-m9-mstd0.5`; empty for none.
        erase: Probability of random erasing by noise.
        color_jitter: Strength of color jitter, which timm ignores when there is a RandAugment.
        draw_interpolation: Draw bilinear or bicubic for each image, and for each operation of RandAugment, where
            evaluation is bicubic; always done where it is bilinear.
    """

    kind: ClassVar[str] = "timm"
    flip: bool = True
    rand_augment: str = ""
    erase: Probability = 0.0
    color_jitter: NonNegativeFloat = 0.0
    draw_interpolation: bool = added_field(False)

    def check(self, flag: str) -> None:
        if self.rand_augment and self.color_jitter and "3a" not in self.rand_augment:
            raise RequestError(
                f"{flag}.color-jitter is ignored by timm when there is a {flag}.rand-augment: set it to 0"
            )


@dataclass(frozen=True)
class Mix:
    """MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019).

    Attributes:
        mixup: Alpha of MixUp's Beta distribution; 0 turns it off. With both on, each group of images takes one of them.
        cutmix: Alpha of CutMix's Beta distribution; 0 turns it off.
        group: Images that share one choice and one ratio: the batch of one device in the paper.
    """

    kind: ClassVar[str] = "mix"
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
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
    repeats: PositiveInt = 1
    """Repeated augmentation: how many times in a row an image is used, in an epoch of unchanged length."""
    mix: Mix | None = None
    """MixUp and CutMix."""
    average: WeightAverage | None = None
    """Moving average of the weights."""
    label_smoothing: Fraction = 0.0
    """Label smoothing of the training loss."""
    batch_norm: BatchNorm = added_field("synchronized")
    """Let batch norm normalize over the images of all processes (`synchronized`), or over `micro_batch_size` images on
    each process (`per_process`)."""

    def check(self, flag: str) -> None:
        drawn = isinstance(self.augment, TimmAugment) and self.augment.draw_interpolation
        if drawn and self.data.interpolation == "bilinear":
            raise RequestError(
                "--data.interpolation bilinear is always drawn in timm's training: use --augment.no-draw-interpolation"
            )

    @property
    def default_activation(self) -> str:
        return self.model.default_activation

    @property
    def primary_metric(self) -> str:
        return "top1"
