"""Batches that cross from a loader process in one piece."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from golu_core.training.data.packing import _SMALL, Packed, packed, unpacked

DTYPES = [torch.uint8, torch.bool, torch.int64, torch.float64, torch.float32, torch.bfloat16, torch.complex64]


class Pairs(NamedTuple):
    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    scale: float
    names: tuple[str, ...]


def crossed(batch):
    """Through what multiprocessing's queues do."""
    return unpacked(pickle.loads(bytes(ForkingPickler.dumps(packed(batch)))))


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape and found.device == expected.device
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_and_shape(dtype):
    shapes = [(), (0,), (3, 0, 2), (1,), (7,), (2, 3, 5), (_SMALL + 1,)]
    tensors = [(torch.randn(shape) * 50).abs().to(dtype) for shape in shapes]
    views = [torch.arange(24.0).to(dtype).reshape(4, 6).T, torch.arange(9.0).to(dtype)[::2], tensors[1].expand(4, 0)]
    assert_same(crossed([*tensors, *views]), [*tensors, *views])


def test_a_batch_keeps_its_structure():
    shared = torch.arange(5)
    batch = Pairs(
        [torch.randint(255, (3, 100, 100), dtype=torch.uint8), torch.zeros(3, 4, 4)],
        [{"boxes": torch.rand(2, 4), "labels": shared}, {"boxes": torch.empty(0, 4), "labels": shared}],
        0.25,
        ("a", "b"),
    )
    assert_same(crossed(batch), batch)


def test_small_tensors_are_one_and_large_ones_their_own():
    batch = [torch.rand(4) for _ in range(50)] + [torch.rand(1 << 16)]
    found = packed(batch)
    assert len(found.large) == 1 and found.large[0].data_ptr() == batch[-1].data_ptr()
    views = unpacked(found)[:50]
    assert len({tensor.untyped_storage().data_ptr() for tensor in views}) == 1
    assert found.content == 50 * 64
    views[0].fill_(7)
    assert all((tensor != 7).all() for tensor in views[1:])


def test_other_kinds_of_tensors_stay_what_they_are():
    boxes = tv_tensors.BoundingBoxes(torch.rand(2, 4), format="XYXY", canvas_size=(8, 8))
    found = unpacked(packed([boxes, torch.rand(2)]))
    assert type(found[0]) is tv_tensors.BoundingBoxes and torch.equal(found[0], boxes)


def test_what_goes_through_the_pipe_is_short():
    """Up to 4,096 bytes are written at once or not at all, so that a loader's end leaves no half of a message."""
    for count in (1, 1000):
        sent = bytes(ForkingPickler.dumps(packed([{"boxes": torch.rand(4), "name": "x" * 50} for _ in range(count)])))
        assert len(sent) < 1024 and isinstance(pickle.loads(sent), Packed)
