"""Every command that writes files, but for `train`, as the kill test runs it; and those that write none, and why not.

A new command of a task or of golu-core must stand in one of the two tables: `test_writers.py` compares them with the
commands that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faults import PROGRAMS


@dataclass(frozen=True)
class Sources:
    """What the commands read.

    Attributes:
        run: Gives the finished run of a task.
        data: Folder of the data sets.
        files: Folder with `text.txt`, `pairs`, and images in `images`.
    """

    run: Callable[[str], Path]
    data: Path
    files: Path


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        program: A task, or `core`.
        arguments: Of the command line, the command first.
        imports: Modules that the server of forks imports beforehand, to save time.
        differs: Patterns of files whose bytes are not the same each time, with the reason.
        is_quick: It is killed in each run of the tests, and not only in the slow ones.
        takes_long: It is struck with GOLU_ALL_FAULTS=1 alone.
    """

    program: str
    arguments: Callable[[Sources], list[str]]
    imports: tuple[str, ...] = ()
    differs: Mapping[str, str] = field(default_factory=dict)
    is_quick: bool = False
    takes_long: bool = False


def _on_run(task: str, command: str, *flags: str) -> Callable[[Sources], list[str]]:
    return lambda sources: [command, str(sources.run(task)), *flags]


def _export(task: str, form: str) -> Callable[[Sources], list[str]]:
    return _on_run(task, "export", "--out", "exported", "--format", form)


def _details(task: str) -> Callable[[Sources], list[str]]:
    return lambda s: ["evaluate", str(s.run(task)), "--details", "details", "--data-dir", str(s.data)]


_ONNX = ("onnxruntime", "onnxscript", "torch.onnx")
_STUDIES = ("golu_core.studies.aggregate", "golu_core.studies.analyze", "golu_core.studies.check")
_STUDIES += ("golu_core.studies.reporting.figures", "golu_core.studies.reporting.page")
WRITERS: dict[str, Writer] = {
    "golu-vision export": Writer("vision", _export("vision", "safetensors"), is_quick=True),
    "golu-vision export --format onnx": Writer("vision", _export("vision", "onnx"), _ONNX),
    "golu-vision export --format pt2": Writer(
        "vision", _export("vision", "pt2"), differs={"*.pt2": "an archive with times"}
    ),
    "golu-vision evaluate --details": Writer("vision", _details("vision"), ("sklearn.metrics",)),
    "golu-vision predict": Writer(
        "vision",
        lambda s: ["predict", str(s.run("vision")), str(s.files / "images"), "--grid", "grid.png"],
        is_quick=True,
    ),
    "golu-lm export": Writer("lm", _export("lm", "safetensors"), ("transformers",)),
    "golu-lm export --format pt2": Writer("lm", _export("lm", "pt2"), differs={"*.pt2": "an archive with times"}),
    "golu-lm prepare": Writer(
        "lm", lambda s: ["prepare", str(s.files / "text.txt"), "--tokenizer", "bytes"], is_quick=True
    ),
    "golu-lm prepare --overwrite": Writer(
        "lm", lambda s: ["prepare", str(s.files / "text.txt"), "--tokenizer", "bytes", "--overwrite"]
    ),
    "golu-translate export": Writer("translation", _export("translation", "safetensors"), ("transformers",)),
    "golu-translate prepare": Writer(
        "translation",
        lambda s: ["prepare", str(s.files / "pairs"), "--vocabulary", "128", "--num-workers", "1"],
        is_quick=True,
    ),
    "golu-detect export": Writer("detect", _export("detect", "safetensors")),
    "golu-detect evaluate --details": Writer("detect", _details("detect")),
    "golu-detect predict": Writer("detect", lambda s: ["predict", str(s.run("detect")), str(s.files / "images")]),
    "golu-detect sample-data": Writer("detect", lambda s: ["sample-data", "scenes"], takes_long=True),
    "golu-diffusion export": Writer("diffusion", _export("diffusion", "safetensors"), ("diffusers",)),
    "golu-diffusion sample": Writer(
        "diffusion", _on_run("diffusion", "sample", "--count", "3", "--out", "images", "--gif", "film.gif")
    ),
    "golu-diffusion interpolate": Writer(
        "diffusion",
        lambda s: [
            "interpolate",
            str(s.run("diffusion")),
            *(str(s.files / "images" / f"{n}.png") for n in range(2)),
            *("--timestep", "5", "--points", "2"),
        ],
    ),
    "golu-core aggregate": Writer("core", lambda s: ["aggregate", str(s.run("vision")), "--out", "report"], _STUDIES),
    "golu-core aggregate --run": Writer(
        "core", lambda s: ["aggregate", "--run", str(s.run("vision")), "--out", "report"], _STUDIES
    ),
    "golu-core analyze": Writer(
        "core", lambda s: ["analyze", "gates", "golu", "--out", "gates"], _STUDIES, is_quick=True
    ),
    "golu-core check": Writer(
        "core", lambda s: ["check", "relu", "--no-speed", "--out", "card"], _STUDIES, takes_long=True
    ),
    "golu-core new-task": Writer("core", lambda s: ["new-task", "my-tabular"]),
    "golu-core sweep": Writer(
        "core",
        lambda s: [
            *("sweep", "--recipes", "mlp-digits", "--activations", "golu", "--seeds", "0", "--data-dir", str(s.data)),
            *("--set", "max_steps=2", "--set", "num_workers=0", "--output-dir", "runs"),
        ],
        _STUDIES,
        differs={"runs/vision/*": "the run's own test compares them", "*.log": "the commands of all starts"},
        takes_long=True,
    ),
}

NO_FILES = {
    "golu-* recipes": "prints",
    "golu-* evaluate": "prints; only --details writes",
    "golu-lm generate": "prints",
    "golu-translate translate": "prints",
    "golu-core activations": "prints",
    "golu-core": "prints",
}
TRAINING = {f"{program} train" for program in PROGRAMS.values()}
"""Killed by `test_disk.py`, at any change of its folder and of the data that it writes."""
