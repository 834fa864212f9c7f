"""`golu-detect export`: export a segmenter or detector for ONNX Runtime, torch.export, or torchvision."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core.training import FinishedRun, RequestError, RunFailure
from golu_core.training.export import (
    LARGEST_DIFFERENCE,
    Exportable,
    activation_file,
    export_run,
    remove_origins,
    spec_in_export,
)
from golu_core.training.runs import Result

from .config import IMAGENET_MEAN, IMAGENET_STD, DetectConfig, MaskRcnn, SegmentationAugment
from .evaluate import load_run
from .exact_sizes import check_sizes, traced_exactly
from .predict import CLASSES_FILE, class_names

_SMALLEST, _LARGEST = 32, 4096  # sides of the images that a segmenter accepts
_OPSET = 17
# with float32, a side of each would be one pixel short: at torchvision's 800 to 1333 pixels, and in the digit recipes
_COMPARED = ((425, 640), (211, 173))
_CHANGED_IMAGES = 16  # in a near-tie that we met, 11 of 16 had the other result
_WORDS = "a detector's outputs are as many as it finds, which torch.export cannot follow through torchvision's NMS"


def export_command(arguments: Sequence[str]) -> None:
    """Run `golu-detect export RUN_DIR --out DIR [--format onnx|pt2|safetensors]`."""
    export_run(arguments, "golu-detect export", _of_run)


def _of_run(folder: Path) -> tuple[Exportable, Result]:
    finished = FinishedRun.at(folder, DetectConfig)
    config, classes = finished.config, class_names(finished.check_file(CLASSES_FILE))
    network = load_run(finished, classes["count"]).eval()
    files = {
        "preprocessing.json": preprocessing_of(config, classes["names"]),
        **activation_file(config.activation),
    }
    common: dict[str, Any] = {"files": files, "loading": _loading(config, classes["count"]), "needs": "golu-detect"}
    random = torch.Generator().manual_seed(0)
    if config.segments:
        exportable = Exportable(
            model=_Logits(network),
            example=(torch.randn(2, 3, 96, 112, generator=random),),
            inputs=("images",),
            output="logits",
            pipeline="image-segmentation",
            free={2: ("height", _SMALLEST, _LARGEST), 3: ("width", _SMALLEST, _LARGEST)},
            called='model.eval()({})["out"]',
            weights=network,
            **common,
        )
    else:
        exportable = Exportable(
            model=_OneImage(network),
            example=(torch.rand(3, 96, 112, generator=random),),
            inputs=("image",),
            output="boxes",
            pipeline="object-detection",
            called='model.eval()([{}])[0]["boxes"]',
            weights=network,
            writers={"onnx": _write_detector, "pt2": _refuse},
            **common,
        )
    return exportable, finished.result


def preprocessing_of(config: DetectConfig, names: dict[str, str]) -> dict[str, Any]:
    """Return how evaluation converts an image to the network's input, and the names of the network's outputs."""
    common: dict[str, Any] = {
        "channels": "RGB",
        "transparent_pixels_on": config.data.background,
        "turn_as_exif_says": config.data.apply_exif,
        "scale": "pixels / 255",
    }
    if isinstance(config.augment, SegmentationAugment):
        common |= {
            "resize_shorter_side": config.augment.eval_side,
            "interpolation": "bilinear",
            "antialias": True,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "layout": "NCHW float32",
            "classes": {"0": "background", **names},
        }
    else:
        outputs = ["boxes", "labels", "scores", *(["masks"] if isinstance(config.model, MaskRcnn) else [])]
        common |= {
            "layout": "CHW float32, one image of any size; the network scales and normalizes it",
            "outputs": outputs,
            "boxes": "left, top, right, bottom in pixels of the image",
            "classes": names,
        }
    return common


class _Logits(nn.Module):
    """A segmenter that returns only its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 to (N, classes, H, W)."""
        logits: Tensor = self.network(images)["out"]
        return logits


class _OneImage(nn.Module):
    """A detector for one image, with its outputs in the order of their names in `preprocessing.json`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map (3, H, W) float32 to boxes (N, 4), labels (N,), scores (N,), and, with masks, (N, 1, H, W)."""
        found = self.network([image])[0]
        return tuple(found[name] for name in ("boxes", "labels", "scores", "masks") if name in found)


def _refuse(exportable: Exportable, folder: Path) -> None:
    raise RequestError(f"--format pt2 is not possible: {_WORDS}; --format onnx is")


def _write_detector(exportable: Exportable, folder: Path) -> float:
    """Export with torch's older exporter, which torchvision's detectors support, and compare without a score threshold.

    With the real threshold almost nothing would be detected in noise, so the comparison uses a second graph without
    one. The sizes of resized images are cheap to compute, so they are compared for all real sizes.
    """
    network: Any = exportable.weights
    owner = network.roi_heads if hasattr(network, "roi_heads") else network
    threshold = owner.score_thresh
    owner.score_thresh = -1.0
    try:
        difference = _compared(exportable, _session(exportable, folder / "model.onnx"))
    finally:
        owner.score_thresh = threshold
    session = _session(exportable, folder / "model.onnx")
    check_sizes(folder / "model.onnx", network)
    return max(difference, _compared(exportable, session))


def _session(exportable: Exportable, path: Path) -> Any:
    try:
        import onnx  # noqa: F401  # torch's older exporter needs it
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        raise RequestError("this needs ONNX's packages: pip install 'golu-core[export]'") from None
    network: Any = exportable.weights
    count = len(exportable.model(*exportable.example))
    outputs = ["boxes", "labels", "scores", "masks"][:count]
    try:
        # warnings about constants in torchvision's code and about the age of the exporter
        with warnings.catch_warnings(), traced_exactly(network):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                exportable.model,
                exportable.example,
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=outputs,
                dynamic_axes={"image": {1: "height", 2: "width"}, **{name: {0: "found"} for name in outputs}},
            )
        remove_origins(path)
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # torch's exporter and the runtime each raise their own exceptions
        raise RunFailure(f"the network cannot be exported to ONNX: {str(error).strip()[:300]}") from error


@torch.no_grad()
def _compared(exportable: Exportable, session: Any) -> float:
    """Compare all objects of the exported network with torch's, in images of four sizes.

    Objects with nearly equal scores may be swapped, so each is compared with the nearest.

    Returns:
        The largest difference, relative to the largest output.

    Raises:
        RunFailure: The objects differ by more than rounding.
    """
    largest = 0.0
    (image,) = exportable.example
    random = torch.Generator().manual_seed(1)
    others = (_smooth_image(*size, random) for size in _COMPARED)
    for one in (image, image[:, :80, :64].contiguous(), *others):
        found = tuple(torch.from_numpy(array) for array in session.run(None, {"image": one.numpy()}))
        difference: float | None
        try:
            difference = _difference(exportable.model(one), found, one)
        except RunFailure:
            difference = _difference_at_near_tie(exportable, found, one)
            if difference is None:
                raise
        largest = max(largest, difference)
    return largest


def _smooth_image(height: int, width: int, random: torch.Generator) -> Tensor:
    """Return an image that is as smooth as a photo, (3, H, W).

    In noise, rounding during resizing changed the scores of a ResNet-50 by more than 1e-4.
    """
    coarse = torch.rand(1, 3, height // 16, width // 16, generator=random)
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]


def _difference_at_near_tie(exportable: Exportable, found: Sequence[Tensor], image: Tensor) -> float | None:
    """Return the difference from torch's objects in an image changed by rounding; None if all such images differ.

    Detectors keep the 100 most likely proposals, for example, and if the scores of the 100th and 101st differ by only
    6e-8, rounding decides which one is kept and which object is found. This happened twice with random weights, in
    images of 3024 x 4032 pixels. It is a near-tie if rounding decides it in torch as well, so torch has to find the
    same objects.

    The coarsest rounding occurs when an image is resized: positions are float32, so they and the pixel values are off
    by up to 2**-23 of the longer side, less than a tenth of a gray level at 3,000 pixels.
    """
    random = torch.Generator().manual_seed(2)
    rounding = max(image.shape[-2:]) * 2.0**-23
    for _ in range(_CHANGED_IMAGES):
        changed = image + rounding * (2 * torch.rand(image.shape, generator=random) - 1)
        with suppress(RunFailure):
            return _difference(exportable.model(changed), found, image)
    return None


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor], image: Tensor) -> float:
    """Return the largest difference between any object and the nearest one of the other network.

    Raises:
        RunFailure: The difference is larger than rounding, or the numbers of objects differ.
    """
    where = f"in an image of {image.shape[-1]} x {image.shape[-2]} pixels"
    if len(expected[0]) != len(found[0]):
        raise RunFailure(f"the exported network finds {len(found[0])} objects {where}, and torch's {len(expected[0])}")
    if not len(expected[0]):
        return 0.0
    ours, theirs = (_rows(outputs, image) for outputs in (expected, found))
    between = (ours[:, None] - theirs).abs().amax(dim=2)
    apart, nearest = between.nan_to_num(nan=float("inf")).min(dim=1)
    if not float(apart.max()) <= LARGEST_DIFFERENCE:
        one = int(apart.argmax())
        other = int((ours[one, :4] - theirs[:, :4]).abs().amax(dim=1).argmin())
        off = ~((ours[one] - theirs[other]).abs() <= LARGEST_DIFFERENCE)
        parts = {"box": off[:4].any(), "label": off[4], "score": off[5]}
        raise RunFailure(
            f"the exported network differs from torch's in the {' and '.join(part for part in parts if parts[part])} "
            f"of an object {where}: it finds {_words_of(found, other)} instead of {_words_of(expected, one)}"
        )
    if len(expected) > 3:
        masks = (expected[3] - found[3][nearest]).abs().flatten(1).amax(dim=1)
        if not float(masks.max()) <= LARGEST_DIFFERENCE:
            words = _words_of(expected, int(masks.argmax()))
            raise RunFailure(
                f"the exported network differs from torch's by {float(masks.max()):.2g} in the mask of an object "
                f"{where}: {words}"
            )
        apart = torch.maximum(apart, masks)
    return float(apart.max())


def _words_of(outputs: Sequence[Tensor], index: int) -> str:
    box, label, score = (output[index].tolist() for output in outputs[:3])
    return f"label {label}, score {score:.6f}, box {' '.join(f'{side:.3f}' for side in box)}"


def _rows(outputs: Sequence[Tensor], image: Tensor) -> Tensor:
    """Return boxes relative to the image's longer side, labels, and scores: (N, 6) float32."""
    boxes, labels, scores = outputs[:3]
    return torch.cat([boxes / max(image.shape[-2:]), labels[:, None].float(), scores[:, None]], dim=1)


def _loading(config: DetectConfig, classes: int) -> list[str]:
    """Return the Python code that builds `model` from model.safetensors."""
    kind, fields = type(config.model).__name__, dataclasses.asdict(config.model)
    own, activation = config.default_activation, spec_in_export(config.activation)
    swap = ["from golu_core import replace_activations", f"replace_activations(model, {own!r}, {activation!r})"]
    return [
        "import torch",
        "from safetensors.torch import load_model",
        f"from golu_detect.config import {kind}",
        "from golu_detect.model import build_network",
        f"model = build_network({kind}(**{fields!r}), {classes})",
        *(swap if activation != own else []),
        'load_model(model, "model.safetensors")',
    ]
