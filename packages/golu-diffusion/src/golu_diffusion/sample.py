"""Sample images from a trained network: grids, single files, animations, and interpolations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from golu_core.training import Evaluation, FinishedRun, NonNegativeInt, PositiveInt, Processes, RequestError, Seed
from golu_core.training.config import Range, Samples
from golu_core.training.data import png_writer, read_image
from golu_core.training.messages import console
from golu_core.training.storage import (
    MADE_BY,
    check_output,
    no_empty_parents,
    to_be_written,
    write_atomically,
    write_output,
)
from golu_core.training.tasks import parsed_run_flags

from .config import DiffusionConfig
from .data import as_trained_on, pixels_of, scaled
from .diffusion import Diffusion, Variance, batch_noise, check_sampling, sampled
from .drawing import Sampling, drawn, predictor
from .drawn_folder import DrawnFolder, only_here
from .evaluate import load_run, weights_file

_FRAMES = 60
_MOST_IN_GRID = 1024  # 32 x 32, as many images as one picture can show


def save_grid(path: Path, images: Tensor) -> None:
    """Write (N, C, H, W) uint8 images as a PNG grid, enlarged if they are small, to a folder of this program."""
    write_atomically(path, png_writer(_grid(images)))


def _grid(images: Tensor, columns: int | None = None) -> Any:
    factor = max(1, 64 // images.shape[-1])
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    grid = make_grid(large, nrow=columns or max(1, round(len(images) ** 0.5)), padding=2)
    return to_pil_image(grid[: images.shape[1]])  # make_grid expands gray images to three channels


@dataclass(frozen=True)
class SampleFlags:
    """Draw images from a finished run."""

    count: PositiveInt = 16
    """Number of images to draw."""
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """`ddpm`, or `ddim`, which needs fewer steps."""
    steps: PositiveInt | None = None
    """Steps of DDIM; by default 50."""
    eta: Annotated[float, Range(ge=0, le=1)] | None = None
    """DDIM's eta. Defaults to 0, which adds no noise; 1 adds as much as DDPM with the posterior variance."""
    variance: Variance | None = None
    """Variance of DDPM: by default `beta` (elsewhere fixed large), or `posterior` (fixed small)."""
    seed: Seed = 0
    """Seed for the noise. Image K of a seed is always the same."""
    batch_size: Samples = 64
    """Batch size per device. Other values draw the same images up to rounding."""
    exact: bool = False
    """Draw 16 at a time whatever the batch size, so that each image is the same to the last bit everywhere."""
    weights: Literal["evaluated", "average", "last"] = "evaluated"
    """Draw from the weights that the run's metric is of, from their moving average, or from the last ones."""
    clip: bool = True
    """Keep predicted images in range at each step, as Ho et al.'s own code does, and the GoLU paper's does not."""
    grid: Path = Path("samples.png")
    """PNG file for the images side by side, at most the first 1,024; small images are enlarged."""
    out: Path | None = None
    """Folder for single images, each written as it is drawn, at its own size. If the command is stopped, the same
    command continues in it."""
    gif: Path | None = None
    """GIF file for a film of the first batch."""


def sample_command(arguments: Sequence[str]) -> None:
    """Run `golu-diffusion sample RUN_DIR [flags]`.

    Raises:
        RequestError: The request is invalid, or a file cannot be written.
        RunFailure: An image is not finite.
    """
    folder, flags = parsed_run_flags(SampleFlags, arguments, "golu-diffusion sample")
    _check_files(flags)
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config
    check_sampling(flags.sampler, flags.steps, config.noise.steps, flags.eta, flags.variance)
    model = load_run(finished, flags.weights)
    with Evaluation(config, folder) as evaluation, ExitStack() as outputs:
        processes = evaluation.processes
        settings = _settings(flags, finished, processes.count)
        out, present = processes.broadcast(lambda: _begun(flags, settings, outputs))
        if present:
            processes.say(f"continuing: {len(present):,} of {flags.count:,} images are in {flags.out}")
        diffusion = Diffusion(config.noise, processes.device)
        film = _Film(processes, flags.gif is not None, config.noise.steps if flags.sampler == "ddpm" else _steps(flags))
        left_out = set(present) - (set(range(flags.batch_size * processes.count)) if flags.gif is not None else set())
        grid: dict[int, Tensor] = {}
        with _bar(processes, film.steps, flags.count - len(left_out)) as advance:

            def watch(batch: int, step: int, x: Tensor) -> None:
                film.watch(batch, step, x)
                advance(len(x))

            rounds = drawn(
                processes,
                model.to(processes.device),
                diffusion,
                config.data.shape,
                flags.count,
                _sampling(flags),
                present=left_out,
                watch=watch,
            )
            for images in rounds:
                grid |= {number: image for number, image in images.items() if number < _MOST_IN_GRID}
                if out is not None and processes.is_main:
                    for number in sorted(images.keys() - present):
                        out.write(number, images[number])
        if processes.is_main:
            _write_pictures(flags, out, grid, film)
        some = "" if flags.count <= _MOST_IN_GRID else f" with the first {_MOST_IN_GRID:,}"
        processes.say(f"drawn: {flags.count} images, {flags.grid}{some}")


def _sampling(flags: SampleFlags) -> Sampling:
    return Sampling(
        flags.sampler,
        flags.steps,
        flags.seed,
        flags.batch_size,
        eta=flags.eta or 0.0,
        variance=flags.variance or "beta",
        clip=flags.clip,
        exact=flags.exact,
    )


def _steps(flags: SampleFlags) -> int:
    return flags.steps or 50


def _settings(flags: SampleFlags, finished: FinishedRun[DiffusionConfig], processes: int) -> dict[str, Any]:
    """Return the settings that determine the images, bit by bit."""
    name = weights_file(finished.config, flags.weights)
    settings: dict[str, Any] = {
        "weights": finished.result.files.get(name),
        "--sampler": flags.sampler,
        "--steps": None if flags.sampler == "ddpm" else _steps(flags),
        "--eta": None if flags.sampler == "ddpm" else flags.eta or 0.0,
        "--variance": (flags.variance or "beta") if flags.sampler == "ddpm" else None,
        "--seed": flags.seed,
        "--clip": flags.clip,
        "--exact": flags.exact,
    }
    if not flags.exact:  # rounding depends on the number of images per batch
        settings |= {"--count": flags.count, "--batch-size": flags.batch_size, "processes": processes}
    return settings


def _begun(
    flags: SampleFlags, settings: dict[str, Any], outputs: ExitStack
) -> tuple[DrawnFolder | None, frozenset[int]]:
    """Check that all files can be written; return the folder of single images and the indices of its images."""
    for path in (flags.grid, flags.gif):
        outputs.enter_context(to_be_written(path))
    if flags.out is None:
        return None, frozenset()
    outputs.enter_context(no_empty_parents(flags.out))
    outputs.enter_context(only_here(flags.out))
    out = DrawnFolder(flags.out, settings)
    outputs.enter_context(to_be_written(out.file(0)))
    return out, frozenset(out.present(flags.count))


def _write_pictures(flags: SampleFlags, out: DrawnFolder | None, drawn_now: dict[int, Tensor], film: _Film) -> None:
    """Write the grid, with new and earlier images, and the animation."""
    numbers = range(min(flags.count, _MOST_IN_GRID))
    images = [drawn_now[n] if n in drawn_now or out is None else out.read(n) for n in numbers]
    write_output(flags.grid, png_writer(_grid(torch.stack(images))))
    if flags.gif is not None:
        _save_film(flags.gif, film.frames)


class _Film:
    """Grids of the main process's first batch at some of the steps, if requested."""

    def __init__(self, processes: Processes, is_wanted: bool, steps: int) -> None:
        self._takes = is_wanted and processes.is_main
        self.steps = steps
        self.frames: list[Any] = []

    def watch(self, batch: int, step: int, x: Tensor) -> None:
        """Record the images of a batch after a step."""
        if self._takes and batch == 0 and (step % max(1, self.steps // _FRAMES) == 0 or step == self.steps - 1):
            self.frames.append(_grid(pixels_of(x)))


def _check_files(flags: SampleFlags) -> None:
    """Raise RequestError for files that cannot be written, before sampling starts."""
    _check_suffix("--grid", flags.grid, ".png")
    check_output(flags.grid)
    if flags.gif is not None:
        _check_suffix("--gif", flags.gif, ".gif")
        check_output(flags.gif)
    if flags.count > _MOST_IN_GRID and flags.out is None:
        raise RequestError(
            f"--count {flags.count:,} needs a folder for single images by --out: the grid holds the first "
            f"{_MOST_IN_GRID:,}"
        )


def _check_suffix(flag: str, path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix:
        raise RequestError(f"{flag} {path} must end in {suffix}, the format that is written")


def _save_film(path: Path, frames: Sequence[Any]) -> None:
    first, *others = frames
    pauses = [80] * len(others) + [1500]

    def write(partial: Path) -> None:
        options: dict[str, Any] = {"append_images": others, "duration": pauses, "loop": 0, "comment": MADE_BY}
        first.save(partial, format="gif", save_all=True, **options)

    write_output(path, write)


@contextmanager
def _bar(processes: Processes, steps: int, count: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error of the main process; yield a function that advances it."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), disable=not processes.is_main) as progress:
        task = progress.add_task("sampling", total=max(1, steps * -(-count // processes.count)))
        yield lambda done: progress.advance(task, done)


@dataclass(frozen=True)
class InterpolateFlags:
    """Interpolate between two images with a finished run."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"timestep": "at"}

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image to start from."""
    last: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image to end with."""
    timestep: NonNegativeInt = 500
    """Step of the forward process at which the two are mixed: the later, the freer."""
    points: PositiveInt = 10
    """Images between the two."""
    seed: Seed = 0
    """Seed of the noise."""
    weights: Literal["evaluated", "average", "last"] = "evaluated"
    """Take the weights that the run's metric is of, their moving average, or the last ones."""
    grid: Path = Path("interpolation.png")
    """PNG file for the row of images."""


def interpolate_command(arguments: Sequence[str]) -> None:
    """Run `golu-diffusion interpolate RUN_DIR IMAGE IMAGE [flags]` (Ho et al., section 4.3).

    Raises:
        RequestError: The request is invalid.
        RunFailure: An image is not finite.
    """
    folder, flags = parsed_run_flags(InterpolateFlags, arguments, "golu-diffusion interpolate")
    _check_suffix("--grid", flags.grid, ".png")
    check_output(flags.grid)
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config
    if flags.timestep >= config.noise.steps:
        raise RequestError(f"--timestep must be 0 to {config.noise.steps - 1}, not {flags.timestep}")
    data = config.data
    ends = torch.stack(
        [as_trained_on(read_image(p, background=data.background), data) for p in (flags.first, flags.last)]
    )
    model = load_run(finished, flags.weights)
    with Evaluation(config, folder) as evaluation, to_be_written(flags.grid if evaluation.is_main else None):
        device = evaluation.device
        diffusion = Diffusion(config.noise, device)
        model.to(device).eval()
        # both images get the same noise, as in the paper's figure 8, so that only the images are interpolated
        noise = batch_noise(flags.seed, [0], "interpolate", ends.shape[1:], device)
        noisy = diffusion.noised(scaled(ends, device), torch.tensor([flags.timestep] * 2, device=device), noise)
        weights = torch.linspace(0, 1, flags.points + 2, device=device)[1:-1, None, None, None]
        between = (1 - weights) * noisy[:1] + weights * noisy[1:]
        numbers = [0] * flags.points  # the same draws for all, for the same reason
        steps = sampled(
            diffusion,
            predictor(evaluation.processes, model, exact=True),
            numbers,
            ends.shape[1:],
            seed=flags.seed,
            start=between,
            from_step=flags.timestep,
            device=device,
        )
        x = deque(steps, maxlen=1).pop()
        if evaluation.is_main:
            row = _grid(torch.cat([ends[:1], pixels_of(x), ends[1:]]), columns=flags.points + 2)
            write_output(flags.grid, png_writer(row))
        evaluation.processes.say(f"drawn: {flags.grid}")
