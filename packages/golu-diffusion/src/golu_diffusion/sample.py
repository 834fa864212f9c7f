"""Images from a trained network: grids, single files, films, and interpolations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from golu_core.training.cli import parsed_flags, run_directory
from golu_core.training.errors import RequestError
from golu_core.training.evaluation import Evaluation
from golu_core.training.fields import Amount, Count, Range, Samples, Seed
from golu_core.training.finished import FinishedRun
from golu_core.training.images import png_writer, read_image
from golu_core.training.ownership import MADE_BY, check_output, write_atomically, write_output
from golu_core.training.processes import Processes
from golu_core.training.text_sinks import console

from .config import DiffusionConfig
from .data import as_trained_on, pixels_of, scaled
from .diffusion import Diffusion, Predictor, Variance, batch_noise, check_sampling, in_fixed_batches, sampled
from .evaluate import load_run

_FRAMES = 60


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        sampler, steps, seed, eta, variance, clip: as in `sampled`.
        batch_size: images that the network takes at once. Networks round differently in batches of different sizes, so
            that images are equal up to rounding; unless they are
        exact: the network takes 16 images each time, filled up where there are fewer, so that each image is the same to
            the last bit in any batch and on any number of processes.
    """

    sampler: str
    steps: int | None
    seed: int
    batch_size: int
    eta: float = 0.0
    variance: Variance = "beta"
    clip: bool = True
    exact: bool = False


def draw(
    processes: Processes,
    model: nn.Module,
    diffusion: Diffusion,
    shape: tuple[int, int, int],
    count: int,
    sampling: Sampling,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Images number 0 to `count` - 1, drawn by all processes together, the same on each of them.

    Args:
        processes: that draw together.
        model: predicts the noise of (N, *shape) float32 images at (N,) int64 steps.
        diffusion: the noise at each step.
        shape: of an image, (C, size, size).
        count: of images.
        sampling: how they are drawn.
        watch: is called after each step with its number and the images of this process's batch.

    Returns:
        (count, *shape) uint8.
    """
    model.eval()
    mine = list(range(processes.rank, count, processes.count))
    drawn: list[tuple[int, Tensor]] = []
    for start in range(0, len(mine), sampling.batch_size):
        numbers = mine[start : start + sampling.batch_size]
        x = None
        steps = sampled(
            diffusion,
            _predictor(processes, model, sampling.exact),
            numbers,
            shape,
            seed=sampling.seed,
            sampler=sampling.sampler,
            steps=sampling.steps,
            eta=sampling.eta,
            variance=sampling.variance,
            clip=sampling.clip,
            device=processes.device,
        )
        for number, x in enumerate(steps):
            if watch is not None:
                watch(number, x)
        assert x is not None
        drawn += zip(numbers, pixels_of(x), strict=True)
    by_number = dict(processes.gathered(drawn))
    return torch.stack([by_number[number] for number in range(count)])


def _predictor(processes: Processes, model: nn.Module, exact: bool) -> Predictor:
    def predict(x: Tensor, steps: Tensor) -> Tensor:
        with processes.autocast() if processes.device.type != "cpu" else nullcontext():
            noise: Tensor = model(x, steps)
        return noise.float()

    return in_fixed_batches(predict) if exact else predict


def save_grid(path: Path, images: Tensor) -> None:
    """Writes (N, C, H, W) uint8 images side by side, enlarged if they are small, as PNG into a folder of ours."""
    write_atomically(path, png_writer(_grid(images)))


def _grid(images: Tensor, columns: int | None = None) -> Any:
    factor = max(1, 64 // images.shape[-1])
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    grid = make_grid(large, nrow=columns or max(1, round(len(images) ** 0.5)), padding=2)
    return to_pil_image(grid[: images.shape[1]])  # make_grid gives gray three channels


@dataclass(frozen=True)
class SampleFlags:
    """What `golu-diffusion sample` draws, and where to."""

    count: Count = 16
    """How many images."""
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """`ddpm`, or `ddim`, which needs fewer steps."""
    steps: Count | None = None
    """Steps of DDIM; by default 50."""
    eta: Annotated[float, Range(least=0, most=1)] | None = None
    """Noise of DDIM: by default 0, none; 1 is as much as DDPM's with the posterior's variance."""
    variance: Variance | None = None
    """Variance of DDPM: by default `beta` (elsewhere fixed large), or `posterior` (fixed small)."""
    seed: Seed = 0
    """Seed of the noise; image K of a seed is always the same."""
    batch_size: Samples = 64
    """Images that a device draws at once; with another number they are equal up to rounding."""
    exact: bool = False
    """Draw 16 at a time whatever the batch size, so that each image is the same to the last bit everywhere."""
    weights: Literal["evaluated", "average", "last"] = "evaluated"
    """Draw from the weights that the run's metric is of, from their moving average, or from the last ones."""
    clip: bool = True
    """Keep predicted images in range at each step, as Ho et al.'s own code does, and the GoLU paper's does not."""
    grid: Path = Path("samples.png")
    """PNG file for all images side by side."""
    out: Path | None = None
    """Folder for single images."""
    gif: Path | None = None
    """GIF file for a film of the first batch."""


def sample_command(arguments: Sequence[str]) -> None:
    """`golu-diffusion sample RUN_DIR [flags]`."""
    usage = "golu-diffusion sample RUN_DIR"
    folder, rest = run_directory(arguments, usage)
    flags = parsed_flags(SampleFlags, rest, usage)
    _check_files(flags)
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config
    check_sampling(flags.sampler, flags.steps, config.noise.steps, flags.eta, flags.variance)
    model = load_run(finished, flags.weights)
    total = config.noise.steps if flags.sampler == "ddpm" else flags.steps or 50
    with Evaluation(config, folder) as evaluation, _bar(evaluation.processes, total, flags.count) as advance:
        processes = evaluation.processes
        frames: list[Any] = []

        def watch(number: int, x: Tensor) -> None:
            if (
                flags.gif is not None
                and processes.is_main
                and (number % max(1, total // _FRAMES) == 0 or number == total - 1)
            ):
                frames.append(_grid(pixels_of(x)))
            advance(len(x))

        sampling = Sampling(
            flags.sampler,
            flags.steps,
            flags.seed,
            flags.batch_size,
            eta=flags.eta or 0.0,
            variance=flags.variance or "beta",
            clip=flags.clip,
            exact=flags.exact,
        )
        diffusion = Diffusion(config.noise, processes.device)
        model.to(processes.device)
        images = draw(processes, model, diffusion, config.data.shape, flags.count, sampling, watch)
        if processes.is_main:
            write_output(flags.grid, png_writer(_grid(images)))
            for number, image in enumerate(images) if flags.out is not None else ():
                assert flags.out is not None
                write_output(_single(flags.out, number), png_writer(_grid(image[None])))
            if flags.gif is not None:
                _save_film(flags.gif, frames)
        processes.say(f"drawn: {flags.count} images, {flags.grid}")


def _single(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.png"


def _check_files(flags: SampleFlags) -> None:
    """Raises RequestError for files that cannot be written, before anything is drawn."""
    _check_suffix("--grid", flags.grid, ".png")
    check_output(flags.grid)
    if flags.gif is not None:
        _check_suffix("--gif", flags.gif, ".gif")
        check_output(flags.gif)
    if flags.out is not None:
        for number in range(flags.count):
            check_output(_single(flags.out, number))


def _check_suffix(flag: str, path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise RequestError(f"{flag} {path} must end in {suffix}, the format that is written")


def _save_film(path: Path, frames: Sequence[Any]) -> None:
    first, *others = [frame for frame in frames if frame.size == frames[0].size]
    pauses = [80] * len(others) + [1500]

    def write(partial: Path) -> None:
        options: dict[str, Any] = {"append_images": others, "duration": pauses, "loop": 0, "comment": MADE_BY}
        first.save(partial, format="gif", save_all=True, **options)

    write_output(path, write)


@contextmanager
def _bar(processes: Processes, steps: int, count: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, on the main process; gives a function that takes images times steps done."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), disable=not processes.is_main) as progress:
        task = progress.add_task("sampling", total=steps * -(-count // processes.count))
        yield lambda done: progress.advance(task, done)


@dataclass(frozen=True)
class InterpolateFlags:
    """How `golu-diffusion interpolate` goes from one image to another."""

    at: Amount = 500
    """Step of the forward process at which the two are mixed: the later, the freer."""
    points: Count = 10
    """Images between the two."""
    seed: Seed = 0
    """Seed of the noise."""
    weights: Literal["evaluated", "average", "last"] = "evaluated"
    """Take the weights that the run's metric is of, their moving average, or the last ones."""
    grid: Path = Path("interpolation.png")
    """PNG file for the row of images."""


def interpolate_command(arguments: Sequence[str]) -> None:
    """`golu-diffusion interpolate RUN_DIR IMAGE IMAGE [flags]` (Ho et al., section 4.3)."""
    usage = "golu-diffusion interpolate RUN_DIR IMAGE IMAGE"
    if len(arguments) < 3 or any(word.startswith("--") for word in arguments[:3]):
        raise RequestError(f"usage: {usage} [flags]")
    folder, rest = run_directory(arguments, usage)
    flags = parsed_flags(InterpolateFlags, rest[2:], usage)
    _check_suffix("--grid", flags.grid, ".png")
    check_output(flags.grid)
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config
    if flags.at >= config.noise.steps:
        raise RequestError(f"--at must be 0 to {config.noise.steps - 1}, not {flags.at}")
    data = config.data
    ends = torch.stack([as_trained_on(read_image(Path(p), background=data.background), data) for p in rest[:2]])
    model = load_run(finished, flags.weights)
    with Evaluation(config, folder) as evaluation:
        device = evaluation.device
        diffusion = Diffusion(config.noise, device)
        model.to(device).eval()
        # one noise for both, as in the paper's figure 8, so that only the images are mixed
        noise = batch_noise(flags.seed, [0], "interpolate", ends.shape[1:], device)
        noisy = diffusion.noised(scaled(ends, device), torch.tensor([flags.at] * 2, device=device), noise)
        weights = torch.linspace(0, 1, flags.points + 2, device=device)[1:-1, None, None, None]
        between = (1 - weights) * noisy[:1] + weights * noisy[1:]
        numbers = [0] * flags.points  # the same draws for all, for the same reason
        steps = sampled(
            diffusion,
            _predictor(evaluation.processes, model, exact=True),
            numbers,
            ends.shape[1:],
            seed=flags.seed,
            start=between,
            from_step=flags.at,
            device=device,
        )
        x = deque(steps, maxlen=1).pop()
        if evaluation.is_main:
            row = _grid(torch.cat([ends[:1], pixels_of(x), ends[1:]]), columns=flags.points + 2)
            write_output(flags.grid, png_writer(row))
        evaluation.processes.say(f"drawn: {flags.grid}")
