"""`--freeze`: parts of a network that keep their pretrained weights."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..messages.errors import RequestError

_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def is_frozen(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module or parameter, or a module that it is in, has a name that one of the patterns matches."""
    parts = _plain(name).split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1) for pattern in patterns)


def freeze(model: nn.Module, patterns: Sequence[str], made_new: Collection[str] = ()) -> None:
    """Freeze the modules and parameters that match the patterns.

    Args:
        model: The network, modified in place.
        patterns: Patterns of module or parameter names, such as `layer1` or `blocks.[0-5]`.
        made_new: The names of the parameters without pretrained weights.

    Raises:
        RequestError: A pattern matches nothing, no parameter remains trainable, or a frozen part was not loaded.
    """
    if not patterns:
        return
    modules = [name for name, _ in model.named_modules() if name]
    names = [*modules, *(name for name, _ in model.named_parameters())]
    for pattern in patterns:
        if not any(is_frozen(name, [pattern]) for name in names):
            near = difflib.get_close_matches(pattern, modules, n=1)
            hint = f", did you mean {near[0]}?" if near else f"; its parts are {', '.join(_top_level(model))}"
            raise RequestError(f"--freeze {pattern}: the network has no such part{hint}")
    frozen = {name: parameter for name, parameter in model.named_parameters() if is_frozen(name, patterns)}
    untrained = sorted(frozen.keys() & set(made_new))
    if untrained:
        raise RequestError(f"--freeze would keep {untrained[0]} at random: no weights were loaded for it")
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RequestError(f"--freeze {' '.join(patterns)} leaves nothing to train")


def train_mode(model: nn.Module, patterns: Sequence[str] = ()) -> None:
    """Put a model into training mode; batch norms in frozen parts keep their statistics."""
    model.train()
    if patterns:
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm) and is_frozen(name, patterns):
                module.eval()


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _top_level(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_children()]
