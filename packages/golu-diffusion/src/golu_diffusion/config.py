"""What a golu-diffusion recipe consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from golu_core.training.config import RunConfig, placement
from golu_core.training.optim import Optim, WeightAverage
from golu_core.training.schedules import Schedule


@dataclass(frozen=True)
class Model:
    """The UNet of Ho et al. (2020), as the GoLU paper has it.

    Attributes:
        width: channels of the first level.
        multipliers: of the width, a level each; each level but the last halves the image.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: levels with self-attention, counted from 0; the middle always has it.
        groups: of the group norms.
        dropout: in the residual blocks.
        own_activation: the activation of the network as published, which is swapped.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    groups: int = 32
    dropout: float = 0.1
    own_activation: str = "swish"


@dataclass(frozen=True)
class Noise:
    """The forward process: variances that grow linearly (Ho et al., section 4).

    Attributes:
        steps: T.
        first, last: beta of step 1 and of step T.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02


@dataclass(frozen=True)
class Data:
    """Where images come from.

    Attributes:
        name: `celeba` and `digits` are known; also the folder below --data-dir and the data set's name in results.
        images: a folder of images of your own, of which every tenth, by name, is for the test.
        hub: id on the hub or local copy for `datasets`, with splits train and valid.
        size: images are size x size pixels.
        flip: mirror every other training image.
        train_size, test_size: as published; a difference is said and noted in result.json. 0 if not known.
    """

    name: str = "celeba"
    images: Path | None = None
    hub: str | None = None
    size: int = 64
    flip: bool = True
    train_size: int = 0
    test_size: int = 0


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(RunConfig):
    """A golu-diffusion recipe: everything that a run of it needs."""

    model: Model = Model()
    noise: Noise = Noise()
    data: Data = Data()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    average: WeightAverage = WeightAverage(decay=0.0)
    """Moving average of the weights, from which samples can be drawn; decay 0 is off."""
    epochs: int = 50
    """Passes over the training set."""
    batch_size: int = 64
    """Images of one optimizer step, over all processes."""
    max_device_batch: int | None = placement(None)
    """Images that a device takes at once; a larger share of the batch is accumulated."""
    eval_batch: int = placement(64)
    """Images that a device takes at once in evaluation and sampling."""
    eval_draws: int = 1
    """How often each test image is noised in evaluation."""
    warmup_steps: int = 0
    """Linear warm-up; the cosine begins behind it, with its full length."""
    clip: float | None = None
    """Largest norm of the gradient."""
    samples: int = placement(16)
    """Images drawn after each epoch, as a grid in samples/; 0 for none."""
    sample_steps: int | None = placement(None)
    """Steps of these samples, by DDIM; by default all of DDPM's."""
    fid_images: int = placement(0)
    """At the end, draw so many images for the Frechet inception distance to the test images; needs the extra `fid`."""
    fid_weights: Path | None = placement(None)
    """The inception network's weights as torch-fidelity has them; by default it downloads them."""
    drop_last: bool = True
    """Leave out the images that do not fill the epoch's last batch."""

    @property
    def own_activation(self) -> str:
        return self.model.own_activation
