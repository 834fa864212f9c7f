"""GoLU without compiled kernels: in place on a few temporaries, on any device that torch has.

On the CPU the work on large tensors goes chunk by chunk through scratch memory that stays in cache and is kept between
calls: torch's elementwise kernels are then bound by arithmetic, not by memory or page faults.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from .layout import dense, laid_out_like
from .parameters import GompertzParameters

_LOG2_E = float(numpy.float32(math.log2(math.e)))
_LN_2 = math.log(2.0)
_CPU_MIN_CHUNK = 1 << 18
_CPU_CHUNK_PER_THREAD = 1 << 16
_DEVICE_CHUNK = 1 << 24
_SMALL = 1 << 15
"""Elements up to which fewer calls are worth more than scratch memory that is kept."""
_STAGGER = 784
"""Elements by which scratch tensors stand apart: at a power of two they would share the cache's sets."""


def golu_forward(x: Tensor, parameters: GompertzParameters) -> Tensor:
    """GoLU of a strided tensor of any shape and float dtype; the result has x's dtype and memory format."""
    if x.numel() <= _SMALL:
        return _small_forward(x, parameters)
    x = dense(x)
    y = torch.empty_like(x)
    for (piece, out), (decay, gate, error, *wide) in _pieces(x, y):
        clamped = wide[0].copy_(piece) if wide else piece
        clamped = torch.clamp(clamped, min=parameters.low, out=wide[0] if wide else out)
        _write_decay(decay, clamped, parameters, base2=bool(wide))
        _write_gate(gate, decay, parameters, error)
        clamped.mul_(gate)
        if wide:
            out.copy_(clamped)
    return y


def golu_backward(gradient: Tensor, x: Tensor, parameters: GompertzParameters) -> Tensor:
    """The gradient with respect to x, given that of the output; both have one shape and dtype."""
    if x.numel() <= _SMALL:
        return _small_backward(gradient, x, parameters)
    x = dense(x)
    gradient = laid_out_like(gradient, x)
    result = torch.empty_like(x)
    for (piece, incoming, out), (decay, clamped, error, *wide) in _pieces(x, gradient, result):
        gate = wide[0] if wide else out
        torch.clamp(clamped.copy_(piece) if wide else piece, parameters.low, parameters.high, out=clamped)
        _write_decay(decay, clamped, parameters, base2=bool(wide))
        _write_gate(gate, decay, parameters, error)
        clamped.mul_(decay)
        if parameters.gamma != 1.0:
            clamped.mul_(parameters.gamma)
        gate.addcmul_(gate, clamped).mul_(incoming)
        if wide:
            out.copy_(gate)
    return result


def _small_forward(x: Tensor, parameters: GompertzParameters) -> Tensor:
    value = torch.clamp(_at_least_float32(x), min=parameters.low)
    value.mul_(_gate(_decay(value, parameters), parameters))
    return value if value.dtype == x.dtype else value.to(x.dtype)


def _small_backward(gradient: Tensor, x: Tensor, parameters: GompertzParameters) -> Tensor:
    inside = torch.clamp(_at_least_float32(x), parameters.low, parameters.high)
    decay = _decay(inside, parameters)
    inside.mul_(decay)
    if parameters.gamma != 1.0:
        inside.mul_(parameters.gamma)
    gate = _gate(decay, parameters)
    slope = gate.addcmul_(gate, inside).mul_(gradient)
    return slope if slope.dtype == x.dtype else slope.to(x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _decay(x: Tensor, parameters: GompertzParameters) -> Tensor:
    """`beta * exp(-gamma * x)` in new memory."""
    decay = (torch.neg(x) if parameters.gamma == 1.0 else torch.mul(x, -parameters.gamma)).exp_()
    return decay if parameters.beta == 1.0 else decay.mul_(parameters.beta)


def _gate(decay: Tensor, parameters: GompertzParameters) -> Tensor:
    """`alpha * exp(-decay)` in the memory of `decay`."""
    gate = decay.neg_().exp_()
    return gate if parameters.alpha == 1.0 else gate.mul_(parameters.alpha)


def _write_decay(decay: Tensor, clamped: Tensor, parameters: GompertzParameters, base2: bool) -> None:
    """Writes `beta * exp(-gamma * x)` to `decay`.

    The function amplifies the rounding of this exponential by `exp(-x)`, so float32 takes torch's accurate `exp`. In
    base 2 it is several times faster on some CPUs, and precise enough for what is rounded to a half type.
    """
    if base2:
        torch.mul(clamped, -parameters.gamma * _LOG2_E, out=decay)
        decay.exp2_()
    elif parameters.gamma == 1.0:
        torch.neg(clamped, out=decay)
        decay.exp_()
    else:
        torch.mul(clamped, -parameters.gamma, out=decay)
        decay.exp_()
    if parameters.beta != 1.0:
        decay.mul_(parameters.beta)


def _write_gate(gate: Tensor, decay: Tensor, parameters: GompertzParameters, error: Tensor) -> None:
    """Writes `alpha * exp(-decay)` to `gate`, on the CPU in float32 in base 2.

    The rounding of the argument in base 2 is put back: `torch.add(..., alpha=)` is a fused multiply-add, which makes
    the scratch `error` that rounding exactly.
    """
    if decay.dtype == torch.float32 and decay.device.type == "cpu":
        torch.mul(decay, -_LOG2_E, out=gate)
        torch.add(gate, decay, alpha=_LOG2_E, out=error)
        gate.exp2_()
        gate.addcmul_(gate, error, value=-_LN_2)
    else:
        torch.neg(decay, out=gate)
        gate.exp_()
    if parameters.alpha != 1.0:
        gate.mul_(parameters.alpha)


def _pieces(x: Tensor, *others: Tensor) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """Flat pieces of equally laid out dense tensors, each with scratch of its size.

    The scratch is three tensors in x's own dtype, or four in float32 for the half types.
    """
    count = x.numel()
    half = x.dtype in (torch.float16, torch.bfloat16)
    dtype, buffers = (torch.float32, 4) if half else (x.dtype, 3)
    if x.device.type == "cpu":
        length = max(_CPU_MIN_CHUNK, _CPU_CHUNK_PER_THREAD * torch.get_num_threads())
        scratch = _kept_scratch(dtype, length)[:buffers]
    else:
        length = min(max(count, 1), _DEVICE_CHUNK)
        scratch = torch.empty(buffers, length, dtype=dtype, device=x.device).unbind()
    flat = [tensor.as_strided((count,), (1,)) for tensor in (x, *others)]
    for start in range(0, count, length):
        stop = min(start + length, count)
        size = stop - start
        whole = size == count
        yield (
            flat if whole else [tensor[start:stop] for tensor in flat],
            scratch if size == length else [buffer[:size] for buffer in scratch],
        )


_kept = threading.local()


def _kept_scratch(dtype: torch.dtype, length: int) -> Sequence[Tensor]:
    """Four tensors of `length` elements on the CPU, which each thread keeps: fresh pages cost more than the work."""
    kept: dict[Any, Sequence[Tensor]] = _kept.__dict__
    if (dtype, length) not in kept:
        kept.clear()
        with torch.inference_mode(False):  # inference tensors could not be written to outside inference mode
            kept[dtype, length] = [row[:length] for row in torch.empty(4, length + _STAGGER, dtype=dtype, device="cpu")]
    return kept[dtype, length]
