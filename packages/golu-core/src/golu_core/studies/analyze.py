"""Shows what activations and finished runs look like inside.

    golu-core analyze gates golu gelu mish --out shapes       activations side by side
    golu-core analyze spectrum golu relu                      random matrices after activations
    golu-core analyze weights runs --out weights              learned weights of finished runs

Each prints a table, and with --out writes figures, the table and all numbers as JSON. Exit status: 0; 2 a wrong request
or input that cannot be used, and nothing is written; 1 a failure to write.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from golu_core.activation.registry import canonical_name
from golu_core.training.errors import RequestError
from golu_core.training.fields import Range, check_fields

from .analyses.findings import Findings, show
from .exit_status import exit_status
from .reporting.report import check_report_folder


@dataclass(frozen=True)
class GatesFlags:
    """Value, gate, slope and curvature of activations side by side, and what they do to normal numbers."""

    activations: Annotated[tuple[str, ...], tyro.conf.Positional] = ("golu", "gelu", "swish", "mish", "relu")
    """Activations by name."""
    out: Path | None = None
    """Folder for figures, table and numbers."""
    figures: Literal["png", "pdf", "svg"] = "png"
    """Format of the figures."""


@dataclass(frozen=True)
class SpectrumFlags:
    """Largest eigenvalue of random matrices after activations, and after their slopes."""

    activations: Annotated[tuple[str, ...], tyro.conf.Positional] = ("golu", "gelu", "swish", "mish", "relu")
    """Activations by name."""
    size: Annotated[int, Range(least=2, most=5000)] = 200
    """Rows and columns of the matrix; the paper has 1,000."""
    out: Path | None = None
    """Folder for figures, table and numbers."""
    figures: Literal["png", "pdf", "svg"] = "png"
    """Format of the figures."""


@dataclass(frozen=True)
class WeightsFlags:
    """Distribution of the learned weights of finished runs, by recipe and activation, over seeds."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders; finished runs are found at any depth below."""
    out: Path | None = None
    """Folder for figures, tables and numbers."""
    figures: Literal["png", "pdf", "svg"] = "png"
    """Format of the figures."""


def _gates(flags: GatesFlags) -> Findings:
    from .analyses.gates import analyze_gates

    return analyze_gates(_canonical(flags.activations))


def _spectrum(flags: SpectrumFlags) -> Findings:
    from .analyses.spectrum import analyze_spectrum

    return analyze_spectrum(_canonical(flags.activations), flags.size)


def _canonical(activations: tuple[str, ...]) -> list[str]:
    """Canonical names, each once; RequestError for an unknown one, or for none."""
    if not activations:
        raise RequestError("name at least one activation")
    try:
        return list(dict.fromkeys(canonical_name(name) for name in activations))
    except ValueError as error:
        raise RequestError(str(error)) from None


def _weights(flags: WeightsFlags) -> Findings:
    from .analyses.weights import analyze_weights

    if not flags.runs:
        raise RequestError("name the folders of finished runs: golu-core analyze weights RUNS")
    return analyze_weights(flags.runs)


ANALYSES: dict[str, tuple[type[Any], Callable[[Any], Findings]]] = {
    "gates": (GatesFlags, _gates),
    "spectrum": (SpectrumFlags, _spectrum),
    "weights": (WeightsFlags, _weights),
}
"""Each analysis by name: its flags, and what makes its findings."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 2 for a RequestError."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print("usage: golu-core analyze ANALYSIS [flags]\n")
        for name, (flags, _) in ANALYSES.items():
            print(f"  {name:<9}{(flags.__doc__ or '').strip()}")
        print("\nflags of one: golu-core analyze gates --help")
        return 0
    return exit_status("golu-core analyze", lambda: _analyze(words))


def _analyze(words: list[str]) -> int:
    name, *rest = words
    if name not in ANALYSES:
        raise RequestError(f"there is no analysis {name!r}; there are {', '.join(ANALYSES)}")
    kind, make = ANALYSES[name]
    flags = tyro.cli(kind, args=rest, prog=f"golu-core analyze {name}", config=(tyro.conf.FlagCreatePairsOff,))
    check_fields(flags)
    if flags.out is not None:
        check_report_folder(flags.out)
    show(make(flags), flags.out, flags.figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
