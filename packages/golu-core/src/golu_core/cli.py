"""The console script `golu-core`: the backends of GoLU on this machine, and studies over many runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence

from . import __version__
from .training.messages.text_sinks import complain, prepare_streams, say

_STUDIES = {
    "sweep": "train a study: recipes x activations x seeds",
    "aggregate": "collect finished runs into tables, statistics and a report",
    "analyze": "analyze activations, and the networks of finished runs",
    "check": "check an activation: slopes, special values, layouts, compilers, speed",
    "new-task": "write a new task to start from",
}
_HELP = "\n".join(
    [
        "usage: golu-core [--version] [COMMAND]",
        "",
        "  (none)       print the backends of GoLU on this machine, for a question or a bug report",
        "  activations  list the activations, with their parameters",
        *(f"  {name:<13}{text}; golu-core {name} --help" for name, text in _STUDIES.items()),
        "",
        'all but the first two need an extra: pip install "golu-core[studies]"',
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `golu-core` and return its exit status."""
    prepare_streams()
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # the reader of `activations | head` is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: Sequence[str]) -> int:
    if not words:
        return print_report()
    command, *rest = words
    if command in ("-h", "--help"):
        say(_HELP)
    elif command == "--version":
        say(__version__)
    elif command == "activations":
        return _activations(rest)
    elif command in _STUDIES:
        return _run_study_command(command, rest)
    else:
        complain(f"golu-core: unknown command {command!r}\n\n{_HELP}")
        return 2
    return 0


def _run_study_command(command: str, arguments: Sequence[str]) -> int:
    try:
        module = importlib.import_module(f"golu_core.studies.{command.replace('-', '_')}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("golu_core"):
            raise
        complain(f'golu-core: {command} needs {error.name}: pip install "golu-core[studies]"')
        return 2
    status: int = module.main(list(arguments))
    return status


def _activations(arguments: Sequence[str]) -> int:
    if any(word in ("-h", "--help") for word in arguments):
        say("usage: golu-core activations\n\nList the activations, with their parameters.")
        return 0
    if arguments:
        complain(f"golu-core: activations accepts no argument, but got {' '.join(arguments)}")
        return 2
    return print_activations()


def print_activations() -> int:
    """Print the registry, and the activations that other packages have registered."""
    from .activation.names.registry import ACTIVATIONS, registered_elsewhere

    for name, activation in ACTIVATIONS.items():
        parameters = ", ".join(f"{key}={_as_typed(value)}" for key, value in activation.parameters.items())
        spec = f"{name}({parameters})" if parameters else ""
        say(f"{name:<12}{activation.paper_name:<13}{spec}".rstrip())
    for name, entry in registered_elsewhere().items():
        say(f"{name:<12}from {entry.dist.name if entry.dist is not None else 'another package'}: {entry.value}")
    say("\nwith parameters: golu(beta=0.5); others: torch.nn.Hardswish, package.module:Name, ./file.py:Name(param=2)")
    return 0


def _as_typed(value: float | bool) -> str:
    """Return a parameter's default as you would type it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def print_report() -> int:
    """Print versions, devices, and the backend of GoLU on each."""
    import torch

    from .activation.compute import kernel, native

    say(f"golu-core {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    reason = native.why_not()
    say(f"cpu: {native.description()}" + (f", several times slower: {reason}" if reason else ""))
    if torch.backends.mps.is_available():
        say("mps: torch operations")
    for index in range(torch.cuda.device_count()):
        implementation = "CuPy kernel" if kernel.kernels_available() else "torch operations"
        say(f"cuda:{index} {torch.cuda.get_device_name(index)}: {implementation}")
    if not torch.cuda.is_available():
        cupy = "installed" if importlib.util.find_spec("cupy") else "not installed"
        say(f"cuda: no device (CuPy is {cupy})")
    say("torch.compile, export, ONNX and functional transforms: a pointwise expression")
    return 0


if __name__ == "__main__":
    sys.exit(main())
