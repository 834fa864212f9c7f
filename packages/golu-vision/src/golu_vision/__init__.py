"""Image classifiers on ImageNet-1k and CIFAR-10 with any activation, as in the GoLU paper."""

from importlib.metadata import version

__version__ = version("golu-vision")
