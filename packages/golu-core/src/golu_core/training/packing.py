"""Batches on their way from a loader process, with all small tensors in one piece of memory.

Each tensor that crosses costs the training process a connection of its own, 0.2 to 0.3 ms whatever its size; a batch of
detection has four for each image.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor

_SMALL = 1 << 14
"""Bytes up to which a tensor is packed: whoever keeps one keeps the others of its batch in memory, too."""
_ALIGNED = 64


class _Place(NamedTuple):
    """Where a tensor is: `start` in bytes if it is packed, else its number among the large ones."""

    start: int | None
    number: int
    dtype: torch.dtype
    shape: torch.Size


@dataclass(frozen=True)
class Packed:
    """A batch of any structure.

    Attributes:
        content: the batch, pickled, with numbers in place of its tensors.
        places: of the tensors, by these numbers.
        small: all small tensors: bytes, or (bytes,) uint8 in page-locked memory.
        large: the others, as they were.
    """

    content: bytes
    places: Sequence[_Place]
    small: bytearray | Tensor
    large: Sequence[Tensor]

    def pin_memory(self) -> Packed:
        """The same in page-locked memory, as torch's loaders ask for it where there is a GPU."""
        large = [tensor.pin_memory() for tensor in self.large]
        return Packed(self.content, self.places, self.small_tensor().pin_memory(), large)

    def small_tensor(self) -> Tensor:
        """`small` as a tensor of the same memory."""
        if isinstance(self.small, Tensor):
            return self.small
        return torch.frombuffer(self.small, dtype=torch.uint8) if self.small else torch.empty(0, dtype=torch.uint8)


def packed(batch: Any) -> Packed:
    """A batch as it leaves a loader process."""
    stream = io.BytesIO()
    packer = _Packer(stream)
    packer.dump(batch)
    found = Packed(stream.getvalue(), packer.places, bytearray(packer.size), packer.large)
    small = found.small_tensor()
    for start, tensor in packer.small:
        size = tensor.numel() * tensor.element_size()
        small[start : start + size].view(tensor.dtype).copy_(tensor.flatten())
    return found


def unpacked(found: Packed) -> Any:
    """The batch; its small tensors are views of one."""
    return _Unpacker(io.BytesIO(found.content), found).load()


class _Packer(ForkingPickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self.places: list[_Place] = []
        self.small: list[tuple[int, Tensor]] = []
        self.large: list[Tensor] = []
        self.size = 0

    def persistent_id(self, found: Any) -> int | None:
        if type(found) is not Tensor or found.layout is not torch.strided or found.device.type != "cpu":
            return None
        size = found.numel() * found.element_size()
        is_small = size <= _SMALL
        self.places.append(_Place(self.size if is_small else None, len(self.large), found.dtype, found.shape))
        if is_small:
            self.small.append((self.size, found))
            self.size += -(-size // _ALIGNED) * _ALIGNED
        else:
            self.large.append(found)
        return len(self.places) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, found: Packed) -> None:
        super().__init__(stream)
        self._found, self._small = found, found.small_tensor()

    def persistent_load(self, number: int) -> Tensor:
        place = self._found.places[number]
        if place.start is None:
            return self._found.large[place.number]
        size = place.shape.numel() * place.dtype.itemsize
        return self._small[place.start : place.start + size].view(place.dtype).view(place.shape)
