"""Finds what an activation's text names, checks that it is one, and keeps it under its name for this process.

Importing a file or a package runs its code. So only what the caller names is loaded; `build_activation` and the runs
then find it by its name, and what a run's folder names is never imported by itself.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...regular_files import regular_bytes
from ..modules import GoLU
from .registry import ACTIVATIONS, LOADED_MARK, canonical_spec, is_nothing_loaded, registered_elsewhere
from .specs import ActivationSpec, parse_spec
from .torch_names import is_torch_class, named_in_torch

_SHAPES = ((4, 8), (2, 8, 3, 3))


@dataclass(frozen=True)
class LoadedActivation:
    """An activation that can be built.

    Attributes:
        text: its name, in the one spelling under which results store it.
        source: The identity of its code: `sha256:…` of a file, `package 1.2`, or empty for a built-in activation.
        build: makes a new module.
        code: The code of its file; None if it is not from a file.
    """

    text: str
    source: str
    build: Callable[[], nn.Module]
    code: bytes | None = None


class FunctionActivation(nn.Module):
    """A function of one tensor as a module.

    Args:
        function: takes a tensor, and the parameters by their names.
        parameters: The parameters passed to every call.
    """

    def __init__(self, function: Callable[..., Tensor], parameters: Mapping[str, Any]) -> None:
        super().__init__()
        self.function = function
        self.parameters_of_calls = dict(parameters)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self.parameters_of_calls)

    def extra_repr(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return ", ".join([name, *(f"{key}={value!r}" for key, value in self.parameters_of_calls.items())])


_LOADED: dict[str, LoadedActivation] = {}


def loaded_activation(text: str) -> LoadedActivation | None:
    """What was loaded in this process under a name, as `canonical_name` spells it; None if nothing was."""
    return _LOADED.get(text)


def load_activation(text: str, code: bytes | None = None) -> LoadedActivation:
    """Import what a text names, check it on small tensors, and make it known by its name in this process.

    Args:
        text: A name that `build_activation` accepts. A name of the registry imports nothing but torch.
        code: The content to use for the file that is named, wherever that is.

    Returns:
        The activation: its canonical name `text`, the checksum or version `source` of its code, and `build()`.

    Raises:
        ValueError: There is no such activation, its parameters are wrong, or it is not an activation.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from golu_core import load_activation
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = Path(folder, "mine.py").write_text("half = lambda x: x / 2")
        ...     loaded = load_activation(f"{folder}/mine.py:half")
        >>> loaded.source
        'sha256:...'
        >>> loaded.build()
        FunctionActivation(<lambda>)
    """
    spec = canonical_spec(text)
    if spec.kind == "name" and spec.head in ACTIVATIONS:
        loaded = LoadedActivation(spec.text, "", functools.partial(ACTIVATIONS[spec.head].build, **spec.parameters))
    else:
        loaded = _of_file(spec, code) if spec.kind == "file" else _of_package(spec)
        loaded = replace(loaded, build=functools.partial(_marked, loaded.build, loaded.text))
    _check(loaded)
    _LOADED[loaded.text] = loaded
    return loaded


def build_activation(name: str) -> nn.Module:
    """Return a new module of the named activation, with the parameters that follow its name.

    Args:
        name: A name of the registry, or what a package or a file has: `golu(beta=0.5)`, `torch.nn.Hardswish`,
            `package.module:Name(param=2)`, `./file.py:Name`. What is named is imported.

    Raises:
        ValueError: There is no such activation, its parameters are wrong, or a command runs that has not loaded it.

    Examples:
        >>> from golu_core import build_activation
        >>> build_activation("golu(beta=0.5)"), build_activation("torch.nn.Hardswish")
        (GoLU(alpha=1, beta=0.5, gamma=1), Hardswish())
    """
    spec = canonical_spec(name)
    if spec.kind == "name" and spec.head in ACTIVATIONS:
        return ACTIVATIONS[spec.head].build(**spec.parameters)
    known = _LOADED.get(spec.text) if name == spec.text else None  # a path may have other content by now
    if known is None and is_nothing_loaded() and not is_torch_class(spec):
        raise ValueError(f"{spec.text} is neither built in nor named on the command line, so its code is not run")
    return (known or load_activation(name)).build()


def source_of(text: str) -> str:
    """What the code of an activation is, as `LoadedActivation.source` has it, without running any of it.

    Raises:
        ValueError: there is no such file or package.
    """
    spec = canonical_spec(text)
    if spec.path is not None:
        return f"sha256:{hashlib.sha256(_read(spec.path)).hexdigest()}"
    if spec.kind == "package":
        first = spec.head.partition(".")[0]
        if importlib.util.find_spec(first) is None:
            raise ValueError(f"package {first!r} (needed by {spec.head}) is not installed")
        if first == "torch":
            named_in_torch(spec.head)
        return _version_of(first)
    return "" if spec.head in ACTIVATIONS else _version_of_entry(registered_elsewhere()[spec.head])


# --------------------------------------------------------------------------------------------------------------- files


def named_object(text: str) -> tuple[str, Any]:
    """What `./file.py:name` or `package.module:name` names, and its own name: imported, and not looked at.

    Raises:
        ValueError: there is no such thing, or it cannot be imported.
    """
    spec = parse_spec(text)
    if spec.kind == "name" or spec.parameters:
        raise ValueError(f"{text!r} names no object of a file or package: write ./file.py:name or package.module:name")
    if spec.path is None:
        return spec.head.rpartition(".")[2], _resolved(spec.head)
    code = _read(spec.path)
    module = _executed(spec.path, code, hashlib.sha256(code).hexdigest(), alone=False)
    if not hasattr(module, spec.own_name):
        raise ValueError(f"{spec.path} has no {spec.own_name}{_nearest(spec.own_name, vars(module))}")
    return spec.own_name, getattr(module, spec.own_name)


def _of_file(spec: ActivationSpec, code: bytes | None) -> LoadedActivation:
    assert spec.path is not None
    if code is None:
        code = _read(spec.path)
    digest = hashlib.sha256(code).hexdigest()
    module = _executed(spec.path, code, digest)
    if not hasattr(module, spec.own_name):
        raise ValueError(f"{spec.path} has no {spec.own_name}{_nearest(spec.own_name, _callables(module))}")
    found = getattr(module, spec.own_name)
    return LoadedActivation(spec.text, f"sha256:{digest}", _builder(found, spec), code)


def _read(path: Path) -> bytes:
    try:
        return regular_bytes(path.expanduser())
    except FileNotFoundError:
        beside = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ValueError(f"there is no file {path}{_nearest(str(path), beside)}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None


def _executed(path: Path, code: bytes, digest: str, alone: bool = True) -> types.ModuleType:
    """The file as a module of its own, run once for each content; `alone` lets it import nothing beside it."""
    name = f"golu_activation_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = str(path)
    before = set(sys.modules)
    sys.modules[name] = module  # where pickle and dataclasses look for it
    try:
        exec(compile(code, str(path), "exec"), module.__dict__)
        if alone:
            _refuse_neighbors(path, set(sys.modules) - before - {name})
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except ValueError:
        del sys.modules[name]
        raise
    except BaseException as error:  # of somebody's code, SystemExit among them
        del sys.modules[name]
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _refuse_neighbors(path: Path, imported: Iterable[str]) -> None:
    """Raises ValueError if a file has imported another one beside it, whose content nobody would keep account of."""
    home = path.expanduser().resolve().parent
    for name in imported:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            continue
        place = Path(file).resolve()
        if place.is_relative_to(home) and "site-packages" not in place.parts and not place.is_relative_to(sys.prefix):
            raise ValueError(
                f"{path} imports {place.relative_to(home)} beside it, whose changes a run would not notice: "
                f"put all of it into one file, or install it as a package and write package.module:Name"
            )


def _callables(module: types.ModuleType) -> list[str]:
    return [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]


# ------------------------------------------------------------------------------------------------------------ packages


def _of_package(spec: ActivationSpec) -> LoadedActivation:
    if spec.kind == "name":
        entry = registered_elsewhere()[spec.head]
        try:
            found = entry.load()
        except Exception as error:  # another package's code
            raise ValueError(f"the activation {spec.head} ({entry.value}) cannot be loaded: {error}") from error
        return LoadedActivation(spec.text, _version_of_entry(entry), _builder(found, spec))
    first = spec.head.partition(".")[0]
    found = named_in_torch(spec.head) if first == "torch" else _resolved(spec.head)
    return LoadedActivation(spec.text, _version_of(first), _builder(found, spec))


def _version_of_entry(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "?"


def _resolved(dotted: str) -> Any:
    """What a dotted name is, with as much of it imported as are modules."""
    first, *rest = dotted.split(".")
    found: Any = _imported(first, dotted)
    if found is None:
        raise ValueError(f"there is no package {first!r} installed, which {dotted} is of")
    at = first
    for part in rest:
        at = f"{at}.{part}"
        if not hasattr(found, part) and (not isinstance(found, types.ModuleType) or _imported(at, dotted) is None):
            raise ValueError(f"{at.rpartition('.')[0]} has no {part}{_nearest(part, dir(found))}")
        found = getattr(found, part) if hasattr(found, part) else sys.modules[at]
    return found


def _imported(module: str, dotted: str) -> types.ModuleType | None:
    """A module, None where there is none of that name; ValueError where its import fails."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return None
        raise ValueError(f"{dotted} cannot be imported: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(f"{dotted} cannot be imported: {type(error).__name__}: {error}") from error


def _version_of(package: str) -> str:
    names = [package, *packages_distributions().get(package, ())]
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        return f"{found.name} {found.version}"
    # a module that no distribution has, such as one in the working directory: its own source is all there is
    module = importlib.util.find_spec(package)
    file = module.origin if module is not None and module.has_location else None
    raise ValueError(
        f"{package} is not an installed package"
        + (f", but {file}, whose version a run could not store: name the file as ./file.py:Name" if file else "")
    )


# ------------------------------------------------------------------------------------------------------ what was found


def _builder(found: Any, spec: ActivationSpec) -> Callable[[], nn.Module]:
    """What makes modules of a class or function."""
    parameters = dict(spec.parameters)
    if inspect.isclass(found):
        if issubclass(found, torch.autograd.Function):
            raise ValueError(f"{spec.head} is an autograd.Function: name a function that calls its apply")
        if not issubclass(found, nn.Module):
            raise ValueError(f"{spec.head} is a class, but not a torch.nn.Module")
        _check_parameters(found, parameters, spec, skipped=0)
        return functools.partial(found, **parameters)
    if isinstance(found, nn.Module) or not callable(found):
        kind = "an instance of a module" if isinstance(found, nn.Module) else f"a {type(found).__name__}"
        raise ValueError(f"{spec.head} is {kind}: name a class of modules, or a function of a tensor")
    _check_parameters(found, parameters, spec, skipped=1)
    return functools.partial(FunctionActivation, found, parameters)


def _check_parameters(found: Any, parameters: Mapping[str, Any], spec: ActivationSpec, skipped: int) -> None:
    """Raises ValueError for parameters that are unknown or missing, as far as the signature can be read."""
    try:
        signature = inspect.signature(found)
    except (ValueError, TypeError):  # of C functions
        return
    named = list(signature.parameters.values())
    if skipped and (not named or named[0].kind in (named[0].KEYWORD_ONLY, named[0].VAR_KEYWORD)):
        raise ValueError(f"{spec.head} does not accept a tensor as its first argument")
    if skipped and named[0].kind != named[0].VAR_POSITIONAL:
        named = named[1:]
    takes_any = any(one.kind == one.VAR_KEYWORD for one in named)
    known = [one.name for one in named if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    for name in parameters:
        if name not in known and not takes_any:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{spec.head} has no parameter {name!r}{_nearest(name, known)}; {listed}")
    missing = [
        one.name
        for one in named
        if one.default is one.empty
        and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and one.name not in parameters
    ]
    if missing:
        raise ValueError(
            f"{spec.head} needs {' and '.join(missing)}: write {spec.head}({', '.join(f'{m}=…' for m in missing)})"
        )


def _marked(build: Callable[[], nn.Module], text: str) -> nn.Module:
    """A module that `calls.activation_of` knows."""
    module = build()
    if isinstance(module, nn.Module):
        setattr(module, LOADED_MARK, text)
    return module


def _check(loaded: LoadedActivation) -> None:
    """Raises ValueError unless a module can be built, and maps a tensor to one of its shape, dtype and device."""
    with torch.random.fork_rng(devices=[]):
        try:
            module = loaded.build()
        except Exception as error:
            raise ValueError(f"{loaded.text} cannot be made: {type(error).__name__}: {_first_line(error)}") from error
        if not isinstance(module, nn.Module):
            raise ValueError(f"{loaded.text} makes a {type(module).__name__}, not a torch.nn.Module")
        if isinstance(module, GoLU) and not module.is_sized:  # only a network says how many channels there are
            module.set_shape(())
        for shape in _SHAPES:
            _check_on(module, loaded.text, torch.randn(shape).requires_grad_())


def _check_on(module: nn.Module, text: str, x: Tensor) -> None:
    try:
        y = module(x.clone())  # not a leaf, for those that work in place
    except Exception as error:
        raise ValueError(
            f"{text} fails on a tensor of shape {tuple(x.shape)}: {type(error).__name__}: {_first_line(error)}"
        ) from error
    if not isinstance(y, Tensor):
        raise ValueError(f"{text} returns a {type(y).__name__}, not a tensor")
    for what, theirs, ours in (
        ("shape", y.shape, x.shape),
        ("dtype", y.dtype, x.dtype),
        ("device", y.device, x.device),
    ):
        if theirs != ours:
            shown = [tuple(value) if isinstance(value, torch.Size) else value for value in (ours, theirs)]
            raise ValueError(
                f"{text} is not an activation: of a tensor of {what} {shown[0]} it makes one of {shown[1]}"
            )
    if not y.requires_grad:
        raise ValueError(f"{text} has no gradient, so the layers before it would not train")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""
