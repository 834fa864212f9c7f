"""Analyze activations, and the networks of finished runs.

    golu-core analyze gates golu gelu mish --out shapes       activations side by side
    golu-core analyze spectrum golu relu                      random matrices after activations
    golu-core analyze weights runs --out weights              learned weights of finished runs
    golu-core analyze variance golu relu                      a photograph after activations
    golu-core analyze variance runs                           each layer of finished runs
    golu-core analyze noise runs                              the test metric under noise
    golu-core analyze landscape runs --out landscape          the test loss around the final weights
    golu-core analyze hessian runs                            its curvature there
    golu-core analyze ablation runs/mlp-rates                 a metric over settings that were varied
    golu-core analyze times digits --activations golu gelu    relative times of the recipes' networks

Each prints a table, and with --out writes figures, the table, and all numbers as JSON. Exit status: 0 the table is
printed; 1 a file could not be written; 2 a wrong request or unusable input, and nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from golu_core.training.config.fields import Range, check_fields
from golu_core.training.config.help_page import CONFIG, shown
from golu_core.training.config.named_activations import (
    ActivationFlags,
    NamedActivation,
    agree_to,
    named_activation,
    named_function,
)
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import say

from .analyses.findings import Findings, show
from .exit_status import exit_status
from .reporting.report import check_report_folder

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, shown("FOLDER ...")]
Activations = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[ACTIVATION ...]")]
ActivationsOrRuns = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[ACTIVATION|FOLDER ...]")]
_ACTIVATIONS = ("golu", "gelu", "swish", "mish", "relu")


@dataclass(frozen=True, kw_only=True)
class _ReportFlags:
    """Flags of every analysis."""

    out: Annotated[Path | None, shown("FOLDER")] = None
    """Folder for figures, tables and numbers."""
    figures: Literal["png", "pdf", "svg"] = "png"
    """File format of the figures."""


@dataclass(frozen=True, kw_only=True)
class _NetworkFlags(ActivationFlags, _ReportFlags):
    """Flags of every analysis that evaluates the networks of finished runs."""

    samples: Annotated[int, Range(ge=1)] = 256
    """Number of test samples for each network."""
    data_dir: Annotated[Path | None, shown("FOLDER")] = None
    """Folder that holds the data sets. Defaults to the folder that each run used."""


@dataclass(frozen=True)
class GatesFlags(_ReportFlags):
    """Value, gate, slope, and curvature of activations side by side, and their moments on normal inputs."""

    activations: Activations = _ACTIVATIONS
    """Activations to compare."""


@dataclass(frozen=True)
class SpectrumFlags(_ReportFlags):
    """Largest eigenvalue of random matrices after activations, and after their slopes."""

    activations: Activations = _ACTIVATIONS
    """Activations to compare."""
    size: Annotated[int, Range(ge=2, le=5000)] = 200
    """Rows and columns of the matrix. The paper uses 1,000."""


@dataclass(frozen=True)
class WeightsFlags(_ReportFlags):
    """Distribution of the learned weights of finished runs, by recipe and activation, over seeds."""

    runs: Runs = ()
    """Folders to search for finished runs, at any depth."""


@dataclass(frozen=True)
class VarianceFlags(_NetworkFlags):
    """Variance of a photograph after each activation, or of each layer's output and gradient in finished runs."""

    what: ActivationsOrRuns = _ACTIVATIONS
    """Activations, or folders with finished runs."""


@dataclass(frozen=True)
class NoiseFlags(_NetworkFlags):
    """The test metric of finished runs under noise on weights and on inputs, over seeds."""

    runs: Runs = ()
    """Folders to search for finished runs, at any depth."""
    draws: Annotated[int, Range(ge=1, le=1000)] = 5
    """Number of noise draws for each run."""


@dataclass(frozen=True)
class LandscapeFlags(_NetworkFlags):
    """The test loss of finished runs on a plane through their final weights, over seeds."""

    runs: Runs = ()
    """Folders to search for finished runs, at any depth."""
    samples: Annotated[int, Range(ge=1)] = 128
    """Number of test samples for each network."""
    points: Annotated[int, Range(ge=5, le=201)] = 15
    """Number of grid points along each axis: an odd number."""
    reach: Annotated[float, Range(gt=0.0)] = 1.0
    """Distance from the center to the edge of the grid, as a multiple of the directions' length."""
    directions: Literal["filter", "paper"] = "filter"
    """Random directions: `filter` normalizes each filter (Li et al., 2018), `paper` draws one vector for all."""
    recompute_batch_norm: bool = False
    """Recompute the batch norm statistics at each grid point."""


@dataclass(frozen=True)
class HessianFlags(_NetworkFlags):
    """Eigenvalues, trace, and density of the Hessian of finished runs' test loss, over seeds."""

    runs: Runs = ()
    """Folders to search for finished runs, at any depth."""
    samples: Annotated[int, Range(ge=1)] = 64
    """Number of test samples for each network."""
    top: Annotated[int, Range(ge=1, le=100)] = 3
    """Number of largest eigenvalues to compute."""
    vectors: Annotated[int, Range(ge=1, le=1000)] = 3
    """Number of random vectors for the trace and the density."""
    steps: Annotated[int, Range(ge=2, le=500)] = 20
    """Number of Lanczos steps for each random vector."""


@dataclass(frozen=True)
class AblationFlags(_ReportFlags):
    """A metric of finished runs over the one or two settings in which they differ, over seeds."""

    runs: Runs = ()
    """Folders to search for finished runs, at any depth."""
    metric: Annotated[str | None, shown()] = None
    """Metric of result.json, such as `loss`, or `weight_norm`. Defaults to the recipe's primary metric."""


@dataclass(frozen=True)
class TimesFlags(_ReportFlags):
    """Time of training and inference of the recipes' networks, relative to their default activation."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, shown("RECIPE ...")] = ()
    """Recipes whose networks are timed, from any installed task."""
    activations: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ACTIVATION ...")] = ("golu",)
    """Activations to compare with each network's default activation."""
    samples: Annotated[Annotated[int, Range(ge=1)] | None, shown()] = None
    """Batch size. Defaults to the recipe's micro-batch size on a GPU, and to 8 on a CPU."""
    rounds: Annotated[int, Range(ge=6, le=10_000)] = 15
    """Number of measurements of each network."""
    mixed_precision: Annotated[Literal["no", "bf16", "fp16"] | None, shown()] = None
    """Mixed precision. Defaults to the recipe's."""
    compile: bool = False
    """Compile the networks with torch.compile."""


def _gates(flags: GatesFlags) -> Findings:
    from .analyses.gates import analyze_gates

    return analyze_gates(_canonical(flags.activations))


def _spectrum(flags: SpectrumFlags) -> Findings:
    from .analyses.spectrum import analyze_spectrum

    return analyze_spectrum(_canonical(flags.activations), flags.size)


def _canonical(activations: tuple[str, ...], named: Callable[[str], NamedActivation] = named_function) -> list[str]:
    """Canonical names, each once; RequestError for an unknown one, or for none."""
    if not activations:
        raise RequestError("name at least one activation")
    return list(dict.fromkeys(named(text).text for text in activations))


def _weights(flags: WeightsFlags) -> Findings:
    from .analyses.weights import analyze_weights

    if not flags.runs:
        raise RequestError("name the folders of finished runs: golu-core analyze weights RUNS")
    return analyze_weights(flags.runs)


def _variance(flags: VarianceFlags) -> Findings:
    from .analyses.variance import analyze_layers, analyze_photograph

    folders = [Path(word) for word in flags.what if Path(word).exists()]
    if not folders:
        return analyze_photograph(_canonical(flags.what))
    if len(folders) < len(flags.what):
        missing = next(word for word in flags.what if not Path(word).exists())
        raise RequestError(f"{missing} is not a folder: name activations or folders of runs, not both")
    return analyze_layers(folders, flags.samples, flags.data_dir)


def _noise(flags: NoiseFlags) -> Findings:
    from .analyses.noise import analyze_noise

    return analyze_noise(flags.runs, flags.samples, flags.data_dir, flags.draws)


def _landscape(flags: LandscapeFlags) -> Findings:
    from .analyses.landscape import analyze_landscape

    if flags.points % 2 == 0:
        raise RequestError(f"--points {flags.points} has no point at the weights themselves: pass an odd number")
    return analyze_landscape(
        flags.runs,
        flags.samples,
        flags.data_dir,
        points=flags.points,
        reach=flags.reach,
        kind=flags.directions,
        recompute=flags.recompute_batch_norm,
    )


def _hessian(flags: HessianFlags) -> Findings:
    from .analyses.hessian import analyze_hessian

    return analyze_hessian(flags.runs, flags.samples, flags.data_dir, flags.top, flags.vectors, flags.steps)


def _ablation(flags: AblationFlags) -> Findings:
    from .analyses.ablation import analyze_ablation

    return analyze_ablation(flags.runs, flags.metric)


def _times(flags: TimesFlags) -> Findings:
    from .analyses.times import analyze_times

    return analyze_times(
        flags.recipes,
        _canonical(flags.activations, named_activation),
        samples=flags.samples,
        rounds=flags.rounds,
        precision=flags.mixed_precision,
        compiled=flags.compile,
    )


ANALYSES: dict[str, tuple[type[Any], Callable[[Any], Findings]]] = {
    "gates": (GatesFlags, _gates),
    "spectrum": (SpectrumFlags, _spectrum),
    "variance": (VarianceFlags, _variance),
    "weights": (WeightsFlags, _weights),
    "noise": (NoiseFlags, _noise),
    "landscape": (LandscapeFlags, _landscape),
    "hessian": (HessianFlags, _hessian),
    "ablation": (AblationFlags, _ablation),
    "times": (TimesFlags, _times),
}
"""Each analysis by name: its flags, and the function that returns its findings."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 2 for a RequestError."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        say("usage: golu-core analyze ANALYSIS [flags]\n")
        for name, (flags, _) in ANALYSES.items():
            say(f"  {name:<11}{(flags.__doc__ or '').strip()}")
        say("\nflags of an analysis: golu-core analyze gates --help")
        return 0
    return exit_status("golu-core analyze", lambda: _analyze(words))


def _analyze(words: list[str]) -> int:
    name, *rest = words
    if name not in ANALYSES:
        raise RequestError(f"there is no analysis {name!r}; there are {', '.join(ANALYSES)}")
    kind, make = ANALYSES[name]
    flags = tyro.cli(kind, args=rest, prog=f"golu-core analyze {name}", config=CONFIG)
    check_fields(flags)
    if isinstance(flags, ActivationFlags):
        agree_to(flags)
    if flags.out is not None:
        check_report_folder(flags.out)
    show(make(flags), flags.out, flags.figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
