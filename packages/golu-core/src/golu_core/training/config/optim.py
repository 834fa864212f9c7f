"""Optimizers, their parameter groups, and averages of the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..messages.errors import RequestError
from .fields import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, added_field

if TYPE_CHECKING:  # recipes hold these settings, and their table must not wait for torch
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

Decay = Literal["all", "matrices", "all_but_norms"]


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """What all optimizers have.

    Attributes:
        lr: Base learning rate.
        weight_decay: Weight decay, of the weights that `decay` names.
        decay: Which weights decay: `all`; `matrices`, without biases, norms, and other vectors, and without what the
            model itself exempts by a method `no_weight_decay` (timm's convention); `all_but_norms`, without those of
            normalization layers (torchvision's reference for detection).
        lr_scales: Multiples of the learning rate for parts of the model, each part by the beginning of its parameters'
            names.
        backbone_lr_scale: Multiple of the learning rate for all but the head, where a run starts from given weights.
    """

    FORMER_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {"decay": {"all_but_norms": "but_norms"}}

    lr: PositiveFloat = 0.1
    weight_decay: NonNegativeFloat = 0.0
    decay: Decay = "all"
    lr_scales: tuple[tuple[str, PositiveFloat], ...] = ()
    backbone_lr_scale: PositiveFloat = added_field(1.0)


@dataclass(frozen=True, kw_only=True)
class Sgd(_Groups):
    """Stochastic gradient descent, as `torch.optim.SGD`.

    Attributes:
        momentum: Momentum factor.
        nesterov: Use Nesterov momentum.

    Examples:
        >>> import torch
        >>> from golu_core.training import Sgd, build_optimizer
        >>> optimizer = build_optimizer(torch.nn.Linear(4, 2), Sgd(lr=0.05, nesterov=True), torch.device("cpu"))
        >>> optimizer.defaults["nesterov"]
        True
    """

    kind: ClassVar[str] = "sgd"
    momentum: Fraction = 0.9
    nesterov: bool = False

    def check(self, flag: str) -> None:
        if self.nesterov and self.momentum == 0:
            raise RequestError(f"{flag}.nesterov needs a {flag}.momentum above 0")


@dataclass(frozen=True, kw_only=True)
class AdamW(_Groups):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), as `torch.optim.AdamW`.

    Attributes:
        betas: Decay rates of the two moving averages.
        eps: Added to the root of the second average.

    Examples:
        >>> import torch
        >>> from golu_core.training import AdamW, build_optimizer
        >>> optim = AdamW(lr=6e-4, weight_decay=0.1, betas=(0.9, 0.95))
        >>> build_optimizer(torch.nn.Linear(4, 2), optim, torch.device("cpu")).defaults["betas"]
        (0.9, 0.95)
    """

    kind: ClassVar[str] = "adamw"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8


@dataclass(frozen=True, kw_only=True)
class RmsPropTf(_Groups):
    """RMSProp with epsilon inside the root, as TensorFlow has it; timm's.

    Attributes:
        alpha: Decay rate of the moving average of squares.
        momentum: Share of the last update that is added.
        eps: Added to the average, inside the root.
    """

    kind: ClassVar[str] = "rmsprop_tf"
    lr: PositiveFloat = 0.01
    alpha: Fraction = 0.9
    momentum: Fraction = 0.9
    eps: PositiveFloat = 1e-3


Optim = Sgd | AdamW | RmsPropTf


def parameter_groups(model: nn.Module, optim: Optim, head: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups with and without weight decay, each with its learning rate scale.

    Args:
        model: The model whose parameters are trained.
        optim: The recipe's optimizer settings.
        head: The names of the parameters that `backbone_lr_scale` does not scale.

    Raises:
        RequestError: `lr_scales` names a part that the model does not have, or a backbone is scaled without a head.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for start, _ in optim.lr_scales:
        if not any(name.startswith(start) for name, _ in named):
            raise RequestError(f"--optim.lr-scales: no trained parameter's name begins with {start!r}")
    if optim.backbone_lr_scale != 1 and not head:
        raise RequestError("--optim.backbone-lr-scale: this network has no separate head: use --optim.lr")
    exempt = _exempt_from_decay(model, named, optim)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        scale = next((scale for start, scale in optim.lr_scales if name.startswith(start)), 1.0)
        scale *= 1.0 if name in head else optim.backbone_lr_scale
        groups.setdefault((name in exempt, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if is_exempt else optim.weight_decay, "lr_scale": scale}
        for (is_exempt, scale), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def _exempt_from_decay(model: nn.Module, named: list[tuple[str, nn.Parameter]], optim: Optim) -> set[str]:
    """Names of the parameters without weight decay; GoLU's own, logarithms that decay would pull to 0, always are."""
    from golu_core.activation import GoLU

    learned = {name for name, module in model.named_modules() if isinstance(module, GoLU)}
    gates = {name for name, _ in named if name.rpartition(".")[0] in learned}
    if optim.decay == "all":
        return gates
    if optim.decay == "all_but_norms":
        norms = {name for name, module in model.named_modules() if _is_norm(module)}
        return gates | {name for name, _ in named if name.rpartition(".")[0] in norms}
    exempt: Collection[str] = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    keywords: Collection[str] = getattr(model, "no_weight_decay_keywords", tuple)()
    return gates | {
        name
        for name, parameter in named
        if parameter.ndim <= 1 or name.endswith(".bias") or name in exempt or any(k in name for k in keywords)
    }


def _is_norm(module: nn.Module) -> bool:
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.instancenorm import _InstanceNorm

    return isinstance(module, (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm))


def build_optimizer(
    model: nn.Module, optim: Optim, device: torch.device, head: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Build the optimizer over a model's parameter groups, fused where the device has it.

    Args:
        model: The model whose parameters are trained.
        optim: The recipe's `Sgd`, `AdamW` or another choice of the flag `--optim`.
        device: The device that the parameters are on.
        head: The names of the parameters that `backbone_lr_scale` does not scale.

    Raises:
        RequestError: `lr_scales` names a part that the model does not have, or a backbone is scaled without a head.

    Examples:
        >>> import torch
        >>> from golu_core.training import AdamW, build_optimizer
        >>> optim = AdamW(weight_decay=0.1, decay="matrices")
        >>> optimizer = build_optimizer(torch.nn.Linear(4, 2), optim, torch.device("cpu"))
        >>> [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
        [(0.1, 1), (0.0, 1)]
    """
    import torch

    groups = parameter_groups(model, optim, head)
    if isinstance(optim, Sgd):
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
    if isinstance(optim, AdamW):
        fused = device.type in ("cuda", "cpu")
        return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=fused)
    from timm.optim import RMSpropTF

    return RMSpropTF(groups, lr=optim.lr, alpha=optim.alpha, eps=optim.eps, momentum=optim.momentum)


@dataclass(frozen=True)
class WeightAverage:
    """Exponential moving average of the weights.

    Attributes:
        decay: Decay rate of one update.
        every: Optimizer steps between updates.
        evaluate: Take the test metrics of the average instead of the last weights.
        copy_epochs: In this many first epochs the average is a copy of the weights.
        ramp: Limit the decay of update n to (1 + n) / (10 + n), so that the average of a short run does not consist of
            its first weights (TensorFlow's `ExponentialMovingAverage` with `num_updates`).

    Examples:
        >>> from golu_core.training import WeightAverage
        >>> average = WeightAverage(decay=0.999, every=2)
        >>> [step for step in range(1, 7) if average.moves_after(step, total=6)]
        [2, 4, 6]
    """

    kind: ClassVar[str] = "ema"
    decay: Fraction = 0.9999
    every: PositiveInt = 1
    evaluate: bool = True
    copy_epochs: NonNegativeInt = 0
    ramp: bool = True

    def moves_after(self, step: int, total: int) -> bool:
        """Return whether the average is updated after a step, counted from 1."""
        return step % self.every == 0

    def check(self, flag: str) -> None:
        if self.decay == 0:
            raise RequestError(f"{flag}.decay 0 keeps no average: use {flag} none")


@dataclass(frozen=True)
class LastAverage:
    """Mean of a run's last weights at equal distances, the very last among them (Vaswani et al., 2017, section 6.1).

    Attributes:
        count: How many weights are averaged.
        every: Optimizer steps between two of them.
        evaluate: Take the test metrics of the average instead of the last weights.
    """

    kind: ClassVar[str] = "last"
    count: PositiveInt = 5
    every: PositiveInt = 1500
    evaluate: bool = True

    def moves_after(self, step: int, total: int) -> bool:
        """Return whether the weights after a step, counted from 1, are part of the average."""
        left = total - step
        return left % self.every == 0 and left // self.every < self.count

    def check(self, flag: str) -> None:
        if self.count == 1:
            raise RequestError(f"{flag}.count 1 averages nothing: use {flag} none")


Average = WeightAverage | LastAverage


def averaged_model(model: nn.Module, average: Average) -> AveragedModel:
    """Return torch's averaged copy of a model, whose buffers are also averaged."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    if isinstance(average, LastAverage):
        return AveragedModel(model, use_buffers=True)

    def update(averaged: Any, current: Any, updates: Any) -> None:
        # the count that is handed over lies on the device: reading it would make the host wait in each step
        number = int(found.n_averaged)
        decay = min(average.decay, (1 + number) / (10 + number)) if average.ramp else average.decay
        get_ema_multi_avg_fn(decay)(averaged, current, updates)

    found = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return found
