"""Predictions of a trained network for images and videos: drawn images, and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from golu_core.training import FinishedRun, PositiveInt, Probability, RequestError, RunFailure, SampleKey
from golu_core.training.data import named_images, png_writer, read_image
from golu_core.training.distributed import default_device
from golu_core.training.messages import complain, fitting_name, printable, say, visible
from golu_core.training.storage import MADE_BY, check_output, regular_json, write_atomically, write_output
from golu_core.training.tasks import parsed_run_flags

from .config import DetectConfig, DetectionAugment, SegmentationAugment
from .data import DetectData
from .evaluate import detections, finite_heads, load_run, normalized, unit_range
from .scenes import evaluation_transform
from .video import is_video, open_video, video_writer

CLASSES_FILE = "classes.json"
_RESULTS, _IMAGES, _LABELS, _VIDEO = "results.json", "images.json", "-classes.png", ".mp4"
_ENDINGS = (".png", ".json", _LABELS, _VIDEO)
_READABLE = 288  # pixels
_PALETTE = [(int(83 * k) % 200 + 55, int(157 * k) % 200 + 55, int(211 * k) % 200 + 55) for k in range(1, 256)]


class Sighting(NamedTuple):
    """The prediction for an image.

    Attributes:
        drawn: The image with the prediction, (3, F * H, F * W) uint8, enlarged F times if the image is small.
        values: The prediction as JSON, in pixels of the original image: `detections` in COCO's format with names, or
            `classes`, the fraction of the pixels in each class.
        labels: The class of each pixel, (H, W) uint8, if the network is a segmenter.
    """

    drawn: Tensor
    values: dict[str, Any]
    labels: Tensor | None = None


@torch.inference_mode()
def predict(
    model: nn.Module,
    image: Tensor,
    names: Mapping[int, str],
    threshold: float,
    device: torch.device,
    augment: DetectionAugment | SegmentationAugment,
) -> Sighting:
    """Predict an image, resized as in evaluation.

    Args:
        model: The network, in evaluation mode.
        image: (3, H, W) uint8.
        names: Class names by label.
        threshold: Minimum score of the detections to show.
        device: The model's device.
        augment: The run's augmentation settings, which include the size in evaluation.
    """
    drawn = _enlarged(image)
    factor = drawn.shape[-1] // image.shape[-1]
    if isinstance(augment, SegmentationAugment):
        chosen = _segmented(model, image, device, augment)
        found = [label for label in chosen.unique().tolist() if label > 0]
        drawn = _with_masks(drawn, [chosen == label for label in found], found, factor)
        shares = {names.get(k, str(k)): float((chosen == k).float().mean()) for k in found}
        return Sighting(drawn, {"classes": shares}, chosen.to(torch.uint8))
    output = {name: value.cpu() for name, value in model([unit_range(image, device)])[0].items()}
    shown = output["scores"] >= threshold
    output = {name: value[shown] for name, value in output.items()}
    labels = output["labels"].tolist()
    if "masks" in output:
        drawn = _with_masks(drawn, list(output["masks"][:, 0] > 0.5), labels, factor)
    if labels:
        scores = output["scores"].tolist()
        texts = [
            f"{visible(names.get(label, str(label)))} {score:.2f}" for label, score in zip(labels, scores, strict=True)
        ]
        colors: list[Any] = [_PALETTE[label % len(_PALETTE)] for label in labels]
        drawn = draw_bounding_boxes(drawn, output["boxes"] * factor, texts, colors=colors)
    entries = detections(output, 0, {label: label for label in names})
    for entry in entries:
        entry["name"] = names.get(entry["category_id"], str(entry["category_id"]))
        del entry["image_id"]
    return Sighting(drawn, {"detections": entries})


def _segmented(model: nn.Module, image: Tensor, device: torch.device, augment: SegmentationAugment) -> Tensor:
    """Return the class of each pixel, (H, W) int64 on the CPU, from the image at evaluation's size.

    Args:
        model: The network, in evaluation mode.
        image: (3, H, W) uint8.
        device: The model's device.
        augment: The run's augmentation settings, which include that size.
    """
    scaled: Tensor = evaluation_transform(augment)(image)
    logits = model(normalized([scaled], device))["out"].float()
    if scaled.shape != image.shape:
        logits = F.interpolate(logits, size=tuple(image.shape[-2:]), mode="bilinear")
    chosen: Tensor = logits[0].argmax(dim=0).cpu()
    return chosen


def _enlarged(image: Tensor) -> Tensor:
    """Repeat each pixel of a (..., H, W) image, so that a small image has room for text."""
    factor = max(1, _READABLE // max(image.shape[-2:]))
    return image.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def _with_masks(image: Tensor, masks: Sequence[Tensor], labels: Sequence[int], factor: int) -> Tensor:
    """Draw masks one after the other: torchvision paints overlaps black if it draws several masks at once."""
    for mask, label in zip(masks, labels, strict=True):
        large = mask.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
        image = draw_segmentation_masks(image, large, alpha=0.5, colors=_PALETTE[label % len(_PALETTE)])
    return image


def save_predictions(
    path: Path,
    model: nn.Module,
    data: DetectData,
    device: torch.device,
    augment: DetectionAugment | SegmentationAugment,
    count: int = 16,
) -> None:
    """Draw the first test images with their predictions."""
    model.eval()
    tiles = []
    for sample in range(min(count, len(data.test))):
        image = data.test.__getitems__([SampleKey(sample, -1, sample)]).images[0]
        tiles.append(predict(model, image, data.names, 0.5, device, augment).drawn)
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    padded = [torch.nn.functional.pad(t, (0, width - t.shape[2], 0, height - t.shape[1])) for t in tiles]
    write_atomically(path, png_writer(to_pil_image(make_grid(padded, nrow=4, padding=4))))


@dataclass(frozen=True)
class PredictFlags:
    """Find objects in images or videos with a finished run, and draw them."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|VIDEO|FOLDER|-...")] = ()
    """Images, videos, or folders of them; `-` reads their paths from standard input."""
    out: Path = Path("predictions")
    """Folder for pictures and JSON files: those of each image, and of a detector `results.json` in the format of COCO's
    results, with the numbers of images and categories in `images.json`."""
    threshold: Probability = 0.5
    """Score threshold: objects with a lower score are left out."""
    every: PositiveInt = 1
    """Video stride: predict one frame out of this many."""


def predict_command(arguments: Sequence[str]) -> None:
    """Run `golu-detect predict RUN_DIR IMAGE|VIDEO|FOLDER|-... [flags]`.

    Raises:
        RequestError: The request is invalid.
        RunFailure: Some files could not be read; the others are predicted.
    """
    folder, flags = parsed_run_flags(PredictFlags, arguments, "golu-detect predict")
    found = named_images(flags.images)
    named = [(path, _output_name(name)) for path, name in found.images]
    if not named:
        raise RequestError(
            "name at least one image or folder, or - to read paths from standard input: "
            "golu-detect predict RUN_DIR IMAGE|VIDEO|FOLDER|-..."
        )
    _check_names(flags.out, named)
    for remark in found.remarks:
        complain(f"note: {remark}")
    seeing = _Seeing(_Network(folder), flags)
    unreadable = 0
    for path, name in named:
        try:
            said = seeing.video(path, name) if is_video(path) else seeing.image(path, name)
        except RequestError as error:
            unreadable += 1
            complain(f"golu-detect predict: {error}")
            continue
        say(f"{printable(name)}: {said}")
    seeing.finish()
    if unreadable:
        raise RunFailure(f"{unreadable} of {len(named)} files could not be read; the others are predicted")
    say(f"predicted: {printable(flags.out)}")


def _output_name(name: Path) -> Path:
    """Return the stem of an image's output files.

    An image called `images.png` or `results.jpg` keeps its extension, because its files would otherwise have the names
    of COCO's.
    """
    of_coco = name.parent == Path() and name.stem in {Path(_IMAGES).stem, Path(_RESULTS).stem}
    return name.with_name(fitting_name(name.name if of_coco else name.stem, max(_ENDINGS, key=len)))


class _Seeing:
    """Write the predictions for one file after the other."""

    def __init__(self, network: _Network, flags: PredictFlags) -> None:
        self._network, self._flags = network, flags
        self._coco = _CocoResults(network.names)

    def image(self, path: Path, name: Path) -> str:
        """Predict an image and return the line to print; raise RequestError if it cannot be read."""
        image = self._network.read(path)
        seen = self._network.see(image, self._flags.threshold)
        out = self._flags.out
        write_output(out / f"{name}.png", png_writer(to_pil_image(seen.drawn)))
        write_output(out / f"{name}.json", _json_writer({"software": MADE_BY, **seen.values}))
        if seen.labels is not None:
            write_output(out / f"{name}{_LABELS}", png_writer(to_pil_image(seen.labels)))
        self._coco.add(str(path), image, seen.values.get("detections", []))
        return _summary(seen.values)

    def video(self, path: Path, name: Path) -> str:
        """Predict the frames of a video; raise RequestError if it or the rest of it cannot be read.

        The drawn video cannot store the mark that this program wrote it, so the mark in the JSON file counts for both.
        """
        video = open_video(path, self._flags.every)
        seen: list[dict[str, Any]] = []
        damage: list[RequestError] = []

        def drawn() -> Iterator[Tensor]:
            try:
                for frame in video.frames:
                    sighting = self._network.see(frame.image, self._flags.threshold)
                    seen.append({"frame": frame.number, "seconds": frame.seconds, **sighting.values})
                    self._coco.add(f"{path}#{frame.number}", frame.image, sighting.values.get("detections", []))
                    yield sighting.drawn
            except RequestError as error:
                damage.append(error)

        frames = drawn()
        first = list(islice(frames, 1))  # before writing anything: the network's outputs may not be finite
        values = {"software": MADE_BY, "frames": seen}
        write_output(self._flags.out / f"{name}.json", _json_writer(values))  # first, or a kill would leave no mark
        write_atomically(self._flags.out / f"{name}{_VIDEO}", video_writer(video.rate, chain(first, frames)))
        write_output(self._flags.out / f"{name}.json", _json_writer(values))
        if damage:
            raise RequestError(f"{damage[0]}, after {len(seen)} frames, which are predicted")
        something = sum(bool(values.get("detections") or values.get("classes")) for values in seen)
        return f"{len(seen)} frames, {something} of them with something in it"

    def finish(self) -> None:
        """Write the files about all inputs."""
        if not self._network.config.segments:
            self._coco.write(self._flags.out)


class _Network:
    """A finished run's network on its device, with its image reader and class names."""

    def __init__(self, folder: Path) -> None:
        finished = FinishedRun.at(folder, DetectConfig)
        classes = class_names(finished.check_file(CLASSES_FILE))
        self.config = finished.config
        self.names = {int(label): str(name) for label, name in classes["names"].items()}
        self.device = default_device()
        self.model: nn.Module = load_run(finished, classes["count"]).to(self.device).eval()

    def read(self, path: Path) -> Tensor:
        """Read an image as in evaluation, (3, H, W) uint8; raise RequestError if it cannot be read."""
        return read_image(path, upright=self.config.data.apply_exif, background=self.config.data.background)

    def see(self, image: Tensor, threshold: float) -> Sighting:
        """Predict a (3, H, W) uint8 image; raise RunFailure if the network's outputs are not finite."""
        with finite_heads(self.model):
            return predict(self.model, image, self.names, threshold, self.device, self.config.augment)


class _CocoResults:
    """Detections in many images as `results.json`, which pycocotools' `loadRes` reads together with `images.json`."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.categories = [{"id": label, "name": name} for label, name in names.items()]
        self.images: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []

    def add(self, file_name: str, image: Tensor, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add an image, (3, H, W) uint8, and its detections."""
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, "height": image.shape[-2], "width": image.shape[-1]})
        for entry in entries:
            self.found.append({"image_id": number} | {name: v for name, v in entry.items() if name != "name"})

    def write(self, folder: Path) -> None:
        """Write both files; a list cannot store the mark of this program, so the other file's mark counts for both."""
        values = {"info": {"software": MADE_BY}, "images": self.images, "categories": self.categories}
        write_output(folder / _IMAGES, _json_writer({**values, "annotations": []}))
        write_atomically(folder / _RESULTS, _json_writer(self.found))


def _check_names(out: Path, named: Sequence[tuple[Path, Path]]) -> None:
    """Raise RequestError if outputs would overwrite each other or files that this program did not write."""
    endings = {path: (_VIDEO, ".json") if is_video(path) else (".png", ".json", _LABELS) for path, _ in named}
    written = [f"{name}{ending}" for path, name in named for ending in endings[path]] + [_IMAGES, _RESULTS]
    twice = next((name for name, count in Counter(written).items() if count > 1), None)
    if twice is not None:
        raise RequestError(f"two files have names for which {printable(twice)} would be written: rename one of them")
    _check_images(out / _IMAGES, named)
    videos = {f"{name}{_VIDEO}": f"{name}.json" for path, name in named if is_video(path)}
    for name in written:
        if name not in videos and name != _RESULTS:
            check_output(out / name)
        elif (out / name).exists() and not _is_known_by(out / videos.get(name, _IMAGES), name in videos):
            raise RequestError(f"{out / name} exists, and this program did not make it: name another folder by --out")


def _check_images(path: Path, named: Sequence[tuple[Path, Path]]) -> None:
    """Raise RequestError if earlier results in the folder are for images that this command does not predict."""
    if not path.exists():
        return
    check_output(path)
    try:
        listed = [str(entry["file_name"]) for entry in regular_json(path)["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{printable(path)} cannot be read: {error}; name another folder by --out") from None
    looked_at = {str(image) for image, _ in named}
    lost = [name for name in listed if not {name, name.rpartition("#")[0]} & looked_at]  # VIDEO#FRAME
    if lost:
        more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        raise RequestError(
            f"{printable(path.parent)} holds results of {printable(lost[0])}{more}, which would be replaced: "
            f"name another folder by --out, or name these images also"
        )


def _is_known_by(path: Path, of_a_video: bool) -> bool:
    """Return whether the JSON file next to a file that cannot store our mark shows that we wrote it."""
    if not path.exists():
        return False
    check_output(path)
    return not of_a_video or "frames" in regular_json(path)


def _json_writer(value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    return write


def class_names(path: Path) -> dict[str, Any]:
    """Read a run's `classes.json`: the `count` of outputs, and `names` by label; raise RequestError if unreadable."""
    try:
        classes: dict[str, Any] = regular_json(path)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    return classes


def _summary(found: Mapping[str, Any]) -> str:
    if "classes" in found:
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in found["classes"].items()) or "background"
    return ", ".join(f"{entry['name']} {entry['score']:.2f}" for entry in found["detections"]) or "nothing"
