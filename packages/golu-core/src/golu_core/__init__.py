"""GoLU, the Gompertz Linear Unit, as a PyTorch activation, and what the golu training packages share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activation import GoLU as GoLU
    from .activation import build_activation as build_activation
    from .activation import gated_golu as gated_golu
    from .activation import golu as golu
    from .activation import load_activation as load_activation
    from .activation import register_with_transformers as register_with_transformers
    from .activation import replace_activations as replace_activations
    from .activation import size_per_channel as size_per_channel

    __version__: str

__all__ = [
    "GoLU",
    "__version__",
    "build_activation",
    "gated_golu",
    "golu",
    "load_activation",
    "register_with_transformers",
    "replace_activations",
    "size_per_channel",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("golu-core")
    from . import activation

    return getattr(activation, name)
