"""Send batches from a loader process in one block of shared memory.

Each tensor that crosses costs the training process a connection of its own, 0.2 to 0.3 ms whatever its size; a batch of
detection has four for each image. What goes through the pipe itself stays short: where a loader is killed in the
middle of a long message, its reader waits for the rest forever.
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
        small: (bytes,) uint8: all small tensors, and then the batch, pickled with numbers in place of its tensors, and
            where these are.
        content: The offset of the pickled batch in `small`.
        large: The other tensors, unchanged.
    """

    small: Tensor
    content: int
    large: Sequence[Tensor]

    def pin_memory(self) -> Packed:
        """The same in page-locked memory, as torch's loaders ask for it where there is a GPU."""
        return Packed(self.small.pin_memory(), self.content, [tensor.pin_memory() for tensor in self.large])


def packed(batch: Any) -> Packed:
    """Pack a batch in a loader process."""
    stream = io.BytesIO()
    packer = _Packer(stream)
    packer.dump(batch)
    content = pickle.dumps((stream.getvalue(), packer.places))
    small = torch.empty(packer.size + len(content), dtype=torch.uint8)
    for start, tensor in packer.small:
        size = tensor.numel() * tensor.element_size()
        small[start : start + size].view(tensor.dtype).copy_(tensor.flatten())
    small[packer.size :] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return Packed(small, packer.size, packer.large)


def unpacked(found: Packed) -> Any:
    """Return the batch; its small tensors are views of one tensor."""
    return _Unpacker(found).load()


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
    def __init__(self, found: Packed) -> None:
        content, self._places = pickle.loads(found.small[found.content :].numpy().tobytes())
        self._found = found
        super().__init__(io.BytesIO(content))

    def persistent_load(self, number: int) -> Tensor:
        place = self._places[number]
        if place.start is None:
            return self._found.large[place.number]
        size = place.shape.numel() * place.dtype.itemsize
        return self._found.small[place.start : place.start + size].view(place.dtype).view(place.shape)
