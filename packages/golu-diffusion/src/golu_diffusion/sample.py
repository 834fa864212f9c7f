"""Images from a trained network: grids, single files, films, and interpolations."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from golu_core.training.checkpoint import write_atomically
from golu_core.training.errors import RequestError
from golu_core.training.folder import read_config
from golu_core.training.images import decode
from golu_core.training.run import Run

from .config import DiffusionConfig
from .data import fitted, pixels_of, scaled
from .diffusion import Diffusion, batch_noise, check_sampling, in_fixed_batches, sampled
from .evaluate import PRIMARY, UNIT, load_run

_FRAMES = 60


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        sampler, steps, seed: as in `sampled`.
        batch_size: images that the network takes at once; changes nothing but speed.
        clip: keep predicted images in range.
    """

    sampler: str
    steps: int | None
    seed: int
    batch_size: int
    clip: bool = True


def draw(
    run: Run[DiffusionConfig],
    model: nn.Module,
    diffusion: Diffusion,
    count: int,
    sampling: Sampling,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Images number 0 to `count` - 1, drawn by all processes together, the same on each of them.

    Args:
        watch: is called behind each step with its number and the images of this process's batch.

    Returns:
        (count, 3, size, size) uint8.
    """
    model.eval()
    size = run.config.data.size
    mine = list(range(run.rank, count, run.world_size))
    drawn: dict[int, Tensor] = {}
    for start in range(0, len(mine), sampling.batch_size):
        numbers = mine[start : start + sampling.batch_size]
        x = None
        steps = sampled(
            diffusion,
            _predictor(run, model),
            numbers,
            (3, size, size),
            seed=sampling.seed,
            sampler=sampling.sampler,
            steps=sampling.steps,
            clip=sampling.clip,
            device=run.device,
        )
        for number, x in enumerate(steps):
            if watch is not None:
                watch(number, x)
        assert x is not None
        drawn |= dict(zip(numbers, pixels_of(x), strict=True))
    if run.world_size > 1:
        parts: list[dict[int, Tensor]] = [{} for _ in range(run.world_size)]
        torch.distributed.all_gather_object(parts, drawn)
        drawn = {number: image for part in parts for number, image in part.items()}
    return torch.stack([drawn[number] for number in range(count)])


def _predictor(run: Run[DiffusionConfig], model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def predict(x: Tensor, steps: Tensor) -> Tensor:
        with run.accelerator.autocast() if run.device.type != "cpu" else nullcontext():
            noise: Tensor = model(x, steps)
        return noise.float()

    return in_fixed_batches(predict)


def save_grid(path: Path, images: Tensor, columns: int | None = None) -> None:
    """Writes (N, 3, H, W) uint8 images side by side, enlarged if they are small, as PNG."""
    picture = _grid(images, columns)
    write_atomically(path, lambda partial: picture.save(partial, format="png"))


def _grid(images: Tensor, columns: int | None = None) -> Any:
    factor = max(1, 64 // images.shape[-1])
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return to_pil_image(make_grid(large, nrow=columns or max(1, round(len(images) ** 0.5)), padding=2))


@dataclass(frozen=True)
class SampleFlags:
    """What `golu-diffusion sample` draws, and where to."""

    count: int = 16
    """How many images."""
    sampler: str = "ddpm"
    """`ddpm`, or `ddim`, which needs fewer steps."""
    steps: int | None = None
    """Of DDIM; by default 50."""
    seed: int = 0
    """Image K of a seed is always the same."""
    batch_size: int = 64
    """Images that a device takes at once; it does not change them."""
    average: bool = False
    """Draw from the moving average of the weights."""
    clip: bool = True
    """Keep predicted images in range at each step, as Ho et al.'s own code does; the GoLU paper's code does not."""
    grid: Path = Path("samples.png")
    """All images side by side."""
    out: Path | None = None
    """A folder for single images."""
    gif: Path | None = None
    """A film of the first batch."""


def sample_command(arguments: Sequence[str]) -> None:
    """`golu-diffusion sample RUN_DIR [flags]`."""
    folder, rest = _folder(arguments)
    flags = tyro.cli(SampleFlags, args=rest, prog="golu-diffusion sample RUN_DIR")
    config = _config(folder)
    if flags.count < 1 or flags.batch_size < 1:
        raise RequestError("--count and --batch-size must be at least 1")
    check_sampling(flags.sampler, flags.steps, config.noise.steps)
    model = load_run(folder, config, flags.average)
    with Run(config, task="diffusion", unit=UNIT, primary=PRIMARY, folder=folder) as run, _bar(run, flags) as advance:
        frames: list[Any] = []
        total = config.noise.steps if flags.sampler == "ddpm" else flags.steps or 50

        def watch(number: int, x: Tensor) -> None:
            if (
                flags.gif is not None
                and run.is_main
                and (number % max(1, total // _FRAMES) == 0 or number == total - 1)
            ):
                frames.append(_grid(pixels_of(x)))
            advance(len(x))

        sampling = Sampling(flags.sampler, flags.steps, flags.seed, flags.batch_size, flags.clip)
        images = draw(run, model.to(run.device), Diffusion(config.noise, run.device), flags.count, sampling, watch)
        if run.is_main:
            save_grid(flags.grid, images)
            for number, image in enumerate(images) if flags.out is not None else ():
                assert flags.out is not None
                save_grid(flags.out / f"{number:06d}.png", image[None])
            if flags.gif is not None:
                _save_film(flags.gif, frames)
        run.say(f"drawn: {flags.count} images, {flags.grid}")


def _save_film(path: Path, frames: Sequence[Any]) -> None:
    first, *others = [frame for frame in frames if frame.size == frames[0].size]
    pauses = [80] * len(others) + [1500]

    def write(partial: Path) -> None:
        first.save(partial, format="gif", save_all=True, append_images=others, duration=pauses, loop=0)

    write_atomically(path, write)


@contextmanager
def _bar(run: Run[DiffusionConfig], flags: SampleFlags) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, on the main process; gives a function that takes images times steps done."""
    from rich.console import Console
    from rich.progress import Progress

    steps = run.config.noise.steps if flags.sampler == "ddpm" else flags.steps or 50
    with Progress(console=Console(stderr=True), disable=not run.is_main) as progress:
        task = progress.add_task("sampling", total=steps * -(-flags.count // run.world_size))
        yield lambda done: progress.advance(task, done)


@dataclass(frozen=True)
class InterpolateFlags:
    """How `golu-diffusion interpolate` goes from one image to another."""

    at: int = 500
    """Step of the forward process at which the two are mixed: the later, the freer."""
    points: int = 10
    """Images between the two."""
    seed: int = 0
    """Of the noise."""
    average: bool = False
    """Take the moving average of the weights."""
    grid: Path = Path("interpolation.png")
    """The row of images."""


def interpolate_command(arguments: Sequence[str]) -> None:
    """`golu-diffusion interpolate RUN_DIR IMAGE IMAGE [flags]` (Ho et al., section 4.3)."""
    folder, rest = _folder(arguments)
    if len(rest) < 2 or any(word.startswith("--") for word in rest[:2]):
        raise RequestError("usage: golu-diffusion interpolate RUN_DIR IMAGE IMAGE [flags]")
    flags = tyro.cli(InterpolateFlags, args=rest[2:], prog="golu-diffusion interpolate RUN_DIR IMAGE IMAGE")
    config = _config(folder)
    if not 0 <= flags.at < config.noise.steps or flags.points < 1:
        raise RequestError(f"--at must be 0 to {config.noise.steps - 1}, and --points at least 1")
    ends = torch.stack([fitted(_read(Path(path)), config.data.size) for path in rest[:2]])
    model = load_run(folder, config, flags.average)
    with Run(config, task="diffusion", unit=UNIT, primary=PRIMARY, folder=folder) as run:
        diffusion = Diffusion(config.noise, run.device)
        model.to(run.device).eval()
        # one noise for both, as in the paper's figure 8, so that only the images are mixed
        noise = batch_noise(flags.seed, [0], "interpolate", ends.shape[1:], run.device)
        noisy = diffusion.noised(scaled(ends, run.device), torch.tensor([flags.at] * 2, device=run.device), noise)
        weights = torch.linspace(0, 1, flags.points + 2, device=run.device)[1:-1, None, None, None]
        between = (1 - weights) * noisy[:1] + weights * noisy[1:]
        numbers = [0] * flags.points  # the same draws for all, for the same reason
        steps = sampled(
            diffusion,
            _predictor(run, model),
            numbers,
            ends.shape[1:],
            seed=flags.seed,
            start=between,
            from_step=flags.at,
            device=run.device,
        )
        x = deque(steps, maxlen=1).pop()
        if run.is_main:
            save_grid(flags.grid, torch.cat([ends[:1], pixels_of(x), ends[1:]]), columns=flags.points + 2)
        run.say(f"drawn: {flags.grid}")


def _folder(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    if not arguments or arguments[0] in ("-h", "--help"):
        return Path(), ["--help"]
    return Path(arguments[0]), list(arguments[1:])


def _config(folder: Path) -> DiffusionConfig:
    config = read_config(folder, DiffusionConfig)
    return dataclasses.replace(config, tracker="none", overwrite=False)


def _read(path: Path) -> Tensor:
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise RequestError(f"the image {path} cannot be read: {error.strerror}") from None
