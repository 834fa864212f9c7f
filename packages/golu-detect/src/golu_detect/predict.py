"""What a trained network sees in an image: drawn on it, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from golu_core.training.cli import parsed_flags, run_directory
from golu_core.training.data import SampleKey
from golu_core.training.devices import default_device
from golu_core.training.errors import RequestError
from golu_core.training.fields import Probability
from golu_core.training.finished import FinishedRun
from golu_core.training.images import png_writer, read_image
from golu_core.training.ownership import MADE_BY, check_output, write_atomically, write_output

from .config import DetectConfig
from .data import DetectData
from .evaluate import detections, load_run, normalized, unit_range

CLASSES_FILE = "classes.json"
_READABLE = 288  # pixels
_PALETTE = [(int(83 * k) % 200 + 55, int(157 * k) % 200 + 55, int(211 * k) % 200 + 55) for k in range(1, 256)]


@torch.inference_mode()
def predict(
    model: nn.Module, image: Tensor, names: Mapping[int, str], threshold: float, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    """The image with what the network sees drawn on it, and the same as JSON values.

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8.
        names: of the classes, by label.
        threshold: lowest score that is shown.
        device: of the model.

    Returns:
        (3, F * H, F * W) uint8, enlarged F times if the image is small; and, in the image's own pixels, `detections` in
        COCO's format with names, or `classes`, the share of pixels of each.
    """
    drawn = _enlarged(image)
    factor = drawn.shape[-1] // image.shape[-1]
    if hasattr(model, "classifier"):
        chosen = model(normalized([image], device))["out"][0].argmax(dim=0).cpu()
        found = [label for label in chosen.unique().tolist() if label > 0]
        drawn = _with_masks(drawn, [chosen == label for label in found], found, factor)
        return drawn, {"classes": {names.get(k, str(k)): float((chosen == k).float().mean()) for k in found}}
    output = {name: value.cpu() for name, value in model([unit_range(image, device)])[0].items()}
    shown = output["scores"] >= threshold
    output = {name: value[shown] for name, value in output.items()}
    labels = output["labels"].tolist()
    if "masks" in output:
        drawn = _with_masks(drawn, list(output["masks"][:, 0] > 0.5), labels, factor)
    if labels:
        scores = output["scores"].tolist()
        texts = [f"{names.get(label, label)} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        colors: list[Any] = [_PALETTE[label % len(_PALETTE)] for label in labels]
        drawn = draw_bounding_boxes(drawn, output["boxes"] * factor, texts, colors=colors)
    entries = detections(output, 0, {label: label for label in names})
    for entry in entries:
        entry["name"] = names.get(entry["category_id"], str(entry["category_id"]))
        del entry["image_id"]
    return drawn, {"detections": entries}


def _enlarged(image: Tensor) -> Tensor:
    """(..., H, W) with each pixel repeated, so that a small image has room for text."""
    factor = max(1, _READABLE // max(image.shape[-2:]))
    return image.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def _with_masks(image: Tensor, masks: Sequence[Tensor], labels: Sequence[int], factor: int) -> Tensor:
    """Draws one mask after the other: torchvision blackens where masks that it draws at once overlap."""
    for mask, label in zip(masks, labels, strict=True):
        large = mask.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
        image = draw_segmentation_masks(image, large, alpha=0.5, colors=_PALETTE[label % len(_PALETTE)])
    return image


def save_predictions(path: Path, model: nn.Module, data: DetectData, device: torch.device, count: int = 16) -> None:
    """Draws the first test images with what the network sees."""
    model.eval()
    tiles = []
    for sample in range(min(count, len(data.test))):
        image = data.test.__getitems__([SampleKey(sample, -1, sample)]).images[0]
        tiles.append(predict(model, image, data.names, 0.5, device)[0])
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    padded = [torch.nn.functional.pad(t, (0, width - t.shape[2], 0, height - t.shape[1])) for t in tiles]
    write_atomically(path, png_writer(to_pil_image(make_grid(padded, nrow=4, padding=4))))


@dataclass(frozen=True)
class PredictFlags:
    """What `golu-detect predict` writes, and where."""

    out: Path = Path("predictions")
    """Folder for pictures and JSON files."""
    threshold: Probability = 0.5
    """Lowest score that is shown."""


def predict_command(arguments: Sequence[str]) -> None:
    """`golu-detect predict RUN_DIR IMAGE... [--out DIR]`."""
    usage = "golu-detect predict RUN_DIR IMAGE..."
    first_flag = next((n for n, word in enumerate(arguments) if word.startswith("--")), len(arguments))
    images = [Path(word) for word in arguments[1:first_flag]]
    flags = parsed_flags(PredictFlags, arguments[first_flag:], usage)
    if not images:
        raise RequestError(f"name at least one image: {usage}")
    names = [path.stem for path in images]
    if len(set(names)) < len(names):
        raise RequestError("two images have the same name, so their predictions would too")
    pixels = [read_image(path) for path in images]
    for name in names:
        check_output(flags.out / f"{name}.png")
        check_output(flags.out / f"{name}.json")
    folder, _ = run_directory(arguments, usage)
    finished = FinishedRun.at(folder, DetectConfig)
    classes = _class_names(finished.check_file(CLASSES_FILE))
    device = default_device()
    model = load_run(finished, classes["count"]).to(device).eval()
    flags.out.mkdir(parents=True, exist_ok=True)
    labels = {int(label): name for label, name in classes["names"].items()}
    for name, image in zip(names, pixels, strict=True):
        drawn, found = predict(model, image, labels, flags.threshold, device)
        write_output(flags.out / f"{name}.png", png_writer(to_pil_image(drawn)))
        write_output(flags.out / f"{name}.json", _json_writer({"software": MADE_BY, **found}))
        print(f"{name}: {_summary(found)}")
    print(f"predicted: {flags.out}")


def _json_writer(value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    return write


def _class_names(path: Path) -> dict[str, Any]:
    try:
        classes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    return classes


def _summary(found: Mapping[str, Any]) -> str:
    if "classes" in found:
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["classes"].items()) or "background"
    return ", ".join(f"{entry['name']} {entry['score']:.2f}" for entry in found["detections"]) or "nothing"
