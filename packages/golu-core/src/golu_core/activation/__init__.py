"""GoLU itself: function, module, registry of activations, and the swap of a model's activations. Needs torch only.

Names are loaded when first used, so that a command line can check an activation's name without importing torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import FunctionalCall as FunctionalCall
    from .calls import functional_activations as functional_activations
    from .channels import size_per_channel as size_per_channel
    from .expression import golu_expression as golu_expression
    from .functional import gated_golu as gated_golu
    from .functional import golu as golu
    from .hugging_face import register_with_transformers as register_with_transformers
    from .loading import load_activation as load_activation
    from .modules import GoLU as GoLU
    from .modules import gated as gated
    from .registry import ACTIVATIONS as ACTIVATIONS
    from .registry import build_activation as build_activation
    from .registry import canonical_name as canonical_name
    from .surgery import ReplacementReport as ReplacementReport
    from .surgery import find_activations as find_activations
    from .surgery import replace_activations as replace_activations

_HOMES = {
    "golu": "functional",
    "gated_golu": "functional",
    "golu_expression": "expression",
    "load_activation": "loading",
    "register_with_transformers": "hugging_face",
    "GoLU": "modules",
    "gated": "modules",
    "ACTIVATIONS": "registry",
    "build_activation": "registry",
    "canonical_name": "registry",
    "FunctionalCall": "calls",
    "ReplacementReport": "surgery",
    "find_activations": "surgery",
    "functional_activations": "calls",
    "replace_activations": "surgery",
    "size_per_channel": "channels",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
