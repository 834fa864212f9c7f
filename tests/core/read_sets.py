"""A small example of every kind of file that a command reads, with the call that reads it."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

NAMES = ("chat noir", "é")
SIDE = 24


@dataclass(frozen=True)
class ReadSet:
    """Files that one call reads.

    Attributes:
        make: Write them into a folder.
        read: Read them, and return what was found, to be compared.
        binary: Whether the files are no text, so that no encoding of them needs to be read.
        may_change: Parts of names of files whose text may be anything, such as a corpus or labels without objects.
        slow: Whether one read takes more than a few milliseconds.
        states: Only these states are tried; all by default.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    binary: bool = False
    may_change: tuple[str, ...] = ()
    slow: bool = False
    states: tuple[str, ...] = ()


def image(path: Path, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (shade, 20, 30)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- golu-detect


def yolo(root: Path, lists: bool = False) -> None:
    for split in ("train", "val"):
        image(root / "images" / split / "a.png")
        text(root / "labels" / split / "a.txt", "0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.5 0.5\n")
        if lists:
            text(root / f"{split}.txt", f"images/{split}/a.png\n")
    places = ("train.txt", "val.txt") if lists else ("images/train", "images/val")
    text(root / "data.yaml", f"train: {places[0]}\nval: {places[1]}\nnames: [{', '.join(NAMES)}]\n")


def voc(root: Path) -> None:
    for split in ("train", "val"):
        image(root / "JPEGImages" / f"{split}.png")
        text(root / "ImageSets" / "Main" / f"{split}.txt", f"{split}\n")
        box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in NAMES)
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height></size>"
        declared = '<?xml version="1.0" encoding="UTF-8"?>'
        body = f"<annotation><filename>{split}.png</filename>{size}{objects}</annotation>"
        text(root / "Annotations" / f"{split}.xml", f"{declared}{body}")


def coco(root: Path) -> None:
    for split in ("train", "val"):
        image(root / split / "a.png")
        box = {"bbox": [1, 2, 8, 9], "area": 72, "iscrowd": 0, "segmentation": [[1, 2, 9, 2, 9, 11, 1, 11]]}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}],
            "annotations": [{"id": n, "image_id": 1, "category_id": n, **box} for n in (1, 2)],
            "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)],
        }
        text(root / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))


def read_scenes(root: Path) -> Any:
    from golu_detect.config import Data
    from golu_detect.data import check_every_image, load_data
    from golu_detect.recipes import RECIPES

    config = replace(RECIPES["fasterrcnn-digits"], data=Data(root=root, classes="file"))
    data = load_data(config)
    check_every_image(data, 0)
    boxes = [
        {k: v.tolist() for k, v in split.scene(n)[1].items()} for split in (data.train, data.test) for n in range(1)
    ]
    return data.names, boxes


def read_class_names(root: Path) -> Any:
    from golu_detect.predict import class_names

    return class_names(root / "classes.json")


def video(root: Path) -> None:
    from fractions import Fraction

    from golu_detect.video import write_video

    root.mkdir()
    write_video(root / "a.mp4", Fraction(5), [torch.zeros(3, 32, 32, dtype=torch.uint8)] * 2)


def read_video(root: Path) -> Any:
    from golu_detect.video import open_video

    return [frame.image.shape for frame in open_video(root / "a.mp4", 1).frames]


# --------------------------------------------------------------------------------------------- vision and diffusion


def celeba(root: Path, end: str = "txt") -> None:
    between = "," if end == "csv" else " "
    lines = [f"{n}.jpg{between}{n % 2}" for n in (1, 2)]
    text(root / f"list_eval_partition.{end}", "\n".join(lines) + "\n")
    for n in (1, 2):
        image(root / "img_align_celeba" / f"{n}.jpg")


def read_celeba(root: Path) -> Any:
    from golu_core.training.data.images import read_image
    from golu_diffusion.celeba import find_celeba

    found = find_celeba(root)
    return {split: [(path.name, read_image(path).shape) for path in paths] for split, paths in found.items()}


def pictures(root: Path) -> None:
    for n in range(10):
        image(root / f"{n}.png", 20 * n)


def read_pictures(root: Path) -> Any:
    from golu_diffusion.config import Data
    from golu_diffusion.data import check_every_image, load_data
    from golu_diffusion.recipes import RECIPES

    config = replace(RECIPES["ddpm-digits"], data=Data(images=root, size=16, channels=3))
    data = load_data(config)
    return list(check_every_image(data, 0)), int(data.train.image(0).sum())


def classes(root: Path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("a", "b")):
            image(root / split / name / "1.png", 100 * label + len(split))


def mnist(root: Path) -> None:
    raw = root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        pixels, labels = numpy.full((10, 28, 28), 7, numpy.uint8), numpy.arange(10, dtype=numpy.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 10, 28, 28) + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 10) + labels.tobytes())


def cifar(root: Path) -> None:
    """Names only: torchvision compares checksums before it opens a batch, and reads each for that."""
    from torchvision.datasets import CIFAR10

    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        text(root / "cifar10" / CIFAR10.base_folder / name, "é")


def read_vision(root: Path, recipe: str, **data: Any) -> Any:
    from golu_vision.data import StoredImages, check_every_image, load_data
    from golu_vision.recipes import RECIPES

    config = RECIPES[recipe]
    given = {"root": root} if data else {}
    config = replace(config, data_dir=root, data=replace(config.data, **given, **data))
    found = load_data(config)
    pixels = [int(split.images.sum()) for split in (found.train, found.test) if isinstance(split, StoredImages)]
    return list(check_every_image(found, 4, 0)), found.classes, pixels


def read_cifar(root: Path) -> Any:
    from golu_core.training.messages.errors import RequestError

    try:
        return read_vision(root, "resnet20-cifar10")
    except RequestError as error:
        return "not CIFAR-10" if "CIFAR-10 is not in" in str(error) else refused(error)


def refused(error: Exception) -> Any:
    raise error


def saved_images(root: Path) -> None:
    import datasets

    rows = {"image": [Image.new("RGB", (SIDE, SIDE))] * 2, "label": [0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("ab"))})
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(str(root))


def read_saved_images(root: Path) -> Any:
    from golu_core.training.data.hub import encoded_images, load_image_splits

    found = load_image_splits(str(root))
    return len(found.train), len(encoded_images(found.train, found.column, "x")(0)[0])


# -------------------------------------------------------------------------------------------------------------- golu-lm


def corpus(root: Path, name: str) -> None:
    rows = [f"row {n} has the word é" for n in range(40)]
    plain = {
        "txt": "\n".join(rows),
        "jsonl": "\n".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows),
        "json": json.dumps([{"text": row} for row in rows], ensure_ascii=False),
        "csv": "n,text\n" + "\n".join(f'{n},"{row}"' for n, row in enumerate(rows)),
        "tsv": "n\ttext\n" + "\n".join(f"{n}\t{row}" for n, row in enumerate(rows)),
    }
    root.mkdir()
    kind = name.split(".")[1]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), root / name)
    elif name.endswith(".gz"):
        (root / name).write_bytes(gzip.compress(plain[kind].encode()))
    else:
        text(root / name, plain[kind])


def read_corpus(root: Path, name: str) -> Any:
    from golu_lm.corpora import open_corpus

    found = open_corpus(str(root / name))
    return [[piece.text for piece in found.pieces(split, 0)] for split in ("train", "test")]


def read_tokens_of(root: Path, name: str) -> Any:
    from golu_lm.corpora import open_corpus
    from golu_lm.prepare import prepare
    from golu_lm.tokenizers import ByteTokenizer

    out = root.parent / "tokens"
    shutil.rmtree(out, ignore_errors=True)
    splits = prepare(open_corpus(str(root / name)), out, ByteTokenizer(), 1)["splits"]
    return [facts["sha256"] for facts in splits.values()]


def tokens(root: Path) -> None:
    from golu_lm.corpora import Documents
    from golu_lm.prepare import prepare
    from golu_lm.tokenizers import ByteTokenizer

    documents = Documents({split: ["a text é " * 60] for split in ("train", "test")}, {"package": "x"})
    prepare(documents, root / "pydocs-bytes", ByteTokenizer(), 1)


def read_tokens(root: Path) -> Any:
    from golu_lm.data import load_data
    from golu_lm.recipes import RECIPES

    config = RECIPES["babygpt-pydocs"]
    data = replace(config.data, tokenizer="bytes", name="pydocs")
    config = replace(config, data=data, data_dir=root, model=replace(config.model, context=16, vocabulary=257))
    return load_data(replace(config, check_data=True)).fingerprint.text


# ------------------------------------------------------------------------------------------------------- golu-translate


def parallel(root: Path, kind: str) -> None:
    pairs = [("A cat.", "Eine Katze."), ("Two dogs é.", "Zwei Hunde ß.")]
    if kind == "two files":
        for side, language in enumerate(("en", "de")):
            text(root / f"train.{language}", "".join(f"{pair[side]}\n" for pair in pairs))
    elif kind == "tsv":
        text(root / "train.tsv", "".join(f"{a}\t{b}\n" for a, b in pairs))
    else:
        units = "".join(
            f'<tu><tuv xml:lang="en"><seg>{a}</seg></tuv><tuv xml:lang="de"><seg>{b}</seg></tuv></tu>\n'
            for a, b in pairs
        )
        body = f'<tmx version="1.4"><header/><body>{units}</body></tmx>'
        text(root / "train.tmx", f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n')


def read_parallel(root: Path) -> Any:
    from golu_translate.parallel_text import Languages, own_pairs
    from golu_translate.subwords import Words

    found = own_pairs(root, Languages("en", "de"))
    english = Words("en")
    return [(english.cut(source), target) for source, target in found.pairs("train")]


def prepared_pairs(root: Path) -> None:
    from translation_program import prepared

    prepared(root)


def read_prepared_pairs(root: Path) -> Any:
    from golu_translate.data import load_pairs
    from golu_translate.recipes import RECIPES

    config = RECIPES["transformer-numbers"]
    data = load_pairs(replace(config, data_dir=root, check_data=True))
    texts = [[list(column) for column in references] for references in data.references.values()]
    return data.codec.subwords.content, texts, [int(side.subwords.sum()) for side in data.train]


# ---------------------------------------------------------------------------------------------- vocabularies of golu-lm


def vocabulary(root: Path) -> None:
    import base64

    pairs = [bytes([byte]) for byte in range(256)] + [b"he"]
    text(root / "x.tiktoken", "".join(f"{base64.b64encode(p).decode()} {n}\n" for n, p in enumerate(pairs)))


def old_vocabulary(root: Path) -> None:
    """As GPT-2's authors published it: bytes that cannot be printed are letters from the 257th on."""
    shown = [byte for byte in range(256) if chr(byte).isprintable() and byte != 32]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [chr(byte) for byte in shown] + [chr(256 + n) for n in range(len(hidden))]
    encoder = {letter: number for number, letter in enumerate([*letters, "he"])}
    text(root / "vocab.bpe", "#version: 0.2\nh e\n")
    text(root / "encoder.json", json.dumps(encoder, ensure_ascii=False))


def read_vocabulary(root: Path, name: str) -> Any:
    from golu_lm.tokenizers import _read_vocabulary

    return _read_vocabulary(root / name)


# ------------------------------------------------------------------------------------------------------------ golu-core


def read_study(root: Path) -> Any:
    from golu_core.studies.sweeping.study import read_study

    return read_study(root / "mine.toml")


def study(root: Path) -> None:
    experiment = '[[experiment]]\nrecipes = ["digits"]\nactivations = ["relu"]\nseeds = [0]\n'
    text(root / "mine.toml", f'output_dir = "runs-é"\n{experiment}')


def activation(root: Path) -> None:
    text(root / "mine.py", "import torch\nclass Mine(torch.nn.ReLU):\n    'é'\n")


def read_activation(root: Path) -> Any:
    from golu_core.training.config.named_activations import named_activation
    from golu_core.training.messages.errors import RequestError

    named_activation(f"{root / 'mine.py'}:Mine")
    return RequestError


def recipe(root: Path) -> None:
    lines = "import dataclasses\nfrom golu_vision.recipes import RECIPES\n# é\n"
    text(root / "mine.py", f"{lines}mine = dataclasses.replace(RECIPES['digits'], epochs=3)\n")


def read_recipe(root: Path) -> Any:
    from golu_core.training.tasks.task import named_recipe

    return named_recipe(f"{root / 'mine.py'}:mine")[1].epochs


def weights(root: Path, name: str) -> None:
    from safetensors.torch import save_file

    root.mkdir()
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    if name.endswith(".pth"):
        torch.save(tensors, root / name)
    else:
        save_file(tensors, root / name)


def read_weights(root: Path, name: str) -> Any:
    from golu_core.training.finetuning.given_weights import read_given

    return {name: tensor.tolist() for name, tensor in read_given(str(root / name), {}).tensors.items()}


def finished_runs(root: Path) -> None:
    from runs_on_disk import write_run

    for seed in (0, 1):
        write_run(root, "vision", "digits", "golu", seed, {"top1": 98.0 + seed}, curve=[90.0, 98.0 + seed])


def read_finished_runs(root: Path) -> Any:
    from golu_core.studies.reporting.collect import collect
    from golu_core.studies.reporting.figures import read_test_metrics
    from golu_core.studies.reporting.single import _facts, _metric_lines

    runs = collect([root]).runs
    curves = [list(read_test_metrics(run.folder)) for run in runs]
    assert len(curves) == len(runs)  # a curve may be missing
    return [(run.result, _metric_lines(run.folder), _facts(run.folder)) for run in runs]


def tiny_run(root: Path) -> None:
    from tiny_task import tiny_config, train

    train(tiny_config(root, checkpoint_every=1))


def read_tiny_run(root: Path, finished: bool) -> Any:
    """Continue a run, or find it finished, and return its numbers."""
    from golu_core.training.runs.results import read_result
    from tiny_task import tiny_config, train

    folder = root / "runs/tiny/line/golu/seed0"
    if not finished:
        (folder / "result.json").unlink(missing_ok=True)
    train(tiny_config(root, checkpoint_every=1))
    return read_result(folder / "result.json").metrics


def class_names(root: Path) -> None:
    text(root / "classes.json", json.dumps({"count": 3, "names": {"1": "é"}}, ensure_ascii=False))


TABLE_SETS = {
    name: ReadSet(partial(corpus, name=name), partial(read_corpus, name=name), name == "x.parquet", ("x",), slow)
    for name, slow in (("x.jsonl", False), ("x.json", True), ("x.csv", True), ("x.tsv", True), ("x.parquet", True))
}
FEW_STATES = ("UTF-16", "FIFO", "device", "10 MB line")  # tests/faults/test_damage.py tries others on whole runs
READ_SETS: dict[str, ReadSet] = {
    "YOLO": ReadSet(yolo, read_scenes, may_change=("labels",)),
    "YOLO with lists": ReadSet(partial(yolo, lists=True), read_scenes, may_change=("labels",)),
    "VOC": ReadSet(voc, read_scenes),
    "COCO": ReadSet(coco, read_scenes),
    "a detector's classes": ReadSet(class_names, read_class_names),
    "a video": ReadSet(video, read_video, binary=True, may_change=("a.mp4",)),
    "CelebA": ReadSet(celeba, read_celeba),
    "CelebA, Kaggle's": ReadSet(partial(celeba, end="csv"), read_celeba),
    "pictures": ReadSet(pictures, read_pictures),
    "class folders": ReadSet(classes, partial(read_vision, recipe="digits", classes=2)),
    "MNIST": ReadSet(mnist, partial(read_vision, recipe="mlp-mnist"), binary=True, may_change=("ubyte",)),
    "CIFAR-10": ReadSet(cifar, read_cifar, binary=True, may_change=("batch",)),
    "saved images": ReadSet(saved_images, read_saved_images, binary=True, may_change=("arrow", "json")),
    "plain text": ReadSet(partial(corpus, name="x.txt"), partial(read_tokens_of, name="x.txt"), may_change=("x.txt",)),
    "packed text": ReadSet(
        partial(corpus, name="x.txt.gz"), partial(read_tokens_of, name="x.txt.gz"), True, ("x.txt.gz",)
    ),
    **TABLE_SETS,
    "tokens": ReadSet(tokens, read_tokens, binary=True),
    "parallel text": ReadSet(partial(parallel, kind="two files"), read_parallel),
    "a TSV of pairs": ReadSet(partial(parallel, kind="tsv"), read_parallel),
    "TMX": ReadSet(partial(parallel, kind="tmx"), read_parallel),
    "prepared pairs": ReadSet(prepared_pairs, read_prepared_pairs, binary=True, slow=True),
    "a vocabulary": ReadSet(vocabulary, partial(read_vocabulary, name="x.tiktoken"), may_change=("x.",)),
    "GPT-2's vocabulary": ReadSet(old_vocabulary, partial(read_vocabulary, name=".")),
    "a study": ReadSet(study, read_study),
    "an activation": ReadSet(activation, read_activation, binary=True),
    "a recipe": ReadSet(recipe, read_recipe, binary=True),
    "safetensors": ReadSet(
        partial(weights, name="w.safetensors"), partial(read_weights, name="w.safetensors"), binary=True
    ),
    "a state dict": ReadSet(partial(weights, name="w.pth"), partial(read_weights, name="w.pth"), binary=True),
    "finished runs": ReadSet(finished_runs, read_finished_runs, binary=True, may_change=("metrics.jsonl",)),
    "a run that is continued": ReadSet(
        tiny_run, partial(read_tiny_run, finished=False), True, slow=True, states=FEW_STATES
    ),
    "a run that is finished": ReadSet(
        tiny_run, partial(read_tiny_run, finished=True), True, slow=True, states=FEW_STATES
    ),
}
