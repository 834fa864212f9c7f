"""Random numbers as a function of their purpose, independent of earlier draws."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache

import numpy
import torch


class Purpose(StrEnum):
    """The purpose of random numbers. Each has its own word; changing a word changes all numbers drawn for it.

    Examples:
        >>> import torch
        >>> from golu_core.training import Purpose, seeded
        >>> with seeded(0, Purpose.AUGMENT, 3, 17):  # seed, purpose, epoch, position
        ...     torch.randint(10, (4,))
        tensor([8, 8, 6, 2])
    """

    WEIGHTS = "weights"
    """Initial weights; (seed, purpose)."""
    ORDER = "order"
    """Order of an epoch's samples; (seed, purpose, epoch)."""
    STEP = "step"
    """Dropout and the like in one forward pass; (seed, purpose, step, micro-batch, process)."""
    LOADER = "loader"
    """Torch's own base seed of a loader, which nothing is drawn from."""
    AUGMENT = "augment"
    """Augmentation of one sample; (seed, purpose, epoch, position in the epoch)."""
    MIX = "mix"
    """Mixing of a group of samples; (seed, purpose, epoch, group)."""
    WINDOWS = "windows"
    """Where training windows of text begin; (seed, purpose, step)."""
    TEST_WINDOWS = "evaluation"
    """Where test windows of text begin; (seed, purpose, step)."""
    BUNDLES = "bundles"
    """Which pairs of equal length stand together; (seed, purpose)."""
    GENERATE = "generate"
    """Text; (seed, purpose)."""
    DIFFUSE = "diffuse"
    """Step and noise of a training image; (seed, purpose, epoch, position in the epoch)."""
    BATCH_NOISE = "batch noise"
    """Noise of a batch of training images, drawn on the device; (seed, purpose, epoch, batch)."""
    TEST_DIFFUSE = "test"
    """Steps and noises of a test image; (seed, purpose, image)."""
    NOISE = "noise"
    """Noise that images are drawn from; (seed, purpose, image, what for)."""
    PERTURB = "perturb"
    """Noise on the weights or inputs of a finished network; (draw, purpose)."""
    DIRECTION = "direction"
    """A direction in the space of a finished network's weights; (number, purpose)."""
    HESSIAN = "hessian"
    """Vectors that a Hessian is applied to; (0, purpose, what for)."""


def derive_seed(*purpose: int | str) -> int:
    """Derive a 63-bit seed from integers and words; equal purposes give equal seeds on every machine."""
    text = "\0".join(str(part) for part in purpose)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*purpose: int | str, again: torch.Generator | None = None) -> torch.Generator:
    """Return a CPU generator for one purpose: a new one, or an existing one reseeded, which is cheaper."""
    return (torch.Generator() if again is None else again).manual_seed(derive_seed(*purpose))


def seed_global_generators(*purpose: int | str) -> None:
    """Seed torch on all devices, NumPy, and Python's `random`, such as before you build a model.

    Args:
        *purpose: The run's seed, a `Purpose`, and whatever else the numbers are a function of.

    Examples:
        >>> import torch
        >>> from golu_core.training import Purpose, seed_global_generators
        >>> seed_global_generators(0, Purpose.WEIGHTS)
        >>> torch.nn.Linear(2, 1).weight.detach()
        tensor([[-0.1114,  0.6182]])
    """
    seed = derive_seed(*purpose)
    if _has_accelerator():
        torch.manual_seed(seed)
    else:  # torch.manual_seed would note a call for a later start of CUDA, each time, with the whole stack
        torch.default_generator.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


@cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


@contextmanager
def seeded(*purpose: int | str) -> Iterator[None]:
    """Run a block, such as one sample's augmentation, with its own random numbers.

    The global generators are afterwards as they were before. Do not use it for blocks that draw random numbers on a
    GPU.

    Args:
        *purpose: The run's seed, a `Purpose`, and whatever else the numbers are a function of.

    Examples:
        >>> import random
        >>> from golu_core.training import Purpose, seeded
        >>> with seeded(0, Purpose.AUGMENT, 3, 17):  # seed, purpose, epoch, position
        ...     random.random() < 0.5
        True
    """
    states = torch.get_rng_state(), numpy.random.get_state(), random.getstate()
    seed = derive_seed(*purpose)
    torch.default_generator.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        numpy.random.set_state(states[1])
        random.setstate(states[2])
