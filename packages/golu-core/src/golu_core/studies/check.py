"""Check an activation: correct slopes, special values, layouts, compilers, and speed, on one card.

    golu-core check golu
    golu-core check ./mine.py:Snake --out card
    golu-core check "torch.nn.Hardtanh(max_val=2)"

The file or package that you name is imported, which runs its code. The card is printed, and with --out also written as
an HTML page with pictures and as JSON. Exit status: 0 all checks passed; 1 a check failed; 2 there is no such
activation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from markupsafe import Markup
from rich.console import Console
from rich.progress import track

from golu_core.training.config.help_page import shown
from golu_core.training.config.named_activations import named_function
from golu_core.training.distributed.devices import default_device
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import say
from golu_core.training.runs.provenance import environment

from .checking import numerics, support
from .checking.shape import Fact, facts_of, figure_of
from .checking.speed import microseconds
from .checking.subject import CheckOutcome, Subject, outcome_of
from .exit_status import exit_status
from .reporting.figures import as_inline_svg
from .reporting.formats import console
from .reporting.page import template
from .reporting.report import check_report_folder, write_report

_CARD_SCHEMA = "golu-card/1"
_COLORS = {"pass": "green", "fail": "bold red", "not applicable": "dim"}


@dataclass(frozen=True)
class Flags:
    """Check an activation, on one card."""

    activation: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ACTIVATION")]
    """Name of a built-in activation, package.module:Name, or ./file.py:Name; with parameters: Name(param=0.5)."""
    out: Annotated[Path | None, shown("FOLDER")] = None
    """Folder for the card as an HTML page and as JSON."""
    speed: bool = True
    """Measure its speed."""


@dataclass(frozen=True)
class Card:
    """What was found.

    Attributes:
        name, source: The name and the source of the activation; see `LoadedActivation`.
        lines: The outcomes of the checks.
        facts: without a verdict.
        speed: microseconds of `forward` and `backward` by activation, this one first; empty if not measured.
        machine: The machine that ran the checks.
    """

    name: str
    source: str
    lines: Sequence[CheckOutcome]
    facts: Sequence[Fact]
    speed: Mapping[str, Mapping[str, float]]
    machine: str

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(line.outcome == "fail" for line in self.lines)

    @property
    def verdict(self) -> str:
        """In one sentence."""
        passed = sum(line.outcome == "pass" for line in self.lines)
        rest = len(self.lines) - passed - self.failed
        return f"{passed} checks passed, {self.failed} failed, {rest} not applicable"

    def to_json(self) -> dict[str, object]:
        return {
            "schema": _CARD_SCHEMA,
            "activation": self.name,
            "source": self.source,
            "checks": [vars(line) for line in self.lines],
            "facts": dict(self.facts),
            "microseconds": self.speed,
            "machine": self.machine,
        }


def card_of(text: str, speed: bool = True, output: Console | None = None) -> Card:
    """The card of an activation; RequestError where the text names none.

    Args:
        text: see `golu_core.activation.names.specs`.
        speed: measure it.
        output: The console that shows progress.
    """
    subject = _subject(text)
    output = output or console()
    checks = [*numerics.CHECKS, *support.CHECKS]
    progress = track(checks, "checks", console=output, transient=True, disable=not output.is_terminal)
    lines = [outcome_of(check, subject) for check in progress]
    facts = facts_of(subject)
    saved, bytes_an_element = support.saved_for_backward(subject.loaded)
    facts.append(("kept for backward", f"{saved} tensors, {bytes_an_element:g} bytes for a float32 element"))
    device = default_device()
    about = environment(str(device), "golu-core")
    machine = f"{device}, {about.get('host_cpu', '')}, torch {about.get('torch', '')}"
    times = microseconds(subject.loaded, device) if speed else {}
    return Card(subject.loaded.text, subject.loaded.source, lines, facts, times, machine)


def _subject(text: str) -> Subject:
    from golu_core.activation.names.loading import load_activation

    named_function(text)
    try:
        return Subject.of(load_activation(text))
    except ValueError as error:
        raise RequestError(str(error)) from None


def _print(card: Card, output: Console) -> None:
    output.print(f"{card.name}{f'  ({card.source})' if card.source else ''}", style="bold")
    for name, value in card.facts:
        output.print(f"  {name:<30}{value}")
    for name, parts in card.speed.items():
        said = f"forward {parts['forward']:,.0f} us, backward {parts['backward']:,.0f} us"
        output.print(f"  {f'speed of {name}':<30}{said}")
    for line in card.lines:
        output.print(f"  {line.outcome:<16}", style=_COLORS[line.outcome], end="")
        output.print(f"{line.name:<32}{line.detail}")
    output.print(card.verdict, style="bold")


def _files(card: Card, text: str) -> dict[str, bytes]:
    figure = figure_of(_subject(text))
    svg = Markup("" if figure is None else as_inline_svg(figure))  # matplotlib escapes the texts in it
    page = template("check.html.jinja").render(card=card, figure=figure, svg=svg)
    return {
        "check.html": page.encode(),
        "check.json": (json.dumps(card.to_json(), indent=1) + "\n").encode(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 1 where a check failed, 2 for a RequestError."""
    return exit_status("golu-core check", lambda: _check(arguments))


def _check(arguments: list[str] | None) -> int:
    flags = tyro.cli(
        Flags, args=arguments, prog="golu-core check", description=__doc__, config=(tyro.conf.DisallowNone,)
    )
    if flags.out is not None:
        check_report_folder(flags.out)
    output = console()
    card = card_of(flags.activation, flags.speed, output)
    _print(card, output)
    if flags.out is not None:
        write_report(flags.out, _files(card, flags.activation))
        say(f"written: {flags.out / 'check.html'} and check.json next to it")
    return 1 if card.failed else 0


if __name__ == "__main__":
    sys.exit(main())
