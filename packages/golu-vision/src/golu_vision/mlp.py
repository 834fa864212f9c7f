"""Multi-layer perceptrons from the paper's small ablations: blocks of linear layer, layer norm, and activation."""

from __future__ import annotations

import re

from torch import Tensor, nn

from golu_core.training import RequestError

from .config import GRAY_SOURCES, Data

_NAME = re.compile(r"(?P<blocks>[1-9]\d?)x(?P<width>[1-9]\d{0,4})")


class Mlp(nn.Module):
    """Flattened pixels, blocks of Linear, LayerNorm, and ReLU, then a linear classifier.

    Args:
        channels: Number of input channels: 1 for grayscale images, whose three channels are equal.
        side: Height and width of the images.
        blocks: Number of hidden layers.
        width: Width of the hidden layers.
        classes: Number of classes.
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
        """Map (N, 3, side, side) float32 images to (N, classes) logits."""
        logits: Tensor = self.head(self.blocks(images[:, : self.channels].flatten(1)))
        return logits


def build_mlp(name: str, data: Data, classes: int) -> Mlp:
    """Build a perceptron from its name, such as `2x512` for two blocks of width 512.

    Raises:
        RequestError: The name does not have this form.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise RequestError(f"unknown model 'mlp/{name}': write the number of blocks and their width, such as mlp/2x512")
    gray = data.source in GRAY_SOURCES and not data.is_own
    return Mlp(1 if gray else 3, data.size, int(found["blocks"]), int(found["width"]), classes)
