"""The size to which a detector scales an image, in an ONNX graph as in torch, to the pixel.

In eager mode torchvision divides Python's floats. Traced, it multiplies by float32(1 / side), and at one image size in
eight the scaled image is a pixel smaller, which moves boxes by several pixels of the image. So while a detector is
traced its transform divides doubles, and the graph's sizes are then compared with torchvision's own.
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

# of data sets, cameras, phones and screens; with each one turned, and _SMALL, 65 in all
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
    """Return the heights and widths of scaled images, in operators that ONNX has for doubles.

    Args:
        sides: (N, 2) or (2,) int64, height and width of each image.
        shorter: Length to which the shorter side is scaled.
        longer: Largest length of the longer side.
    """
    least, most = (
        torch.tensor(float(length), dtype=torch.float64) / side.to(torch.float64)
        for length, side in ((shorter, sides.amin(-1, keepdim=True)), (longer, sides.amax(-1, keepdim=True)))
    )
    return (sides.to(torch.float64) * torch.minimum(least, most)).to(torch.int64)


@contextmanager
def traced_exactly(network: nn.Module) -> Iterator[None]:
    """Let the detector's transform compute sizes by `scaled_sides` while it is traced."""
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
    """Compare the sizes that a graph computes with those of torchvision's transform.

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
    """Return a function from an image's size to the one that the graph scales it to, run from the graph's own nodes."""
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    model = onnx.load(path)
    first = next(node for node in model.graph.node if node.op_type == "Resize")
    wanted = first.input[3]  # its `sizes`; pyramids resize after it
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
