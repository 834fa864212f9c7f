"""Resize images in ONNX graphs of detectors to exactly the same size as torch does.

In eager mode, torchvision divides Python floats. When traced, it multiplies by float32(1 / side), and for one image
size in eight the resized image is a pixel smaller, which shifts boxes by several pixels of the image. Therefore the
transform divides doubles while a detector is traced, and the sizes in the graph are then compared with torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx import operators

from golu_core.training import RunFailure

Size = tuple[int, int]
"""Height and width in pixels."""

# common sizes in data sets, cameras, phones, and screens; 65 in all, with each landscape also in portrait, and _SMALL
_LANDSCAPE: tuple[Size, ...] = (
    (375, 500), (333, 500), (425, 640), (427, 640), (480, 640), (360, 640), (424, 640), (426, 640), (428, 640),
    (480, 720), (576, 768), (600, 800), (480, 854), (768, 1024), (683, 1024), (720, 1280), (960, 1280), (768, 1366),
    (900, 1600), (1200, 1600), (1080, 1920), (1280, 1920), (1536, 2048), (1440, 2560), (2160, 3840), (3000, 4000),
    (3024, 4032),
)  # fmt: skip
_SMALL: tuple[Size, ...] = (
    (96, 112), (80, 64), (96, 96), (33, 47), (211, 173), (224, 224), (256, 256), (299, 299), (416, 416), (512, 512),
    (1024, 1024),
)  # fmt: skip
REAL_SIZES: tuple[Size, ...] = (*_LANDSCAPE, *((width, height) for height, width in _LANDSCAPE), *_SMALL)


def scaled_sides(sides: Tensor, shorter: int, longer: int) -> Tensor:
    """Return the heights and widths of resized images, in operators that ONNX supports for doubles.

    Args:
        sides: (N, 2) or (2,) int64, height and width of each image.
        shorter: Target length of the shorter side.
        longer: Maximum length of the longer side.
    """
    least, most = (
        torch.tensor(float(length), dtype=torch.float64) / side.to(torch.float64)
        for length, side in ((shorter, sides.amin(-1, keepdim=True)), (longer, sides.amax(-1, keepdim=True)))
    )
    return (sides.to(torch.float64) * torch.minimum(least, most)).to(torch.int64)


@contextmanager
def traced_exactly(network: nn.Module) -> Iterator[None]:
    """Make the detector's transform compute sizes with `scaled_sides` while it is traced."""
    transform: Any = network.transform
    transform.resize = MethodType(_resize, transform)
    try:
        yield
    finally:
        del transform.resize


def _resize(transform: Any, image: Tensor, target: None = None) -> tuple[Tensor, None]:
    sides = scaled_sides(operators.shape_as_tensor(image)[-2:], transform.min_size[-1], transform.max_size)
    size: Any = [sides[0], sides[1]]  # tensors, which tracing follows
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0], target


def check_sizes(path: Path, network: nn.Module, sizes: Iterable[Size] = REAL_SIZES) -> None:
    """Compare the sizes in a graph with those of torchvision's transform.

    Args:
        path: The detector's ONNX file.
        network: The detector.
        sizes: Height and width of each image to compare.

    Raises:
        RunFailure: A size differs.
    """
    computed = _scaled_size_of_graph(path)
    transform: Any = network.transform
    for size in sizes:
        scaled, _ = transform.resize(torch.empty(3, *size, device="meta"))
        if computed(size) != tuple(scaled.shape[-2:]):
            raise RunFailure(
                f"the exported network scales an image of {size[1]} x {size[0]} pixels to "
                f"{' x '.join(map(str, computed(size)[::-1]))}, and torch to {scaled.shape[-1]} x {scaled.shape[-2]}"
            )


def _scaled_size_of_graph(path: Path) -> Any:
    """Return a function that maps an image's size to the graph's resized size by running the graph's own nodes."""
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    model = onnx.load(path)
    first = next(node for node in model.graph.node if node.op_type == "Resize")
    wanted = first.input[3]  # its `sizes`; feature pyramids resize after it
    needed: set[str] = {wanted}
    nodes: list[Any] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.insert(0, node)
    graph = onnx.helper.make_graph(
        nodes,
        "size",
        list(model.graph.input),
        [onnx.helper.make_tensor_value_info(wanted, onnx.TensorProto.INT64, None)],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])

    def scaled(size: Size) -> Size:
        height, width = session.run(None, {"image": numpy.zeros((3, *size), numpy.float32)})[0][-2:]
        return int(height), int(width)

    return scaled
