"""An exported detector scales images to the sizes that torch scales them to, and so finds the same boxes."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from golu_core.training.export.exporting import Exportable
from golu_core.training.messages.errors import RunFailure
from golu_detect import export
from golu_detect.config import DeepLabV3, FasterRcnn, MaskRcnn, Model, RetinaNet
from golu_detect.exact_sizes import REAL_SIZES, check_sizes, scaled_sides
from golu_detect.model import build_network

# shorter and longer side: the paper's, torchvision's multiples for own data, and the digit recipes'
LIMITS = [(800, 1333), (640, 1067), (320, 533), (96, 160), (64, 112)]


class _Sides(nn.Module):
    def __init__(self, shorter: int, longer: int) -> None:
        super().__init__()
        self.shorter, self.longer = shorter, longer

    def forward(self, sides: Tensor) -> Tensor:
        return scaled_sides(sides, self.shorter, self.longer)


def in_onnx(sides: numpy.ndarray, shorter: int, longer: int) -> numpy.ndarray:
    written = io.BytesIO()
    example = (torch.tensor([[3, 4]]),)
    axes = {"sides": {0: "images"}, "scaled": {0: "images"}}
    torch.onnx.export(
        _Sides(shorter, longer), example, written, dynamo=False, opset_version=17, input_names=["sides"],
        output_names=["scaled"], dynamic_axes=axes,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(written.getvalue(), providers=["CPUExecutionProvider"])
    found: numpy.ndarray = session.run(None, {"sides": sides})[0]
    return found


def in_doubles(sides: numpy.ndarray, shorter: int, longer: int) -> numpy.ndarray:
    """torchvision's eager mode, whose Python floats are doubles."""
    scale = numpy.minimum(shorter / sides.min(axis=1), longer / sides.max(axis=1))
    return (sides * scale[:, None]).astype(numpy.int64)


def in_floats(sides: numpy.ndarray, shorter: int, longer: int) -> numpy.ndarray:
    """What torchvision traces."""
    least, most = (numpy.float32(1) / side.astype(numpy.float32) for side in (sides.min(axis=1), sides.max(axis=1)))
    scale = numpy.minimum(least * numpy.float32(shorter), most * numpy.float32(longer))
    return (sides.astype(numpy.float32) * scale[:, None]).astype(numpy.int64)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limits", LIMITS)
def test_every_pair_of_sides_is_scaled_as_torch_scales_it(limits):
    pairs = numpy.stack(numpy.meshgrid(numpy.arange(16, 900), numpy.arange(16, 900)), axis=-1).reshape(-1, 2)
    drawn = numpy.random.default_rng(0).integers(16, 8192, (100_000, 2))
    sides = numpy.concatenate([pairs, drawn, numpy.array(REAL_SIZES)])
    expected = in_doubles(sides, *limits)
    assert (in_onnx(sides, *limits) == expected).all()
    differing = (in_floats(sides, *limits) != expected).any(axis=1)
    assert differing.mean() > 0.05  # so that doubles are needed
    transform = GeneralizedRCNNTransform(*limits, [0.0] * 3, [1.0] * 3).eval()
    for size, scaled in zip(REAL_SIZES, in_doubles(numpy.array(REAL_SIZES), *limits), strict=True):
        image, _ = transform.resize(torch.empty(3, *size, device="meta"))
        assert tuple(image.shape[-2:]) == tuple(scaled)


def test_the_sizes_that_are_compared_are_65_and_some_of_them_need_doubles():
    assert len(set(REAL_SIZES)) == len(REAL_SIZES) == 65
    assert {(375, 500), (425, 640), (3000, 4000)} <= set(REAL_SIZES)
    sizes = numpy.array(REAL_SIZES)
    for limits in LIMITS:
        assert (in_floats(sizes, *limits) != in_doubles(sizes, *limits)).any(axis=1).sum() >= 3


def exportable(model: Model) -> Exportable:
    torch.manual_seed(0)
    network: Any = build_network(model, 11).eval()
    if isinstance(model, MaskRcnn):
        network.roi_heads.detections_per_img = 5  # masks as large as images take memory
    example = (torch.rand(3, 96, 112, generator=torch.Generator().manual_seed(0)),)
    wrapped = export._OneImage(network)
    return Exportable(wrapped, example, ("image",), "boxes", "object-detection", weights=network)


DETECTORS = [kind(backbone="small", shorter_side=(96,), longer_side=160) for kind in (FasterRcnn, RetinaNet, MaskRcnn)]


def test_a_graph_that_scales_in_floats_is_not_exported(tmp_path, monkeypatch):
    made = exportable(DETECTORS[0])
    largest = export._write_detector(made, tmp_path)
    assert 0 < largest < 1e-4
    monkeypatch.setattr(export, "traced_exactly", lambda network: nullcontext())
    with pytest.raises(RunFailure, match=r"the exported network (finds|differs)"):
        export._write_detector(made, tmp_path)
    with pytest.raises(RunFailure, match="the exported network scales an image of 500 x 375 pixels to 127 x 95, and"):
        check_sizes(tmp_path / "model.onnx", made.weights)


@pytest.mark.slow
@pytest.mark.parametrize("model", DETECTORS, ids=lambda model: model.kind)
@torch.no_grad()
def test_a_detector_finds_torchs_boxes_at_65_sizes(model, tmp_path):
    """But for one of two boxes that overlap and have the same score within rounding, about once in 5,000."""
    made = exportable(model)
    owner = made.weights.roi_heads if hasattr(made.weights, "roi_heads") else made.weights
    owner.score_thresh = -1.0
    session = export._session(made, tmp_path / "model.onnx")
    random = torch.Generator().manual_seed(1)
    count = otherwise = 0
    for size in REAL_SIZES:
        image = torch.rand(3, *size, generator=random)
        expected = made.model(image)
        found = [torch.from_numpy(array) for array in session.run(None, {"image": image.numpy()})]
        assert expected[0].shape == found[0].shape
        ours, theirs = (export._rows(outputs, image) for outputs in (expected, found))
        apart = torch.cdist(ours, theirs, p=float("inf")).min(dim=1).values
        count += len(ours)
        otherwise += int((apart > 1e-4).sum())
    assert count > 65 * 4 and otherwise <= 2


@pytest.mark.slow
def test_a_segmenter_gives_torchs_logits_at_65_sizes(tmp_path: Path):
    """Its images are scaled before it, as preprocessing.json says."""
    from golu_core.training.export.exporting import _write_onnx

    torch.manual_seed(0)
    network = build_network(DeepLabV3(backbone="small"), 11).eval()
    example = (torch.randn(2, 3, 96, 112, generator=torch.Generator().manual_seed(0)),)
    free = {2: ("height", 32, 4096), 3: ("width", 32, 4096)}
    made = Exportable(export._Logits(network), example, ("images",), "logits", "image-segmentation", free=free)
    _write_onnx(made, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    scale = v2.Resize(64, antialias=True)
    for size in REAL_SIZES:
        images = scale(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)))
        with torch.no_grad():
            expected = made.model(images)
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
