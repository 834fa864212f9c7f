"""Activations of a person's own in runs: loaded where the command line names them, and never because a folder does.

Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import tyro

from golu_core.activation.names.registry import ACTIVATIONS, canonical_spec, nothing_loaded
from golu_core.activation.names.specs import ActivationSpec

from ...regular_files import regular_bytes
from ..messages.errors import RequestError
from ..messages.text_sinks import complain
from .run_config import RunConfig

ACTIVATION_FILE = "activation.py"
"""In a run's folder, the file that its activation is of."""
TRUST = "--trust-activation"
_trusted = ContextVar("trusted", default=False)


@dataclass(frozen=True, kw_only=True)
class ActivationFlags:
    """Flags that allow a command on run folders to run a custom activation's code; see `agree_to`."""

    activation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Custom activation that the run was trained with, named as in training. Allows its code to run."""
    trust_activation: tyro.conf.FlagCreatePairsOff[bool] = False
    """Allow the code of the custom activation that the run folder names to run. Read it first."""


@dataclass(frozen=True)
class NamedActivation:
    """An activation named on the command line.

    Attributes:
        text: The canonical name, under which results store it.
        source: The checksum or version of its code; empty for a built-in activation.
        argument: The name in a form that another process can use from any working directory.
    """

    text: str
    source: str
    argument: str


def named_activation(text: str) -> NamedActivation:
    """Loads what a text of the command line names; RequestError where it names no activation.

    A plain name of the registry loads nothing.
    """
    try:
        spec = canonical_spec(text)
        if _is_built_in(spec) and not spec.parameters:
            return NamedActivation(spec.text, "", spec.text)
        from golu_core.activation.names.loading import load_activation

        loaded = load_activation(text)
    except ValueError as error:
        raise RequestError(str(error)) from None
    return NamedActivation(loaded.text, loaded.source, _argument(spec))


def planned_activation(text: str) -> NamedActivation:
    """As `named_activation`, without running any code: whether it is an activation shows when it is loaded.

    Raises:
        RequestError: it names nothing, or there is no such file or package.
    """
    try:
        spec = canonical_spec(text)
        if _is_built_in(spec):
            return NamedActivation(spec.text, "", spec.text)
        from golu_core.activation.names.loading import source_of

        return NamedActivation(spec.text, source_of(text), _argument(spec))
    except ValueError as error:
        raise RequestError(str(error)) from None


def runs_no_code(text: str) -> bool:
    """Whether an activation may be built although only a file names it: a built-in one, or one of torch's classes.

    Raises:
        ValueError: the text names nothing.
    """
    spec = canonical_spec(text)
    if _is_built_in(spec):
        return True
    from golu_core.activation.names.torch_names import is_torch_class

    return is_torch_class(spec)


def _argument(spec: ActivationSpec) -> str:
    """The text as another process can take it, from any working directory."""
    return spec.text if spec.path is None else f"{spec.path.expanduser().absolute().parent}/{spec.text}"


def named_function(text: str) -> NamedActivation:
    """As `named_activation`, where one function is looked at and not a network.

    Raises:
        RequestError: it names no activation, or one that has parameters for each channel of a network.
    """
    named = named_activation(text)
    spec = canonical_spec(named.text)
    if _is_built_in(spec) and spec.parameters.get("per_channel"):
        raise RequestError(f"{named.text} needs the channels of a network: use golu(learnable=true)")
    return named


def loaded_code(text: str) -> bytes | None:
    """The content of the file that an activation of this process is of; None if it is of none."""
    if _is_built_in(canonical_spec(text)):
        return None
    from golu_core.activation.names.loading import loaded_activation

    loaded = loaded_activation(text)
    return None if loaded is None else loaded.code


def require_activation(config: RunConfig, folder: Path) -> None:
    """Makes sure that the activation of a run's config can be built, without importing what only its folder names.

    Raises:
        RequestError: it is neither built in, nor named by the command line, nor trusted; or it is another one by now.
    """
    spec = canonical_spec(config.activation)
    if _is_built_in(spec):
        return
    from golu_core.activation.names.loading import load_activation, loaded_activation

    loaded = loaded_activation(spec.text)
    if loaded is None:
        if not (_trusted.get() or runs_no_code(spec.text)):
            raise RequestError(_untrusted(spec, folder))
        try:
            loaded = load_activation(spec.text, _copied_code(config, folder) if spec.kind == "file" else None)
        except ValueError as error:
            raise RequestError(f"the activation of {folder}: {error}") from None
    if loaded.source == config.activation_source:
        return
    difference = f"{folder} was trained with {spec.text} of {config.activation_source}, and this is {loaded.source}"
    if spec.kind == "file":
        raise RequestError(f"{difference}: {TRUST} uses the copy in the run folder")
    complain(f"warning: {difference}")


def _is_built_in(spec: ActivationSpec) -> bool:
    return spec.kind == "name" and spec.head in ACTIVATIONS


def _untrusted(spec: ActivationSpec, folder: Path) -> str:
    where = f"{folder / ACTIVATION_FILE}" if spec.kind == "file" else f"the installed package of {spec.head}"
    return (
        f"{folder} was trained with {spec.text}, whose code is not golu's: read it, and add {TRUST} to run the code of "
        f"{where}, or name it by --activation as in training"
    )


def _copied_code(config: RunConfig, folder: Path) -> bytes:
    path = folder / ACTIVATION_FILE
    try:
        code = regular_bytes(path)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}; name it by --activation") from None
    if f"sha256:{hashlib.sha256(code).hexdigest()}" != config.activation_source:
        raise RequestError(f"{path} is not the file that the run was trained with: it was changed")
    return code


@contextmanager
def only_named_code() -> Iterator[None]:
    """Keeps a command from running code that its own command line does not name; see `agree_to`."""
    token = _trusted.set(False)
    try:
        with nothing_loaded():
            yield
    finally:
        _trusted.reset(token)


def agree_to(flags: ActivationFlags) -> None:
    """Loads the activations that a command line names, and trusts run folders until the command ends if it says so.

    Raises:
        RequestError: What is named is not an activation.
    """
    for text in flags.activation:
        named_activation(text)
    _trusted.set(flags.trust_activation)
