"""The part of the training data that `--holdout validation` evaluates on, so that the test set stays unseen."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from ..messages.errors import RequestError

HOLDOUT_SHARE = 0.1
"""The fraction of the training data that is held out: large enough to rank settings, small enough to train on the rest
(CIFAR-10's customary split is 45,000 and 5,000 images; He et al., 2016)."""


class Kept(NamedTuple):
    """The training data in two parts, as increasing indices."""

    train: list[int]
    validation: list[int]


def split_training_data(groups: Sequence[str], labels: Sequence[Hashable] | None = None) -> Kept:
    """Split training samples in two parts by their names alone, so that all seeds and activations have the same split.

    Args:
        groups: A name for each sample; samples of one name stay in the same part.
        labels: The class of each sample; 10% of each class are held out.

    Raises:
        RequestError: There are too few samples to hold any out.

    Examples:
        >>> from golu_core.training.data import split_training_data
        >>> split_training_data([f"cat{number}" for number in range(10)]).validation
        [4]
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for number in range(len(groups)):
        members[None if labels is None else labels[number]].append(number)
    held: set[int] = set()
    for numbers in members.values():
        held |= {numbers[n] for n in second_part([groups[number] for number in numbers], HOLDOUT_SHARE)}
    if not held:
        raise RequestError(
            f"--holdout validation holds out {HOLDOUT_SHARE:.0%} of the training data, and {len(groups):,} samples are "
            f"too few for that"
        )
    return Kept([number for number in range(len(groups)) if number not in held], sorted(held))


def second_part(groups: Sequence[str], share: float) -> set[int]:
    """Return the indices of the samples that are split off: whole groups, chosen by the hash of their names.

    Args:
        groups: The group of each sample.
        share: The fraction of samples to split off, rounded to whole groups: at least one, and never all.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    order = sorted(members, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    wanted, found = share * len(groups), set[int]()
    for name in order[: max(0, len(order) - 1)]:
        if found and len(found) + len(members[name]) / 2 > wanted:
            break
        found.update(members[name])
    return found
