"""The one place that reads files of weights: safetensors, and what `torch.save` wrote, without running any code.

A pickle can name any function, which unpickling then calls. torch's unpickler with `weights_only=True` knows tensors
and plain values, and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...regular_files import check_regular
from ..messages.errors import RequestError

# what training programs wrap a state dict in, the better weights first: torchvision's references, timm, Lightning
_WRAPPERS = ("model_ema", "state_dict_ema", "ema", "state_dict", "model_state_dict", "model", "module")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, or the one in a training program's checkpoint, on the CPU.

    Args:
        path: `.safetensors`, or of another name and then by `torch.save`.

    Raises:
        RequestError: the file cannot be read, needs code to be run, or holds no state dict.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            check_regular(path)
            return load_file(path)
        except Exception as error:  # safetensors has its own
            raise RequestError(f"{path} cannot be read as safetensors: {error}") from None
    found = _state_dict(read_saved(path))
    if not found:
        raise RequestError(f"{path} holds no state dict: no names with tensors were found in it")
    return found


def read_saved(path: Path) -> Any:
    """The tensors and plain values that `torch.save` wrote, on the CPU.

    Raises:
        RequestError: the file cannot be read, or needs code to be run.
    """
    try:
        check_regular(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip files and torch each have their own
        raise RequestError(f"{path} {_why_not(error)}") from None


def load_into(model: nn.Module, path: Path) -> None:
    """Loads a file of safetensors into a model that has exactly its tensors.

    Raises:
        RequestError: the file cannot be read, or does not fit.
    """
    from safetensors.torch import load_model

    try:
        check_regular(path)
        load_model(model, path)
    except Exception as error:  # safetensors and torch each have their own
        raise RequestError(f"{path} does not fit the model of its config: {str(error)[:300]}") from None


def _why_not(error: Exception) -> str:
    text = str(error).strip()
    if "weights_only" in text or "Unsupported" in text or "GLOBAL" in text:
        reason = next((line.strip() for line in text.splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
        return (
            f"holds more than tensors, and reading it would run its code, so it was not read ({reason[:160]}): "
            f"save the state dict alone, by safetensors.torch.save_file or torch.save(model.state_dict(), ...)"
        )
    return f"cannot be read by torch.load: {text.partition(chr(10))[0][:200] or type(error).__name__}"


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one that a training program's checkpoint holds."""
    if not isinstance(content, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and (found := _state_dict(inner)):
            return found
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
