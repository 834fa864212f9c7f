"""`--init-from`: read initial weights from any supported source, and load them into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...regular_files import regular_json
from ..messages.errors import RequestError
from ..runs.results import RESULT_FILE, read_result
from ..runs.run_files import AVERAGE_FILE, CONFIG_FILE, WEIGHTS_FILE, damaged_files, read_average
from ..storage.weights_files import read_tensors

FLAG = "--init-from"
# what stands before each name: of DistributedDataParallel, torch.compile, Lightning, GPT-2 in Hugging Face and nanoGPT
_PREFIXES = ("module.", "_orig_mod.", "model.", "transformer.")
_NOT_WEIGHTS = ("n_averaged",)  # of torch's AveragedModel
_SHOWN = 6

Library = Callable[[str], tuple[Mapping[str, Tensor], str]]
"""A function of the name after `library:` that returns weights and their activation, or raises RequestError."""


@dataclass(frozen=True)
class GivenWeights:
    """Initial weights, as read from their source.

    Attributes:
        source: The source, as passed to `--init-from`.
        tensors: The tensors by name, of any shape and dtype, on the CPU.
        activation: The activation that the weights were trained with; empty if the source does not state it.
        folder: The folder of the run that trained the weights, if there is one.
    """

    source: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    activation: str = ""
    folder: Path | None = None


@dataclass(frozen=True)
class LoadReport:
    """The load report: which tensors were loaded, initialized from the seed, or ignored.

    Attributes:
        loaded: The names of the network's tensors that were loaded.
        made_new: The names of missing or mismatched tensors, which keep their initialization from the seed.
        left_over: The names of unexpected tensors, which the network does not have.
    """

    loaded: tuple[str, ...]
    made_new: tuple[str, ...]
    left_over: tuple[str, ...]

    def sentence(self) -> str:
        """Counts, and a few of the names that a person may want to look at."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        for names, what in ((self.made_new, "reinitialized"), (self.left_over, "unused")):
            listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            parts.append(f"{len(names)} {what}" + (f" ({listed})" if names else ""))
        return ", ".join(parts)


def read_given(source: str, libraries: Mapping[str, Library]) -> GivenWeights:
    """Return the weights for a value of `--init-from`.

    Args:
        source: The folder of a finished run; a `.safetensors` file; a file that `torch.save` wrote, which is read
            without running any code; or `library:name`.
        libraries: The functions that download weights by name, by prefix, such as `torchvision`.

    Raises:
        RequestError: The source does not exist or is damaged, or loading it would run code.
    """
    library, colon, name = source.partition(":")
    if colon and library in libraries:
        tensors, activation = libraries[library](name)
        return GivenWeights(source, tensors, activation)
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_a_run(source, path)
    if not path.exists():
        known = "".join(f"; by name it may be {name}:NAME" for name in libraries)
        raise RequestError(f"{FLAG} {source}: there is no such file or run folder{known}")
    return GivenWeights(source, _tensors_of(path))


def _tensors_of(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except RequestError as error:
        raise RequestError(f"{FLAG} {error}") from None


def _of_a_run(source: str, folder: Path) -> GivenWeights:
    if not (folder / CONFIG_FILE).exists():
        raise RequestError(f"{FLAG} {folder} is not a run folder: it has no {CONFIG_FILE}")
    if not (folder / RESULT_FILE).exists():
        raise RequestError(f"{FLAG} {folder}: that run is not finished: it has no {RESULT_FILE}")
    result = read_result(folder / RESULT_FILE)
    damage = damaged_files(folder, result)
    if damage:
        raise RequestError(f"{FLAG} {folder}: {'; '.join(damage)}")
    average = AVERAGE_FILE in result.files and read_average(folder)
    tensors = _tensors_of(folder / (AVERAGE_FILE if average else WEIGHTS_FILE))
    return GivenWeights(source, tensors, result.activation, folder)


def load_given(network: nn.Module, given: GivenWeights, head: frozenset[str], with_head: bool = True) -> LoadReport:
    """Load weights into a network of the same architecture.

    Args:
        network: The network, modified in place.
        given: The initial weights.
        head: The names of the tensors whose shape depends on the number of classes. If their shapes differ, they keep
            their initialization from the seed.
        with_head: Whether to load the head if its shape matches.

    Raises:
        RequestError: Less than half of the network is given, or a tensor outside the head has another shape or kind,
            or values that are not finite.
    """
    own = network.state_dict()
    theirs = _renamed(given.tensors, own)
    fitting: dict[str, Tensor] = {}
    for name in own.keys() & theirs.keys():
        here, there = own[name], theirs[name]
        if name in head and (not with_head or here.shape != there.shape):
            continue
        _check_tensor(name, here, there, given.source)
        fitting[name] = there
    numbers = sum(tensor.numel() for name, tensor in own.items() if name not in head)
    loaded = sum(own[name].numel() for name in fitting if name not in head)
    if 2 * loaded < numbers or 2 * len(fitting) < len(own):
        raise RequestError(
            f"{FLAG} {given.source} does not hold weights of this network: it has {len(fitting)} of its {len(own)} "
            f"tensors, and {100 * loaded / max(numbers, 1):.0f} % of its numbers; "
            f"it has {', '.join(list(given.tensors)[:3])}, the network {', '.join(list(own)[:3])}"
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(tensor)
    return LoadReport(
        loaded=tuple(name for name in own if name in fitting),
        made_new=tuple(name for name in own if name not in fitting),
        left_over=tuple(name for name in theirs if name not in own),
    )


def _renamed(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the network's names, without the prefixes that other programs add."""
    found = {name: tensor for name, tensor in given.items() if name not in _NOT_WEIGHTS}
    while True:
        prefix = next(
            (
                p
                for p in _PREFIXES
                if any(name.startswith(p) for name in found) and not any(name.startswith(p) for name in own)
            ),
            None,
        )
        if prefix is None:
            return found
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def _check_tensor(name: str, here: Tensor, there: Tensor, source: str) -> None:
    problem = ""
    if here.shape != there.shape:
        problem = f"is of shape {tuple(there.shape)}, and {tuple(here.shape)} in this network"
    elif here.is_floating_point() != there.is_floating_point() or there.is_complex() or there.is_quantized:
        problem = f"is of {there.dtype}, and {here.dtype} in this network"
    elif there.is_floating_point() and not bool(torch.isfinite(there).all()):
        problem = "has values that are not finite"
    if problem:
        raise RequestError(f"{FLAG} {source} does not hold weights of this network: {name} {problem}")


def torchvisions_weights(name: str, tag: str) -> Mapping[str, Tensor]:
    """Return torchvision's published weights of a network; raise RequestError if there are none.

    Args:
        name: The network's name in torchvision.
        tag: The name of the weights, such as `IMAGENET1K_V2`.
    """
    import torchvision

    known = torchvision.models.get_model_weights(name).__members__
    if tag not in known:
        raise RequestError(f"torchvision has no weights {tag!r} of {name}; it has {', '.join(known) or 'none'}")
    try:
        state: Mapping[str, Tensor] = known[tag].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # the network's own
        raise RequestError(f"torchvision cannot download {tag} of {name}: {error}") from None
    return state


def classes_there(given: GivenWeights, file: str, key: str) -> Any:
    """Return the classes recorded by the run that trained the weights; None if there is no such run or record.

    Args:
        given: The initial weights.
        file: The name of a JSON file in the run folder.
        key: The key of the classes in the file.

    Raises:
        RequestError: The file cannot be read.
    """
    path = None if given.folder is None else given.folder / file
    if path is None or not path.exists():
        return None
    try:
        return regular_json(path)[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None


def tensors_of_head(small: nn.Module, large: nn.Module) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes.

    Args:
        small, large: The same network with two different numbers of classes; both may be on the meta device.
    """
    shapes = {name: tensor.shape for name, tensor in large.state_dict().items()}
    return frozenset(name for name, tensor in small.state_dict().items() if shapes.get(name) != tensor.shape)
