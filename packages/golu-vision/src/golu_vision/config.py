"""The fields of a golu-vision recipe, which are also the flags of `golu-vision train`."""

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

GRAY_SOURCES = ("digits", "mnist", "fashion")
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
                f"{flag}.head-bias only works with golu-vision's built-in ResNets and DenseNets, not with {self.name}"
            )
        if (self.drop or self.drop_path) and not self.name.startswith("timm/"):
            raise RequestError(f"{flag}.drop and {flag}.drop-path only work with timm models, not with {self.name}")


@dataclass(frozen=True)
class Data:
    """Where images come from and how large they are.

    Attributes:
        source: `folder`: class folders in `train` and `val` (or `test`); `cifar10`: torchvision's; `mnist` and
            `fashion` (Fashion-MNIST): IDX files; `digits`: scikit-learn's scans, written as class folders.
        name: Name of the data set in results, and its folder in --data-dir.
        root: Your own folder with class folders or IDX files, used instead of `source`.
        hub: Hub id or local path for `datasets`, used instead of `source`.
        test_share: Fraction of each class held out for testing when `root` has class folders without a split. Files
            with related names stay together.
        revision: Revision of the hub data set.
        download: Let torchvision download CIFAR-10, MNIST, or Fashion-MNIST.
        size: Input size: images are squares with this side, in pixels.
        resize: Length of the shorter side before the center crop, in evaluation.
        background: Color behind transparent pixels.
        interpolation: Interpolation for resizing in evaluation, and in training unless the augmentation draws it at
            random.
        in_memory: Decode all images once, at `size`, and augment whole batches.
        mean: Mean of each channel for normalization, for pixels in [0, 1].
        std: Standard deviation of each channel for normalization, for pixels in [0, 1].
        classes: Number of classes in the published data set. If yours differs, the run prints a note and records it in
            result.json.
        train_images: Number of training images in the published data set.
        test_images: Number of test images in the published data set.
    """

    # with `hub` set, `source` does not matter, so runs from when "hub" was a source still load
    FORMER_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {"source": {"folder": "hub"}}

    source: Literal["folder", "cifar10", "mnist", "fashion", "digits"] = runtime_field("folder")
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
        """Whether the images come from the user instead of from the recipe."""
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
            raise RequestError(f"{flag}.revision only works with a data set on the hub: name one with {flag}.hub")
        if self.test_share is not None and self.root is None:
            raise RequestError(
                f"{flag}.test-share only works with your own class folders: pass their path with {flag}.root"
            )
        if self.background != "white" and self.source in (*GRAY_SOURCES, "cifar10") and not self.is_own:
            raise RequestError(f"{flag}.background has no effect: {self.source} has no transparent pixels")
        if self.download and (self.source in ("folder", "digits") or self.is_own):
            raise RequestError(f"{flag}.download only works with CIFAR-10, MNIST, and Fashion-MNIST")


@dataclass(frozen=True)
class Crop:
    """Random shift and horizontal flip of an image that already has its final size.

    Attributes:
        pad: Maximum shift in pixels. Pixels from outside the image are black (before normalization).
        flip: Flip each image horizontally with probability 0.5.
    """

    kind: ClassVar[str] = "crop"
    pad: Annotated[int, Range(ge=0, le=1024)] = 4
    flip: bool = True


@dataclass(frozen=True)
class TorchvisionAugment:
    """RandomResizedCrop, horizontal flip, and an optional policy, on uint8 tensors.

    Attributes:
        flip: Flip each image horizontally with probability 0.5.
        policy: Augmentation policy: none, or AutoAugment's ImageNet policy.
    """

    kind: ClassVar[str] = "torchvision"
    flip: bool = True
    policy: Literal["none", "autoaugment"] = "none"


@dataclass(frozen=True)
class TimmAugment:
    """timm's training pipeline on PIL images: RandomResizedCrop, flip, RandAugment or color jitter, random erasing.

    Attributes:
        flip: Flip each image horizontally with probability 0.5.
        rand_augment: RandAugment in timm's notation, such as `rand-m9-mstd0.5`; empty for none.
        erase: Probability of random erasing; erased pixels are filled with noise.
        color_jitter: Color jitter factor. timm ignores it when RandAugment is on.
        draw_interpolation: Choose bilinear or bicubic at random for each image and each RandAugment operation. Only
            matters with --data.interpolation bicubic; with bilinear, timm always draws it.
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
                f"timm ignores {flag}.color-jitter when {flag}.rand-augment is set: set {flag}.color-jitter to 0"
            )


@dataclass(frozen=True)
class Mix:
    """MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019).

    Attributes:
        mixup: Alpha of MixUp's Beta distribution; 0 turns it off. With both on, each group of images uses one of them,
            chosen at random.
        cutmix: Alpha of CutMix's Beta distribution; 0 turns it off.
        group: Number of images that share one choice and one mixing ratio. In the paper this is the per-device batch.
    """

    kind: ClassVar[str] = "mix"
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    group: Samples = 128

    def check(self, flag: str) -> None:
        if not self.mixup and not self.cutmix:
            raise RequestError(f"{flag}.mixup or {flag}.cutmix must be above 0; to turn both off, pass {flag} none")


@dataclass(frozen=True, kw_only=True)
class VisionConfig(EpochConfig):
    """A golu-vision recipe: the full configuration of a run."""

    model: Model = Model()
    data: Data = Data()
    augment: Crop | TorchvisionAugment | TimmAugment = TorchvisionAugment()
    repeats: PositiveInt = 1
    """Repeated augmentation: augmented copies of each image per epoch. The length of an epoch stays the same."""
    mix: Mix | None = None
    """MixUp and CutMix settings."""
    average: WeightAverage | None = None
    """Exponential moving average (EMA) of the weights."""
    label_smoothing: Fraction = 0.0
    """Label smoothing in the training loss."""
    batch_norm: BatchNorm = added_field("synchronized")
    """Let batch norm normalize over the images of all processes (`synchronized`), or over `micro_batch_size` images on
    each process (`per_process`)."""

    def check(self, flag: str) -> None:
        drawn = isinstance(self.augment, TimmAugment) and self.augment.draw_interpolation
        if drawn and self.data.interpolation == "bilinear":
            raise RequestError(
                "with --data.interpolation bilinear, timm always draws the interpolation at random: pass "
                "--augment.no-draw-interpolation"
            )

    @property
    def default_activation(self) -> str:
        return self.model.default_activation

    @property
    def primary_metric(self) -> str:
        return "top1"
