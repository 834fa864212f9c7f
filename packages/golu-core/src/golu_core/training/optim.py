"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # recipes hold these settings, and their table must not wait for torch
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel


@dataclass(frozen=True)
class Optim:
    """An optimizer.

    Attributes:
        name: `sgd`, `adamw` or `rmsprop_tf` (RMSProp with epsilon inside the root, as TensorFlow has it; timm's).
        lr: base learning rate.
        momentum: of SGD and RMSProp.
        nesterov: of SGD.
        betas: of AdamW.
        eps: of AdamW and RMSProp.
        weight_decay: on all weights, or where `decay` says.
        decay: `all` parameters; `matrices`: not biases, norms and other vectors, nor what the model itself exempts
            by a method `no_weight_decay`, which is timm's convention; `but_norms`: all but those of normalisation
            layers, which is torchvision's reference for detection.
        lr_scales: parts of the model, by the beginning of their parameters' names, with a multiple of the rate.
    """

    name: Literal["sgd", "adamw", "rmsprop_tf"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: Literal["all", "matrices", "but_norms"] = "all"
    lr_scales: tuple[tuple[str, float], ...] = ()


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """The trainable parameters in groups: with weight decay and without, each with its multiple of the rate."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    exempt = _exempt_from_decay(model, named, optim)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        scale = next((scale for start, scale in optim.lr_scales if name.startswith(start)), 1.0)
        groups.setdefault((name in exempt, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if is_exempt else optim.weight_decay, "lr_scale": scale}
        for (is_exempt, scale), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def _exempt_from_decay(model: nn.Module, named: list[tuple[str, nn.Parameter]], optim: Optim) -> set[str]:
    """Names of the parameters without weight decay."""
    if optim.decay == "all":
        return set()
    if optim.decay == "but_norms":
        norms = {name for name, module in model.named_modules() if _is_norm(module)}
        return {name for name, _ in named if name.rpartition(".")[0] in norms}
    exempt: Collection[str] = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    keywords: Collection[str] = getattr(model, "no_weight_decay_keywords", tuple)()
    return {
        name
        for name, parameter in named
        if parameter.ndim <= 1 or name.endswith(".bias") or name in exempt or any(k in name for k in keywords)
    }


def _is_norm(module: nn.Module) -> bool:
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.instancenorm import _InstanceNorm

    return isinstance(module, (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm))


def build_optimizer(model: nn.Module, optim: Optim, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the model's parameter groups, fused where the device has it."""
    import torch

    groups = parameter_groups(model, optim)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
    if optim.name == "adamw":
        fused = device.type in ("cuda", "cpu")
        return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=fused)
    from timm.optim import RMSpropTF

    return RMSpropTF(groups, lr=optim.lr, alpha=0.9, eps=optim.eps, momentum=optim.momentum)


@dataclass(frozen=True)
class WeightAverage:
    """Exponential moving average of the weights.

    Attributes:
        decay: of one update.
        every: optimizer steps between updates.
        evaluate: whether the test metrics are those of the average.
        copy_epochs: in these first epochs the average is a copy of the weights.
    """

    decay: float
    every: int = 1
    evaluate: bool = True
    copy_epochs: int = 0


def averaged_model(model: nn.Module, average: WeightAverage) -> AveragedModel:
    """torch's own averaged copy of a model, with buffers averaged too."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    make_average: Callable[..., Any] = get_ema_multi_avg_fn(average.decay)
    return AveragedModel(model, multi_avg_fn=make_average, use_buffers=True)
