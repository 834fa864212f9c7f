"""GoLU in transformers: by its name in any config, as `hidden_act="golu"`."""

from __future__ import annotations

from ..modules import GoLU
from .published import XIELU, Logish, SmeLU, SquaredReLU, TeLU

_CLASSES = {"golu": GoLU, "relu2": SquaredReLU, "telu": TeLU, "xielu": XIELU, "smelu": SmeLU, "logish": Logish}


def register_with_transformers() -> tuple[str, ...]:
    """Makes transformers know `golu`, and the names of this registry that it lacks; what it has stays as it is.

    To be called before a model is made, or loaded by `from_pretrained`, whose config names one of them.

    Returns:
        The names that were added; none when it is called again.

    Raises:
        ImportError: transformers is not installed.
    """
    from transformers.activations import ACT2FN

    added = tuple(name for name in _CLASSES if name not in ACT2FN)
    ACT2FN.update({name: _CLASSES[name] for name in added})
    return added
