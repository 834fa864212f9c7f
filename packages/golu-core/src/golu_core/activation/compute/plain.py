"""Which tensors and calls are plain, so that kernels may compute on memory.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)

# torch's own, which its Python code calls, too; a test fails when one of them goes away
_is_batched = torch._C._functorch.is_legacy_batchedtensor
_transform = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state


def is_transformed() -> bool:
    """Whether torch.func transforms what runs now."""
    return _transform() is not None


# What torch.compiler.assume_constant_result does, without its import of the whole compiler, which takes seconds. The
# compiler guards the transforms itself.
is_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_plain(x: Tensor) -> bool:
    """Whether x, of any shape, is a dense tensor with memory that holds its values as they are."""
    return (
        type(x) in _PLAIN_TYPES
        and x.layout is torch.strided
        and not (x.is_meta or x.is_nested or x.is_neg() or _is_batched(x) or x._is_zerotensor())
    )


def are_plain_and_alike(x: Tensor, *others: Tensor) -> bool:
    """Whether kernels may read the others, of any shape, wherever they read x: all plain, of its kind and shape."""
    return is_plain(x) and all(
        is_plain(other) and other.dtype == x.dtype and other.shape == x.shape and other.device == x.device
        for other in others
    )


def nobody_watches() -> bool:
    """Whether nothing traces, transforms or intercepts torch's calls."""
    return (
        forward_ad._current_level < 0 and _transform() is None and _dispatch_modes() == 0 and _tracing_state() is None
    )


@torch.jit.unused
def is_traced_or_forward_mode() -> bool:
    """Whether `torch.jit` traces what runs now, or derivatives are taken in forward mode."""
    return _tracing_state() is not None or forward_ad._current_level >= 0
