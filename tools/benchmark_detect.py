"""golu-detect against a bare loop, its evaluation against torchvision's reference, and large annotation files."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy
import psutil
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from golu_core.training.config.optim import build_optimizer
from golu_core.training.loop.run import Run
from golu_detect.annotations import Annotations, read_annotations
from golu_detect.coco_metrics import coco_metrics
from golu_detect.config import DetectConfig, FasterRcnn
from golu_detect.data import load_data
from golu_detect.evaluate import detections
from golu_detect.model import build_model
from golu_detect.orders import training_order
from golu_detect.recipes import RECIPES
from golu_detect.task import TASK
from golu_detect.train import training_loss
from measuring import Row, interleaved, peak_resident_mib, seconds_of

_BATCH = 2
_REFERENCE = "torchvision's reference"


def _config(folder: Path) -> DetectConfig:
    recipe = RECIPES["fasterrcnn-resnet50-fpn-coco"]
    on_gpu = torch.cuda.is_available()
    side = 800 if on_gpu else 320
    model = FasterRcnn(shorter_side=(side,), longer_side=1333 if on_gpu else side)
    return replace(
        recipe,
        activation="relu",
        model=model,
        data=replace(RECIPES["fasterrcnn-digits"].data, classes="coco"),
        data_dir=folder / "data",
        output_dir=folder / "runs",
        batch_size=_BATCH,
        micro_batch_size=_BATCH,
        group_size=1,
        log_every=10**9,
        num_workers=0,
    )


def training_rows() -> list[Row]:
    """Images a second of golu-detect's loop and of a bare one over torchvision's own Faster R-CNN, taking turns."""
    with tempfile.TemporaryDirectory() as name:
        config = _config(Path(name))
        loops = {"golu-detect": _our_loop(config), "bare loop": _bare_loop(config)}
        tasks: dict[str, Any] = {loop: partial(next, steps) for loop, steps in loops.items()}
        times = interleaved(tasks, 12, 1)
    speeds = {loop: _BATCH / statistics.median(values) for loop, values in times.items()}
    return [
        {"what": loop, "images_per_second": speed, "of_the_other": speed / speeds["bare loop"]}
        for loop, speed in speeds.items()
    ]


def _our_loop(config: DetectConfig) -> Iterator[None]:
    data = load_data(config)
    order = training_order(config, data.train)
    with Run(config, TASK) as run:
        model, _ = build_model(config, data.classes)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device)
        model = run.prepare(model, optimizer, data.train, order, inputs={"data": data.fingerprint})
        model.train()
        for _ in run.epochs():
            for micro_batch in run.micro_batches():
                run.backward(micro_batch, training_loss(model, micro_batch.batch, config, run.device))
                if run.device.type == "cuda":
                    torch.cuda.synchronize()
                yield


def _bare_loop(config: DetectConfig) -> Iterator[None]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_data(config)
    assert isinstance(config.model, FasterRcnn)
    sides = {"min_size": config.model.shorter_side, "max_size": config.model.longer_side}
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91, **sides).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    while True:
        for rows in torch.randperm(len(data.train)).split(config.batch_size):
            scenes = [data.train.scene(row) for row in rows.tolist()]
            images = [image.to(device).float() / 255 for image, _ in scenes]
            targets = [{k: v.to(device) for k, v in target.items()} for _, target in scenes]
            loss = sum(model(images, targets).values(), torch.zeros((), device=device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            yield


def evaluation_rows(images: int = 5000, boxes: int = 36) -> list[Row]:
    """Seconds from a network's outputs to the box metrics, by golu-detect and by torchvision's reference.

    The reference converts box by box, and runs pycocotools' `evaluate` image by image before it accumulates. Each way
    is timed once a round, in turns. Of two processes the time is that of the slower one's share.
    """
    random = numpy.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.json"
        path.write_text(json.dumps(_annotation_content(images, 7 * images, random)))
        test: Any = SimpleNamespace(annotations=(annotations := read_annotations(path)), images=annotations.images)
    outputs = [_output(random, boxes) for _ in range(images)]
    numbers: dict[str, dict[str, float]] = {}

    def ours(what: str, processes: Any = None) -> None:
        categories = {label: label for label in annotations.categories}
        found = [
            detection
            for image, output in zip(annotations.images, outputs, strict=True)
            for detection in detections(output, image.id, categories)
        ]
        numbers[what] = coco_metrics(test, found, "bbox", processes)

    def with_pycocotools(what: str, processes: Any = None) -> None:
        with patch.dict(sys.modules, {"faster_coco_eval": None}):
            ours(what, processes)

    def reference(what: str) -> None:
        stats = _torchvision_reference(annotations, outputs)
        numbers[what] = dict(zip(numbers["golu-detect, pycocotools"], (100 * stats).tolist(), strict=True))

    first_of_two = SimpleNamespace(rank=0, count=2, all_gather=lambda items: items)
    ways: dict[str, Callable[[str], None]] = {
        "golu-detect, faster-coco-eval": ours,
        "golu-detect, pycocotools": with_pycocotools,
        "golu-detect, pycocotools, one of two processes": partial(with_pycocotools, processes=first_of_two),
        _REFERENCE: reference,
    }
    times: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(3):
        for what, way in ways.items():
            times[what].append(seconds_of(partial(way, what)))
    whole = {what: found for what, found in numbers.items() if "one of" not in what}
    largest = max(abs(found[key] - value) for found in whole.values() for key, value in numbers[_REFERENCE].items())
    return [
        {
            "what": f"{what}, {images:,} images, {boxes} boxes each",
            "seconds": statistics.median(times[what]),
            **({"largest_difference": largest} if what == _REFERENCE else {}),
        }
        for what in ways
    ]


def _torchvision_reference(annotations: Annotations, outputs: list[dict[str, Tensor]]) -> NDArray[numpy.float64]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [image._asdict() for image in annotations.images],
            "annotations": [entry for rows in annotations.objects.values() for entry in rows],
            "categories": [{"id": i} for i in annotations.categories],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, iouType="bbox")
        parts = []
        for image, output in zip(annotations.images, outputs, strict=True):
            corners = output["boxes"].tolist()
            rows = [
                {"image_id": image.id, "category_id": label, "bbox": [x, y, right - x, below - y], "score": score}
                for (x, y, right, below), label, score in zip(
                    corners, output["labels"].tolist(), output["scores"].tolist(), strict=True
                )
            ]
            evaluation.cocoDt = truth.loadRes(rows)
            evaluation.params.imgIds = [image.id]
            evaluation.evaluate()
            shape = (-1, len(evaluation.params.areaRng), 1)
            parts.append(numpy.asarray(evaluation.evalImgs).reshape(shape))
        evaluation.params.imgIds = [image.id for image in annotations.images]
        evaluation._paramsEval = evaluation.params
        evaluation.evalImgs = list(numpy.concatenate(parts, 2).flatten())
        evaluation.accumulate()
        evaluation.summarize()
    stats: NDArray[numpy.float64] = evaluation.stats
    return stats


def _output(random: numpy.random.Generator, boxes: int) -> dict[str, Tensor]:
    corners = torch.from_numpy(random.uniform(0, 400, (boxes, 4))).float()
    corners[:, 2:] = corners[:, :2] + 10 + corners[:, 2:] / 4
    labels = torch.from_numpy(random.integers(1, 81, boxes))
    return {"boxes": corners, "labels": labels, "scores": torch.from_numpy(random.random(boxes)).float()}


def _annotation_content(images: int, objects: int, random: numpy.random.Generator) -> dict[str, Any]:
    """Annotations as large as COCO's: outlines of 25 points."""
    corners = random.uniform(0, 400, (objects, 2))
    sizes = random.uniform(10, 120, (objects, 2))
    owners, kinds = random.integers(0, images, objects).tolist(), random.integers(1, 81, objects).tolist()
    outlines = numpy.round(random.uniform(0, 1, (objects, 25, 2)) * sizes[:, None] + corners[:, None], 2)
    listed = [
        {
            "id": n,
            "image_id": owner,
            "category_id": kind,
            "bbox": [round(v, 2) for v in (*corner, *size)],
            "area": size[0] * size[1],
            "iscrowd": 0,
            "segmentation": [outline],
        }
        for n, (owner, kind, corner, size, outline) in enumerate(
            zip(owners, kinds, corners.tolist(), sizes.tolist(), outlines.reshape(objects, 50).tolist(), strict=True)
        )
    ]
    pictures = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 480, "width": 640} for n in range(images)]
    categories = [{"id": n, "name": str(n)} for n in range(1, 81)]
    return {"images": pictures, "annotations": listed, "categories": categories}


def annotation_rows(images: int = 118_287, objects: int = 860_001) -> list[Row]:
    """Annotations of COCO's size: CPU seconds and peak memory to open them, each reader in a new process.

    And how much memory a loader process of golu-detect gets for itself when it has asked for all objects.
    """
    rows: list[Row] = []
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "large.json"
        with spawned.Pool(1) as pool:
            pool.apply(_write_large, (path, images, objects))
        for what in ("golu-detect", "pycocotools"):
            with spawned.Pool(1) as pool:
                seconds, memory = pool.apply(_open_large, (path, what))
            rows.append(
                {"what": f"{what}: open {objects:,} objects", "cpu_seconds": seconds, "peak_memory_mib": memory}
            )
        with spawned.Pool(1) as pool:
            growth = pool.apply(_private_growth, (path,))
        rows.append({"what": "golu-detect: private memory of a loader process, all objects", "peak_memory_mib": growth})
    return rows


def _private_growth(path: Path) -> float:
    """MiB that a forked process has for itself after it asked for every object once."""
    annotations = read_annotations(path)
    ours, theirs = multiprocessing.get_context("fork").Pipe()

    def visit() -> None:
        process = psutil.Process()
        before = process.memory_full_info().uss
        for image in annotations.images:
            annotations.objects.get(image.id, ())
        theirs.send((process.memory_full_info().uss - before) / 2**20)

    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # a pool's may have no child
    child = multiprocessing.get_context("fork").Process(target=visit)
    child.start()
    growth: float = ours.recv()
    child.join()
    return growth


def _write_large(path: Path, images: int, objects: int) -> None:
    path.write_text(json.dumps(_annotation_content(images, objects, numpy.random.default_rng(0))))


def _open_large(path: Path, what: str) -> tuple[float, float]:
    opened: list[Any] = []
    before, start = peak_resident_mib(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        opened.append(read_annotations(path) if what == "golu-detect" else COCO(str(path)))
    return time.process_time() - start, peak_resident_mib() - before


def all_rows() -> list[Row]:
    """All three."""
    return [*training_rows(), *evaluation_rows(), *annotation_rows()]
