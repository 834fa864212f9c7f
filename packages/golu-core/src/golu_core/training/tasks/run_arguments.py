"""Arguments that every command on a run folder has, in addition to its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from ..config.named_activations import ActivationFlags

Flags = TypeVar("Flags")


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The first argument of a command on a run folder."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of a finished run."""


def with_run_arguments(flags: type[Flags]) -> type[Flags]:
    """Return a subclass of a frozen dataclass of flags that begins with the run folder and ends with ActivationFlags.

    A subclass, and not a dataclass around it: then `--help` shows one list of flags, and the parsed value is what
    the command asked for.
    """
    namespace = {"__doc__": flags.__doc__, "__module__": flags.__module__}
    # dataclasses take the fields of their last base first
    return dataclass(frozen=True)(type(flags.__name__, (ActivationFlags, flags, RunArguments), namespace))
