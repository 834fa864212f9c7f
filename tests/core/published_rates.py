"""The learning rates of the paper's rows as functions of the step: schedulers of torch and timm, and formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

Rate = Callable[[int], float]
"""The learning rate of a step, counted from 0."""


def steps_at(rate: float, factors: dict[int, float]) -> Callable[[int], Rate]:
    """A rate that is multiplied after epochs."""
    return lambda per_epoch: (
        lambda step: rate * math.prod(f for epoch, f in factors.items() if step // per_epoch >= epoch)
    )


def timm_epochs(kind: str, rate: float, epochs: int, **arguments: float) -> Callable[[int], Rate]:
    """The rates of one of timm's schedulers, which its script advances after each epoch."""

    def of(per_epoch: int) -> Rate:
        import timm.scheduler
        import torch

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        scheduler = getattr(timm.scheduler, kind)(optimizer, warmup_prefix=False, **arguments)
        rates = []
        for epoch in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step(epoch + 1)
        return lambda step: rates[step // per_epoch]

    return of


def timm_updates(rate: float, epochs: int, warmup_epochs: int, **arguments: float) -> Callable[[int], Rate]:
    """timm's cosine over updates, as TinyViT's trainer builds it."""

    def of(per_epoch: int) -> Rate:
        import torch
        from timm.scheduler import CosineLRScheduler

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        total, warmup = epochs * per_epoch, warmup_epochs * per_epoch
        scheduler = CosineLRScheduler(optimizer, t_initial=total, warmup_t=warmup, t_in_epochs=False, **arguments)
        return lambda step: scheduler._get_lr(step)[0]

    return of


def torch_epochs(rate: float, epochs: int, warmup: int, start: float) -> Callable[[int], Rate]:
    """torch's LinearLR and then CosineAnnealingLR, each advanced after an epoch (torchvision's reference)."""

    def of(per_epoch: int) -> Rate:
        import torch
        from torch.optim import lr_scheduler

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        first = lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=warmup)
        then = lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs - warmup)
        both = lr_scheduler.SequentialLR(optimizer, [first, then], [warmup])
        rates = []
        for _ in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            both.step()
        return lambda step: rates[step // per_epoch]

    return of


def detection(rate: float) -> Callable[[int], Rate]:
    """torchvision's reference: linear from a thousandth in the first epoch, a tenth after 16 and 22 epochs."""

    def of(per_epoch: int) -> Rate:
        length = min(1000, per_epoch - 1)

        def at(step: int) -> float:
            if step < length:
                return rate * (0.001 + 0.999 * step / length)
            return rate * 0.1 ** ((step // per_epoch >= 16) + (step // per_epoch >= 22))

        return at

    return of


def nanogpt(rate: float, final: float, warmup: int, total: int) -> Callable[[int], Rate]:
    """nanoGPT's: linear from 0, half a cosine to the final rate."""

    def at(step: int) -> float:
        if step < warmup:
            return rate * step / warmup
        return final + 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) * (rate - final)

    return lambda _: at


def fairseq(rate: float, first: float, warmup: int) -> Callable[[int], Rate]:
    """fairseq's inverse square root."""
    return lambda _: (
        lambda step: first + (rate - first) * step / warmup if step < warmup else rate * math.sqrt(warmup / step)
    )


def polynomial(rate: float, epochs: int) -> Callable[[int], Rate]:
    """(1 - progress) ^ 0.9 in each update."""
    return lambda per_epoch: lambda step: rate * (1 - step / (epochs * per_epoch)) ** 0.9


def described_cosine(rate: float, warmup: int, epochs: int) -> Callable[[int], Rate]:
    """The paper's text: warm-up from a tenth, which does not count in the cosine to 0."""

    def of(per_epoch: int) -> Rate:
        def at(step: int) -> float:
            if step < warmup:
                return rate * (0.1 + 0.9 * step / warmup)
            return rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (epochs * per_epoch)))

        return at

    return of
