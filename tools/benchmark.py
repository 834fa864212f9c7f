"""Measures what the documents promise: providers side by side in one process, interleaved, medians and spread.

    python tools/benchmark.py activation [--threads 1 2] [--sizes 100000] [--vectors 2] [--streaming] [--json FILE]
    python tools/benchmark.py loop [--json FILE]
    python tools/benchmark.py images [--json FILE]
    python tools/benchmark.py lm [--no-compile] [--json FILE]
    python tools/benchmark.py translation [--json FILE]
    python tools/benchmark.py detect [--json FILE]
    python tools/benchmark.py annotations [--json FILE]
    python tools/benchmark.py coco [--json FILE]
    python tools/benchmark.py diffusion [--no-compile] [--json FILE]
    python tools/benchmark.py aggregate [--json FILE]
    python tools/benchmark.py startup [--json FILE]
    python tools/benchmark.py host [--json FILE]
    python tools/benchmark.py learned [--threads 1 2] [--json FILE]
    python tools/benchmark.py prepare --vocab-file FILE [--json FILE]

`activation` takes the GPU where there is one, else the CPU. Each prints a Markdown table, and if asked writes it with
the machine and the command to a JSON file.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from torch.nn import functional as F

from golu_core.activation.compute import kernel
from golu_core.training.runs.provenance import environment
from measuring import Row, interleaved, markdown, seconds_of

if TYPE_CHECKING:
    from golu_vision.config import VisionConfig
    from golu_vision.data import ImageData


# ------------------------------------------------------------------------------------------------ the training loop


def loop_rows() -> list[Row]:
    """Images a second of golu-vision's loop and of a bare PyTorch loop, same model, optimizer, batch and layout."""
    from golu_vision.data import load_data
    from golu_vision.recipes import RECIPES

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = replace(RECIPES["digits"], data_dir=Path(folder) / "data", output_dir=Path(folder) / "runs")
        config = replace(config, epochs=1000, num_workers=0)
        data = load_data(config)
        logged = replace(config, log_every=1, output_dir=Path(folder) / "logged")
        loops = {
            "golu-vision": _our_loop(config, data),
            "golu-vision, norms logged in every step": _our_loop(logged, data),
            "bare loop": _bare_loop(config, data),
        }
        first_step = seconds_of(lambda: next(loops["golu-vision"])), time.perf_counter() - start
        times = interleaved({name: partial(next, steps) for name, steps in loops.items()}, 60, 1)
    speeds = {name: config.batch_size / statistics.median(values) for name, values in times.items()}
    rows: list[Row] = [
        {"loop": name, "images_per_second": speed, "of_the_bare_loop": speed / speeds["bare loop"]}
        for name, speed in speeds.items()
    ]
    rows.append({"loop": "golu-vision: first step, seconds", "images_per_second": first_step[0]})
    rows.append({"loop": "golu-vision: from data to first step, seconds", "images_per_second": first_step[1]})
    return rows


def _our_loop(config: VisionConfig, data: ImageData) -> Iterator[None]:
    from golu_core.training.config.optim import build_optimizer
    from golu_core.training.loop.run import Run
    from golu_vision.model import build_model
    from golu_vision.task import TASK
    from golu_vision.train import epoch_order, training_loss

    order = epoch_order(config, len(data.train))
    with Run(config, TASK) as run:
        model = build_model(config, 10)[0].to(run.device).to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, config.optim, run.device)
        model = run.prepare(model, optimizer, data.train, order, inputs={"data": data.fingerprint})
        model.train()
        for epoch in run.epochs():
            for micro_batch in run.micro_batches():
                run.backward(micro_batch, training_loss(model, micro_batch.batch, config, 10, epoch, run.device))
                yield


def _bare_loop(config: VisionConfig, data: ImageData) -> Iterator[None]:
    from golu_core.training.config.optim import build_optimizer
    from golu_vision.model import build_model
    from golu_vision.transforms import normalized

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config, 10)[0].to(device).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config.optim, device)
    images, labels = data.train.images[:, :, 3:-3, 3:-3], data.train.labels  # type: ignore[attr-defined]
    while True:
        for rows in torch.randperm(len(labels)).split(config.batch_size):
            if len(rows) < config.batch_size:
                break
            batch = normalized(images[rows], config.data, device)
            F.cross_entropy(model(batch), labels[rows].to(device)).backward()
            optimizer.step()
            optimizer.zero_grad()
            yield


# ------------------------------------------------------------------------------------------------------------- images


def image_rows(count: int = 128) -> list[Row]:
    """JPEG files to batches in one process: golu-vision, and torchvision's reference pipeline on Pillow images.

    The pictures are scikit-learn's two photographs, cut and scaled to 500 x 375 in many ways.
    """
    from golu_core.training.data.orders import SampleKey
    from golu_vision.config import TorchvisionAugment
    from golu_vision.data import load_data
    from golu_vision.recipes import RECIPES

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), count)
        recipe = RECIPES["resnet50-imagenet"]
        data = replace(recipe.data, root=Path(folder))
        config = replace(recipe, data=data, augment=TorchvisionAugment())
        train = load_data(config).train
        reference = _torchvision_reference()
        batches = [range(start, start + 16) for start in range(0, count, 16)]
        state = {"ours": 0, "theirs": 0}

        def ours() -> None:
            state["ours"] += 1
            keys = [SampleKey(n, state["ours"], n) for n in batches[state["ours"] % len(batches)]]
            train.__getitems__(keys)

        def theirs() -> None:
            state["theirs"] += 1
            chosen = [paths[n] for n in batches[state["theirs"] % len(batches)]]
            torch.stack([reference(path) for path in chosen])

        times = interleaved({"golu-vision": ours, "torchvision's reference (Pillow)": theirs}, 30, 1)
        mean, largest = _decoder_difference(paths)
    speeds = {name: 16 / statistics.median(values) for name, values in times.items()}
    last = speeds["torchvision's reference (Pillow)"]
    rows: list[Row] = [
        {"pipeline": name, "images_per_second": speed, "of_the_reference": speed / last}
        for name, speed in speeds.items()
    ]
    rows.append(
        {"pipeline": "decoders differ by, mean and largest of 255", "images_per_second": f"{mean:.4f}, {largest}"}
    )
    return rows


def _torchvision_reference() -> Callable[[Path], Tensor]:
    """The training preset of torchvision's reference scripts: Pillow, crop, flip, to float, normalize."""
    from PIL import Image
    from torchvision import transforms

    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def load(path: Path) -> Tensor:
        with path.open("rb") as file:
            tensor: Tensor = pipeline(Image.open(file).convert("RGB"))
            return tensor

    return load


def write_photographs(root: Path, count: int) -> list[Path]:
    """Class folders of 500 x 375 JPEGs cut from real photographs; returns the training files in the order of labels."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = numpy.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for number in range(count):
        label = str(number % 2)
        width = int(rng.integers(400, 641))
        height = width * 3 // 4
        left, top = int(rng.integers(0, 641 - width)), int(rng.integers(0, max(1, 428 - height)))
        view = photographs[number % 2].crop((left, top, left + width, min(427, top + height))).resize((500, 375))
        for split in ("train", "val") if number < 2 else ("train",):
            path = root / split / label / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            view.save(path, quality=90)
            if split == "train":
                paths.append(path)
    return sorted(paths)


def _decoder_difference(paths: list[Path]) -> tuple[float, int]:
    """Mean and largest difference of pixels between our decoder and Pillow."""
    from PIL import Image

    from golu_core.training.data.images import decode

    differences = []
    for path in paths:
        ours = decode(path.read_bytes(), str(path)).permute(1, 2, 0).numpy().astype(int)
        theirs = numpy.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).astype(int)
        differences.append(numpy.abs(ours - theirs))
    return float(numpy.mean(differences)), int(numpy.max(differences))


# -------------------------------------------------------------------------------------------------------------- output


def main() -> None:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        choices=[
            "activation",
            "loop",
            "images",
            "lm",
            "translation",
            "prepare",
            "detect",
            "annotations",
            "coco",
            "diffusion",
            "aggregate",
            "startup",
            "host",
            "learned",
        ],
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--no-compile", action="store_true", help="leave out what torch.compile makes")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which no new size is begun on a GPU")
    parser.add_argument(
        "--vectors", type=int, default=1, choices=(1, 2, 4), help="16-byte vectors that a thread of GoLU's kernel moves"
    )
    parser.add_argument("--streaming", action="store_true", help="GoLU's kernel moves memory past the cache")
    parser.add_argument("--vocab-file", type=Path, help="GPT-2's vocabulary, for `prepare`")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    kernel.moves = kernel.TransferStyle(flags.vectors, flags.streaming)
    if kernel.moves != kernel.TransferStyle() and not (flags.what == "activation" and torch.cuda.is_available()):
        parser.error("--vectors and --streaming change GoLU's kernel on a GPU, which `activation` measures")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if flags.what == "loop":
        rows = loop_rows()
    elif flags.what == "images":
        rows = image_rows()
    elif flags.what == "detect":
        import benchmark_detect

        rows = benchmark_detect.all_rows()
    elif flags.what == "annotations":
        import benchmark_detect

        rows = benchmark_detect.annotation_rows()
    elif flags.what == "coco":
        import benchmark_detect

        rows = benchmark_detect.evaluation_rows()
    elif flags.what == "aggregate":
        import benchmark_aggregate

        rows = benchmark_aggregate.aggregate_rows()
    elif flags.what == "startup":
        import benchmark_startup

        rows = benchmark_startup.startup_rows()
    elif flags.what == "host":
        import benchmark_host

        rows = benchmark_host.host_rows()
    elif flags.what == "learned":
        import benchmark_learned

        rows = benchmark_learned.learned_rows(flags.threads)
    elif flags.what == "diffusion":
        import benchmark_diffusion

        rows = benchmark_diffusion.all_rows(not flags.no_compile)
    elif flags.what == "translation":
        import benchmark_translation

        rows = benchmark_translation.translation_rows()
    elif flags.what in ("lm", "prepare"):
        import benchmark_lm

        if flags.what == "lm":
            rows = benchmark_lm.training_rows(not flags.no_compile)
        else:
            rows = benchmark_lm.prepare_rows(flags.vocab_file)
    else:
        import benchmark_activation

        if torch.cuda.is_available():
            rows = benchmark_activation.activation_on_gpu(flags.sizes, not flags.no_compile, flags.minutes)
        else:
            rows = benchmark_activation.activation_on_cpu(flags.sizes, flags.threads, not flags.no_compile)
    print(markdown(rows))
    if flags.json:
        command = "python tools/benchmark.py " + " ".join(sys.argv[1:])
        content = {"command": command, "environment": environment(device, "golu-vision"), "rows": rows}
        flags.json.parent.mkdir(parents=True, exist_ok=True)
        flags.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
