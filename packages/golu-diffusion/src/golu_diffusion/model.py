"""The UNet that predicts the noise in an image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from golu_core.activation import build_activation
from golu_core.training import Purpose, SwappedActivations, seed_global_generators, swapped_for
from golu_core.training.config import check_fields

from .config import DiffusionConfig, Model

# shapes: N images, C channels, E = 4 * width of the time embedding


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the step (Vaswani et al., 2017, section 3.5), and two linear layers."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), build_activation(activation), nn.Linear(4 * width, 4 * width)
        )

    def forward(self, steps: Tensor) -> Tensor:
        """Map (N,) steps, counted from 0, to (N, E)."""
        half = torch.arange(self.width // 2, device=steps.device, dtype=torch.float32)
        angles = steps[:, None].float() * torch.exp(-math.log(10_000) * 2 * half / self.width)
        embedded: Tensor = self.layers(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))
        return embedded


class Attention(nn.Module):
    """Single-head self-attention over the pixels, with a residual connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query, self.key, self.value, self.projection = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        if (
            torch.compiler.is_exporting()
        ):  # ONNX needs a head dimension; in eager mode, it would select a kernel that rounds differently
            mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        return x + self.projection(mixed)


class ResidualBlock(nn.Module):
    """Two convolutions with the step's embedding added in between, and optional attention."""

    def __init__(self, inputs: int, outputs: int, model: Model, activation: str, attention: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(model.groups, inputs), build_activation(activation), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.time = nn.Sequential(build_activation(activation), nn.Linear(4 * model.width, outputs))
        self.second = nn.Sequential(
            nn.GroupNorm(model.groups, outputs),
            build_activation(activation),
            nn.Dropout(model.dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attention = Attention(outputs, model.groups) if attention else nn.Identity()

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Map (N, C, H, W) and (N, E) to (N, C', H, W)."""
        y = self.first(x) + self.time(embedded)[:, :, None, None]
        result: Tensor = self.attention(self.second(y) + self.shortcut(x))
        return result


class Downsample(nn.Module):
    """A convolution that halves the size of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H / 2, W / 2)."""
        y: Tensor = self.convolution(x)
        return y


class Upsample(nn.Module):
    """Nearest-neighbor upsampling by 2, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 2 H, 2 W)."""
        y: Tensor = self.convolution(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y


class UNet(nn.Module):
    """The UNet that predicts the noise in images.

    Args:
        model: The model's sizes.
        activation: Name of the registered activation of all layers.
        image_channels: Number of channels in the images.

    Raises:
        RequestError: The sizes do not match.
    """

    def __init__(self, model: Model, activation: str, image_channels: int = 3) -> None:
        super().__init__()
        check_fields(model, "--model.")
        channels = [model.width * multiplier for multiplier in model.multipliers]
        self.time = TimeEmbedding(model.width, activation)
        self.head = nn.Conv2d(image_channels, model.width, 3, padding=1)

        def block(inputs: int, outputs: int, attention: bool) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, model, activation, attention)

        current, skips = model.width, [model.width]
        self.down = nn.ModuleList()
        for level, outputs in enumerate(channels):
            for _ in range(model.blocks):
                self.down.append(block(current, outputs, level in model.attention))
                current = outputs
                skips.append(current)
            if level < len(channels) - 1:
                self.down.append(Downsample(current))
                skips.append(current)
        self.middle = nn.ModuleList([block(current, current, True), block(current, current, False)])
        self.up = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(channels))):
            for _ in range(model.blocks + 1):
                self.up.append(block(skips.pop() + current, outputs, level in model.attention))
                current = outputs
            if level > 0:
                self.up.append(Upsample(current))
        self.tail = nn.Sequential(
            nn.GroupNorm(model.groups, current),
            build_activation(activation),
            nn.Conv2d(current, image_channels, 3, padding=1),
        )
        convert_conv2d_weight_memory_format(self, torch.channels_last)  # convolutions are faster in this format

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Predict the noise in images.

        Args:
            x: (N, C, H, W), with H and W divisible by 2 ^ (levels - 1).
            steps: (N,) int64, counted from 0.

        Returns:
            The predicted noise, (N, C, H, W).
        """
        embedded = self.time(steps)
        x = self.head(x)
        skips = [x]
        for layer in self.down:
            x = layer(x, embedded)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, embedded)
        for layer in self.up:
            x = layer(x) if isinstance(layer, Upsample) else layer(torch.cat([x, skips.pop()], dim=1), embedded)
        noise: Tensor = self.tail(x)
        return noise


def build_model(config: DiffusionConfig) -> tuple[UNet, SwappedActivations]:
    """Build the UNet with weights that depend on the seed alone, and return which activations were swapped."""
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    model = UNet(config.model, config.default_activation, config.data.channels)
    side = config.model.factor
    example = (torch.zeros(1, config.data.channels, side, side), torch.zeros(1, dtype=torch.int64))
    return model, swapped_for(model, config.default_activation, config.activation, example)
