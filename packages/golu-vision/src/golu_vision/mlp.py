"""Multi-layer perceptrons of the paper's small ablations: blocks of a linear layer, layer norm and an activation."""

from __future__ import annotations

import re

from torch import Tensor, nn

from golu_core.training import RequestError

from .config import GRAY_SOURCES, Data

_NAME = re.compile(r"(?P<blocks>[1-9]\d?)x(?P<width>[1-9]\d{0,4})")


class Mlp(nn.Module):
    """Pixels, blocks of Linear, LayerNorm and ReLU, then a linear classifier.

    Args:
        channels: of the images that count: 1 where all three are equal.
        side: of the square images.
        blocks, width: of the hidden layers.
        classes: of the data.
    """

    def __init__(self, channels: int, side: int, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        self.channels = channels
        layers: list[nn.Module] = []
        inputs = channels * side * side
        for _ in range(blocks):
            layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
            inputs = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, side, side) float32 images to (N, classes) logits."""
        logits: Tensor = self.head(self.blocks(images[:, : self.channels].flatten(1)))
        return logits


def build_mlp(name: str, data: Data, classes: int) -> Mlp:
    """A perceptron by its name, `2x512` for two blocks of width 512; RequestError for any other form."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise RequestError(f"there is no model 'mlp/{name}': name blocks and width, such as mlp/2x512")
    gray = data.source in GRAY_SOURCES and not data.is_own
    return Mlp(1 if gray else 3, data.size, int(found["blocks"]), int(found["width"]), classes)
