"""Networks for 32 x 32 images that torchvision and timm do not have. All ReLUs are modules, so they can be swapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .config import HeadBias


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al., "Deep Residual Learning", CVPR 2016, figure 5 left).

    A shortcut that changes the shape is a 1 x 1 projection (option B in the paper), as in the GoLU authors' code.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.activation2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        y = self.activation1(self.norm1(self.conv1(x)))
        return self.activation2(self.norm2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-20, 32, 44, 56 and 110: three stages of n blocks, depth 6n + 2 (He et al., CVPR 2016, section 4.2)."""

    def __init__(self, depth: int, classes: int, head_bias: HeadBias = "zeros") -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        stages: list[nn.Module] = []
        in_channels = 16
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            for block in range(blocks):
                stages.append(BasicBlock(in_channels, channels, stride if block == 0 else 1))
                in_channels = channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(64, classes)
        _initialize(self, self.head, head_bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images (N, 3, H, W) to logits (N, classes)."""
        return self.head(self.stages(self.stem(images)).mean(dim=(2, 3)))


class WideBlock(nn.Module):
    """Pre-activation block (Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, figure 1c, no dropout)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.activation1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.activation2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = None if in_channels == channels else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        y = self.activation1(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        y = self.conv2(self.activation2(self.norm2(self.conv1(y))))
        return y + skip


class WideResNet(nn.Module):
    """WideResNet-depth-width, depth 6n + 4 (Zagoruyko and Komodakis, BMVC 2016, table 1)."""

    def __init__(self, depth: int, width: int, classes: int, head_bias: HeadBias = "zeros") -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
        in_channels = 16
        for channels, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for block in range(blocks):
                layers.append(WideBlock(in_channels, channels, stride if block == 0 else 1))
                in_channels = channels
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(in_channels), nn.ReLU())
        self.head = nn.Linear(in_channels, classes)
        _initialize(self, self.head, head_bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images (N, 3, H, W) to logits (N, classes)."""
        return self.head(self.features(images).mean(dim=(2, 3)))


class BiasedWideBlock(nn.Module):
    """The GoLU authors' WideResNet block: biases, the stride in the second convolution, a shortcut straight from x."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.activation1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.activation2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        y = self.conv1(self.activation1(self.norm1(x)))
        return self.conv2(self.activation2(self.norm2(y))) + self.shortcut(x)


class BiasedWideResNet(nn.Module):
    """WideResNet-depth-width as the GoLU authors trained it; `WideResNet` is the network of the original paper.

    Its last batch norm has momentum 0.9 instead of 0.1, all weights are initialized Xavier-uniform with gain √2, and
    all biases are zero.
    """

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
        in_channels = 16
        for channels, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for block in range(blocks):
                layers.append(BiasedWideBlock(in_channels, channels, stride if block == 0 else 1))
                in_channels = channels
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(in_channels, momentum=0.9), nn.ReLU())
        self.head = nn.Linear(in_channels, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight, gain=2**0.5)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images (N, 3, H, W) to logits (N, classes)."""
        return self.head(self.features(images).mean(dim=(2, 3)))


class DenseLayer(nn.Module):
    """A 1 x 1 bottleneck of four times the growth rate, and a 3 x 3 convolution joined to the input (DenseNet-B)."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(
            nn.BatchNorm2d(in_channels), nn.ReLU(), nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        )
        self.growth = nn.Sequential(
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, C + growth, H, W)."""
        return torch.cat([x, self.growth(self.bottleneck(x))], dim=1)


class CifarDenseNet(nn.Module):
    """DenseNet-BC-depth: three dense blocks with halving transitions (Huang et al., CVPR 2017, section 3)."""

    def __init__(self, depth: int, growth: int, reduction: float, classes: int, head_bias: HeadBias = "zeros") -> None:
        super().__init__()
        layers_per_block = (depth - 4) // 6
        channels = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
        for block in range(3):
            for _ in range(layers_per_block):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            if block < 2:
                reduced = int(channels * reduction)
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, reduced, 1, bias=False)]
                layers += [nn.AvgPool2d(2)]
                channels = reduced
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, classes)
        _initialize(self, self.head, head_bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images (N, 3, H, W) to logits (N, classes)."""
        return self.head(self.features(images).mean(dim=(2, 3)))


def _initialize(model: nn.Module, head: nn.Linear, head_bias: HeadBias) -> None:
    """Apply He initialization to all weights (He et al., ICCV 2015), as the GoLU authors' code does."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    if head_bias == "zeros":  # otherwise the bias keeps torch's default, which is uniform
        nn.init.zeros_(head.bias)


CIFAR_MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
    "wideresnet28_2": partial(WideResNet, 28, 2),
    "wideresnet28_2_biased": lambda classes, head_bias="zeros": BiasedWideResNet(28, 2, classes),
    "densenet40": partial(CifarDenseNet, 40, 12, 0.5),
}
"""Model builders by name. Each accepts the number of classes and, optionally, the head's initial bias."""
