"""The recipe of a denoising diffusion model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from golu_core.training import (
    EpochConfig,
    Fraction,
    NonNegativeInt,
    PositiveInt,
    RequestError,
    WeightAverage,
    added_field,
    runtime_field,
)
from golu_core.training.config import Background, FolderName, Range

OWN_PICTURES = "pictures"
"""Name of the data set for the user's own folder of images."""
_SMALLEST_NORMAL = 2.0**-126  # of float32; below it precision is lost, and many devices flush values to 0
_BELOW_ONE = 2.0**-24  # the difference between 1 and the largest float32 below it


@dataclass(frozen=True)
class Model:
    """The UNet of Ho et al. (2020), as the GoLU paper has it.

    Attributes:
        width: Channels of the first level.
        multipliers: Multiples of the width, one per level; each level but the last halves the image.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Levels with self-attention, counted from 0; the middle always has it.
        groups: Groups of the group norms.
        dropout: Dropout in the residual blocks.
    """

    width: PositiveInt = 128
    multipliers: tuple[PositiveInt, ...] = (1, 2, 2, 2)
    blocks: PositiveInt = 2
    attention: tuple[NonNegativeInt, ...] = (1,)
    groups: PositiveInt = 32
    dropout: Fraction = 0.1

    @property
    def factor(self) -> int:
        """The ratio of the image's side to that of the last level."""
        return int(2 ** (len(self.multipliers) - 1))

    def check(self, flag: str) -> None:
        if self.width % 2 or not 1 <= len(self.multipliers) <= 12:
            raise RequestError(f"{flag}.width must be even, and {flag}.multipliers must have 1 to 12 levels")
        if any(level >= len(self.multipliers) for level in self.attention):
            raise RequestError(f"{flag}.attention {self.attention} names a level that does not exist")
        if list(self.attention) != sorted(set(self.attention)):
            raise RequestError(f"{flag}.attention must name each level once, in order, not {self.attention}")
        if any(self.width * multiplier % self.groups for multiplier in self.multipliers):
            raise RequestError(f"{flag}.groups {self.groups} does not divide the channels of each level")


@dataclass(frozen=True)
class Noise:
    """The forward process: variances that grow linearly (Ho et al., section 4).

    Attributes:
        steps: Number of steps, T.
        beta_start: Variance of the first step, beta_1.
        beta_end: Variance of the last step, beta_T.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"beta_start": "first", "beta_end": "last"}

    steps: Annotated[int, Range(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Range(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Range(gt=0, lt=1)] = 0.02

    @property
    def log_remaining(self) -> float:
        """The logarithm of alpha_bar_T, the remaining fraction of the image's variance after the last step."""
        rise = (self.beta_end - self.beta_start) / max(1, self.steps - 1)
        return math.fsum(math.log1p(-(self.beta_start + step * rise)) for step in range(self.steps))

    def check(self, flag: str) -> None:
        if self.beta_start > self.beta_end:
            raise RequestError(f"{flag}.beta-start {self.beta_start} must not be above {flag}.beta-end {self.beta_end}")
        if self.beta_start < _BELOW_ONE:
            raise RequestError(
                f"{flag}.beta-start {self.beta_start:g} vanishes next to 1 in float32: use at least {_BELOW_ONE:.1e}"
            )
        if self.log_remaining < math.log(_SMALLEST_NORMAL):
            raise RequestError(
                f"{self.steps:,} steps with variances from {self.beta_start:g} to {self.beta_end:g} leave "
                f"10^{self.log_remaining / math.log(10):.0f} of an image's variance, which underflows in float32, so "
                f"that every drawn image would be NaN: lower {flag}.steps or {flag}.beta-end"
            )


@dataclass(frozen=True)
class Data:
    """Where images come from.

    Attributes:
        name: `celeba`, `digits` or `pictures`, which are your own; also the folder in --data-dir and the data set's
            name in results.
        images: Folder with your own images. Unless `test_images` is set, every tenth image by name is a test image.
        test_images: Folder with your own test images.
        hub: Id on the hub or local copy for `datasets`, with splits train and valid.
        size: Side of the square images in pixels.
        channels: 3 for color, 1 for gray: color images lose theirs as Pillow's `L` takes it.
        flip: Mirror every other training image.
        background: Color behind transparent pixels.
        train_size: Number of training images in the published data set, 0 if unknown. If yours differs, the run prints
            a note and records it in result.json.
        test_size: Number of test images in the published data set, 0 if unknown.
    """

    name: FolderName = runtime_field("celeba")
    images: Path | None = runtime_field(None)
    test_images: Path | None = runtime_field(None)
    hub: str | None = runtime_field(None)
    size: Annotated[int, Range(ge=1, le=4096)] = 64
    channels: Literal[1, 3] = 3
    flip: bool = True
    background: Background = "white"
    train_size: NonNegativeInt = runtime_field(0)
    test_size: NonNegativeInt = runtime_field(0)

    @property
    def is_own(self) -> bool:
        """Whether the images are the user's own, not the recipe's."""
        return self.images is not None or self.hub is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image as input to the network: (C, size, size)."""
        return self.channels, self.size, self.size

    @property
    def title(self) -> str:
        """The data set's name in results."""
        if self.images is not None:
            return self.images.resolve().name or "images"
        return self.name if self.hub is None else self.hub

    def check(self, flag: str) -> None:
        if self.images is not None and self.hub is not None:
            raise RequestError(f"{flag}.images and {flag}.hub cannot be combined")
        if self.test_images is not None and self.images is None:
            raise RequestError(
                f"{flag}.test-images is for your own images: pass the training images with {flag}.images"
            )
        if self.background != "white" and not self.is_own:
            raise RequestError(f"{flag}.background is for transparent pixels, and {self.name} has none")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(EpochConfig):
    """A golu-diffusion recipe: the full configuration of a run."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"eval_noise_draws": "eval_draws"}

    model: Model = Model()
    noise: Noise = Noise()
    data: Data = Data()
    average: WeightAverage | None = None
    """Exponential moving average (EMA) of the weights."""
    eval_noise_draws: PositiveInt = 1
    """Number of noise draws per test image in evaluation."""
    samples: NonNegativeInt = runtime_field(16)
    """Images drawn after each epoch, as a grid in samples/; 0 for none."""
    sample_steps: PositiveInt | None = runtime_field(None)
    """Sample these images with DDIM in this many steps; by default with all of DDPM's."""
    fid_images: NonNegativeInt = 0
    """Number of images to draw after training for the Fréchet inception distance (FID). They are compared with the
    first test images, the same number of them. Needs the extra `fid`."""
    fid_weights: Path | None = runtime_field(None)
    """File with torch-fidelity's inception weights; by default they are downloaded."""
    drop_last: bool = True
    """Drop the images that do not fill the epoch's last batch; otherwise the epoch's first images fill it."""
    device_noise: bool = added_field(False)
    """Draw the noise of a whole batch at once, on the device: faster on a GPU; other numbers on each kind of device."""

    @property
    def default_activation(self) -> str:
        return "swish"

    @property
    def primary_metric(self) -> str:
        return "loss"

    def check(self, flag: str) -> None:
        if self.data.size % self.model.factor:
            raise RequestError(
                f"--data.size {self.data.size} cannot be halved {len(self.model.multipliers) - 1} times: "
                f"use a multiple of {self.model.factor}"
            )
        if self.sample_steps is not None and self.sample_steps > self.noise.steps:
            raise RequestError(
                f"--sample-steps {self.sample_steps} is not between 1 and the {self.noise.steps} steps of the process"
            )
        if self.fid_weights is not None and not self.fid_images:
            raise RequestError("--fid-weights is used only with --fid-images, which is 0")
