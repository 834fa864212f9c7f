"""Exports of every task: other programs give torch's numbers, and each card's own lines load them."""

from __future__ import annotations

import getpass
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from accelerate.state import AcceleratorState

import detect_program
import diffusion_program
import golu_core
import golu_vision
import lm_program
import translation_program
import vision_program
from command_line import environment
from golu_core.training.export import exporting
from golu_core.training.export.exporting import Exportable, _compared
from golu_core.training.messages.errors import RunFailure
from golu_core.training.runs.results import base_of
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import task_of
from golu_detect.samples import write_digit_scenes

VISION = [*vision_program.FAST, "--epochs", "1", "--max-steps", "2"]
DETECT = [*detect_program.FAST, "--max-steps", "2"]
RUNS = {
    "resnet20": ("digits", VISION),
    "per channel": ("digits", [*VISION, "--activation", "golu(learnable=True, per_channel=True)"]),
    "mlp": ("mlp-digits", [*VISION, "--activation", "mish"]),
    "vit": (
        "digits",
        [*VISION, "--model.name", "timm/test_vit", "--model.default-activation", "gelu", "--data.size", "160"],
    ),
    "timm": ("digits", [*VISION, "--model.name", "timm/test_efficientnet", "--model.default-activation", "swish"]),
    "timm, own": ("digits", [*VISION, "--model.name", "timm/test_resnet", "--activation", "relu"]),
    "timm, learned": ("digits", [*VISION, "--model.name", "timm/test_resnet", "--activation", "golu(learnable=True)"]),
    "torchvision": ("digits", [*VISION, "--model.name", "torchvision/resnet18"]),
    "file": ("digits", [*VISION, "--activation", "./mine.py:Mine(a=2.0)"]),
    "gpt": ("babygpt-pydocs", lm_program.TINY),
    "gated": ("babygpt-pydocs", [*lm_program.TINY, "--model.mlp", "gated"]),
    "translator": ("transformer-numbers", [*translation_program.TINY, "--data.name", translation_program.NAME]),
    "unet": ("ddpm-digits", [*diffusion_program.TINY, "--max-steps", "2"]),
    "unet, own": ("ddpm-digits", [*diffusion_program.TINY, "--max-steps", "2", "--activation", "swish"]),
    "unet, per channel": (
        "ddpm-digits",
        [*diffusion_program.TINY, "--max-steps", "2", "--activation", "golu(learnable=True, per_channel=True)"],
    ),
    "boxes": ("fasterrcnn-digits", DETECT),
    "masks": ("maskrcnn-digits", DETECT),
    "retina": ("retinanet-digits", DETECT),
    "segments": ("deeplabv3-digits", DETECT),
}
DETECTORS = ("boxes", "masks", "retina")
# ONNX and torch.export see operators, the weights a library's loader: each run in the forms where it is special
FORMS = {
    "resnet20": ["onnx", "pt2", "safetensors"],
    "vit": ["onnx", "safetensors"],
    "gpt": ["onnx", "pt2", "safetensors"],
    "gated": ["onnx", "safetensors"],
    "unet": ["onnx", "pt2", "safetensors"],
    "file": ["onnx", "safetensors"],
    "boxes": ["onnx", "safetensors"],
    "masks": ["onnx", "safetensors"],
    "retina": ["onnx", "safetensors"],
    "segments": ["onnx", "pt2", "safetensors"],
}
MINE = """
import torch

class Mine(torch.nn.Module):
    def __init__(self, a=1.0):
        super().__init__()
        self.a = a

    def forward(self, x):
        return x * torch.sigmoid(self.a * x)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes each run once."""
    top, done = tmp_path_factory.mktemp("exports"), {}
    data = detect_program.copy_few(write_digit_scenes(top / "scenes"), top / "data")
    translation_program.prepared(data)

    def run(kind: str) -> Path:
        if kind not in done:
            recipe, flags = RUNS[kind]
            cwd = top / kind.replace(", ", "-")
            cwd.mkdir()
            (cwd / "mine.py").write_text(MINE)
            AcceleratorState._reset_state(reset_partial_state=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(cwd)
                assert CommandLine(task_of(recipe)).main(["train", recipe, *flags, "--data-dir", str(data)]) == 0
            (result,) = cwd.rglob("result.json")
            done[kind] = result.parent
        return done[kind]

    return run


def export(kind: str, run: Path, *flags: str) -> int:
    trust = ["--trust-activation"] if kind == "file" else []
    return CommandLine(task_of(RUNS[kind][0])).main(["export", str(run), *flags, *trust])


def origins(out: Path, run: Path) -> list[tuple[str, str]]:
    """Where the files of an export, and those inside of them, name this machine: its folders and its user."""
    user = getpass.getuser()
    packages = [Path(module.__file__ or "").parents[1] for module in (golu_core, torch, onnxruntime, golu_vision)]
    folders = [Path.cwd(), Path.home(), Path(tempfile.gettempdir()), Path(sys.prefix), run, run.parents[4], *packages]
    words = {*map(str, folders), f"/{user}/", f"\\{user}\\", 'File "', '.py", line'}
    words |= {user} if len(user) > 4 else set()  # `root` is a word of graphs as well
    files = [(str(path.relative_to(out)), path.read_bytes()) for path in out.rglob("*") if path.is_file()]
    found = []
    while files:
        name, content = files.pop()
        found += [(name, word) for word in words if word.encode() in content or word in name]
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files += [(f"{name}:{member}", archive.read(member)) for member in archive.namelist()]
    return found


class Branches(torch.nn.Module):
    """A network whose graph has other graphs in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.activation = golu_core.GoLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.layer(x))
        return torch.cond(y.sum() > 0, lambda t: t.sin() + 1, lambda t: t.cos() * 2, (y,))


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_graphs_name_nothing_of_the_machine(form: str, tmp_path: Path):
    """The trace of each node names files; in graphs inside of graphs, too."""
    network = Exportable(Branches().eval(), (torch.randn(2, 3),), ("x",), "y", "other")
    exporting._WRITERS[form](network, tmp_path)
    assert not origins(tmp_path, Path.cwd() / "a/b/c/d/e/f")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [(kind, form) for kind in RUNS for form in FORMS.get(kind, ["safetensors"])])
def test_an_export_loads_as_its_card_says(kind: str, form: str, trained, tmp_path: Path, capsys):
    """In a process of its own; formats that need nothing of ours are loaded where it cannot be imported."""
    if form == "safetensors" and kind == "gated":
        assert export(kind, trained(kind), "--out", str(tmp_path / "out"), "--format", form) == 2
        return
    assert export(kind, trained(kind), "--out", str(tmp_path / "out"), "--format", form) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    assert not origins(out, trained(kind))
    card = (out / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    block = "import sys\nsys.modules['golu_core'] = None\n" if form != "safetensors" else ""
    check = "\nassert y.shape[0] == 2 and float(abs(y).max()) > 0\n"
    if kind in DETECTORS:  # which find what they find in one image
        check = "\nassert y.shape[1] == 4\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code + check],
        cwd=out,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    header = card.split("---\n")[1]
    values = {name: json.loads(value) for name, value in (line.split(": ", 1) for line in header.splitlines())}
    listed = [m for entry in values["model-index"][0]["results"] for m in entry["metrics"]]
    measured = json.loads((trained(kind) / "result.json").read_text())["metrics"]
    assert {m["type"]: m["value"] for m in listed} == measured
    assert {base_of(name) for name in measured} <= set(task_of(RUNS[kind][0]).metrics)  # each has a label with a unit


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timm", "timm, own", "timm, learned"])
def test_timm_alone_loads_only_what_it_has(kind: str, trained, tmp_path: Path, capsys):
    """With its own activation in place of the run's it would give other numbers, and nobody would know."""
    import timm

    assert export(kind, trained(kind), "--out", str(tmp_path / "out"), "--format", "safetensors") == 0, capsys
    if kind == "timm, own":
        assert timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).num_classes == 10
        return
    with pytest.raises(RuntimeError, match=r"golu.* see README\.md"):
        timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)


@pytest.mark.slow
def test_onnx_predicts_what_predict_predicts(trained, tmp_path: Path, capsys):
    """From a picture's file to a class, by nothing but preprocessing.json, Pillow and onnxruntime."""
    from PIL import Image

    run = trained("resnet20")
    assert export("resnet20", run, "--out", str(tmp_path / "out")) == 0
    preprocessing = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    (picture, *_) = sorted((run.parents[5] / "data" / "digits" / "test").rglob("*.png"))
    capsys.readouterr()
    assert (
        CommandLine(task_of("digits")).main(["predict", str(run), str(picture), "--format", "jsonl", "--top", "10"])
        == 0
    )
    expected = {c["name"]: c["probability"] for c in json.loads(capsys.readouterr().out)["classes"]}

    image = Image.open(picture).convert(preprocessing["channels"])
    side = preprocessing["center_crop"]
    shorter = preprocessing["resize_shorter_side"]
    scaled = image.resize((shorter, shorter), Image.Resampling[preprocessing["interpolation"].upper()])
    edge = round((shorter - side) / 2)
    pixels = np.asarray(scaled.crop((edge, edge, edge + side, edge + side)), np.float32) / 255
    pixels = (pixels - np.float32(preprocessing["mean"])) / np.float32(preprocessing["std"])
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
    found = torch.from_numpy(logits)[0].softmax(0)
    for name, probability in zip(preprocessing["classes"], found.tolist(), strict=True):
        assert probability == pytest.approx(expected[name], abs=0.02)  # Pillow and torch round pixels differently


@pytest.mark.slow
def test_exports_that_cannot_be_made_are_refused(trained, tmp_path: Path, capsys):
    run = trained("resnet20")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    for flags, words in (
        (["--out", str(tmp_path / "full")], "is not an empty folder"),
        (["--out", str(tmp_path / "full" / "mine")], "is not an empty folder"),
        (["--out", str(tmp_path / "new"), "--format", "tflite"], "invalid choice"),
        ([], "--out"),
    ):
        try:
            status = export("resnet20", run, *flags)
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        assert status == 2 and words in printed.err + printed.out
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "mine"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_are_refused_by_torch_export_and_say_why(kind: str, trained, tmp_path: Path, capsys):
    assert export(kind, trained(kind), "--out", str(tmp_path / "out"), "--format", "pt2") == 2
    assert "NMS" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_network_with_other_numbers_is_no_export():
    model = torch.nn.Linear(3, 2).eval()
    network = Exportable(model, (torch.randn(2, 3),), ("x",), "y", "other")
    assert _compared(network, model) == 0
    with pytest.raises(RunFailure, match="differs from torch's"):
        _compared(network, lambda x: model(x) + 0.01)
