"""GoLU in transformers: by its name in any config, as `hidden_act="golu"`."""

from __future__ import annotations

from ..modules import GoLU
from .published import XIELU, Logish, SmeLU, SquaredReLU, TeLU

_CLASSES = {"golu": GoLU, "relu2": SquaredReLU, "telu": TeLU, "xielu": XIELU, "smelu": SmeLU, "logish": Logish}


def register_with_transformers() -> tuple[str, ...]:
    """Make transformers know `golu`, and those names of this registry that it lacks; what it has stays as it is.

    Call it before you build a model, or load one by `from_pretrained`, whose config names one of them.

    Returns:
        The names that were added; empty if you call it again.

    Raises:
        ImportError: transformers is not installed.

    Examples:
        >>> from golu_core import register_with_transformers
        >>> added = register_with_transformers()
        >>> from transformers.activations import ACT2FN
        >>> ACT2FN["golu"]
        GoLU(alpha=1, beta=1, gamma=1)
    """
    from transformers.activations import ACT2FN

    added = tuple(name for name in _CLASSES if name not in ACT2FN)
    ACT2FN.update({name: _CLASSES[name] for name in added})
    return added
