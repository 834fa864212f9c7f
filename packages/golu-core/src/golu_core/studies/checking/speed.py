"""How fast an activation is beside others, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from golu_core.activation import build_activation
from golu_core.activation.names.loading import LoadedActivation

from .subject import quiet

_BESIDE = ("relu", "gelu", "swish", "mish")
_ELEMENTS = {"cpu": 1_000_000, "cuda": 10_000_000}
_SECONDS = 0.15
_ROUNDS = 3


def microseconds(loaded: LoadedActivation, device: torch.device) -> dict[str, dict[str, float]]:
    """Microseconds of `forward` and `backward` over a million float32 elements on a CPU, ten on a GPU, by activation.

    The least of three medians; activations take turns.
    """
    builders: Mapping[str, Callable[[], nn.Module]] = {
        loaded.text: loaded.build,
        **{name: functools.partial(build_activation, name) for name in _BESIDE if name != loaded.text},
    }
    x = torch.randn(_ELEMENTS.get(device.type, 1_000_000), 1, device=device)
    modules = {name: build().to(device).train() for name, build in builders.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in modules}
    for _ in range(_ROUNDS):
        for name, module in modules.items():
            for part, seconds in _once(module, x).items():
                found[name][part] = min(found[name].get(part, 1e9), 1e6 * seconds)
    return found


def _once(module: nn.Module, x: Tensor) -> dict[str, float]:
    points = x.clone().requires_grad_()
    given = points * 1.0
    y = module(given)
    gradient = torch.ones_like(y)
    parts = {
        "forward": ("with torch.no_grad(): module(x)", {"module": module, "x": x, "torch": torch}),
        "backward": (
            "torch.autograd.grad(y, points, gradient, retain_graph=True)",
            {"y": y, "points": given, "gradient": gradient, "torch": torch},
        ),
    }
    with quiet():  # its import brings the compiler of extensions, which warns of what is not needed here
        from torch.utils.benchmark import Timer
    threads = torch.get_num_threads()
    return {
        part: Timer(statement, globals=names, num_threads=threads).blocked_autorange(min_run_time=_SECONDS).median
        for part, (statement, names) in parts.items()
    }
