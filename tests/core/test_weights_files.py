"""Files of weights run no code: one module of the project reads them, and it unpickles nothing but tensors."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest
import torch

from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.weights_files import load_into, read_saved, read_tensors
from traps import Trap

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted(ROOT.glob("packages/*/src/**/*.py")), *sorted(ROOT.glob("tools/**/*.py"))]
READERS = re.compile(
    r"(^|\.)(torch\.load|jit\.load|export\.load|hub\.load\w*|load_state_dict_from_url|PackageImporter|load_state_dict|"
    r"c?pickle\.\w+|cloudpickle(\.\w+)?|dill(\.\w+)?|joblib(\.\w+)?|shelve(\.\w+)?|marshal(\.\w+)?|read_pickle|"
    r"(np|numpy)\.load|load_file|safetensors\.torch\.load\w*|load_model|safe_open|Unpickler|loadmat)$"
)
CORE = "packages/golu-core/src/golu_core"
ALLOWED = {
    f"{CORE}/training/storage/weights_files.py": {"torch.load", "load_file", "load_model"},
    # a batch on its way from a loader process of the same program
    f"{CORE}/training/data/packing.py": {"pickle.dumps", "pickle.HIGHEST_PROTOCOL", "pickle.Unpickler", "pickle.loads"},
    # a module that is pickled on the same line
    f"{CORE}/studies/checking/support.py": {"pickle.dumps", "pickle.loads"},
    # safetensors, tensor by tensor, for numbers of their values
    f"{CORE}/studies/analyses/weights.py": {"safe_open"},
    # jobs for SLURM, which only writes
    f"{CORE}/studies/sweeping/cluster.py": {"cloudpickle", "cloudpickle.register_pickle_by_value"},
    # a file that the line before has written
    f"{CORE}/training/export/exporting.py": {"torch.export.load"},
    # JSON of the loss scale
    f"{CORE}/training/loop/state.py": {"self.scaler.load_state_dict"},
}
"""By file, the names that look like a reader of weights, or of a pickle, and why each may be there."""
PINNED = {
    "from_pretrained": {"trust_remote_code": False},
    "get_state_dict": {"weights_only": True},
    "torch.load": {"weights_only": True},
}
"""Calls of libraries that would run code unless they are told not to."""


def readers(path: Path) -> set[str]:
    """The names in a source file that read weights or pickles."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {name.name for name in node.names}
    return {name for name in found if READERS.search(name)}


def test_one_module_reads_weights_and_none_unpickles():
    found = {str(path.relative_to(ROOT)): names for path in SOURCES if (names := readers(path))}
    # `load_state_dict` of a network takes tensors that were read already
    found = {
        path: {n for n in names if not n.endswith("load_state_dict") or "scaler" in n} for path, names in found.items()
    }
    assert {path: names for path, names in found.items() if names} == ALLOWED


def test_libraries_are_told_to_run_no_code():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                check_call(node, str(path))


def check_call(node: ast.Call, where: str) -> None:
    """Asserts that a call leaves no library to its default of running code."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    for name in ("allow_pickle", "trust_remote_code"):
        assert given.get(name, "False") == "False", (where, ast.unparse(node))
    for name, needed in PINNED.items():
        if re.search(rf"(^|\.){re.escape(name)}$", ast.unparse(node.func)):
            assert {**given, **{key: str(value) for key, value in needed.items()}} == given, (where, ast.unparse(node))


def traps(folder: Path, marker: Path) -> list[Path]:
    """Files that run code where something unpickles them, under the names that weights have."""
    paths = []
    for name in ("weights.pth", "weights.pt", "optimizer.pt", "pytorch_model.bin", "model.safetensors", "weights"):
        for kind in ("pickle", "torch", "inside"):
            path = folder / f"{kind}-{name}"
            content = {"state_dict": {"a": torch.ones(3)}, "more": Trap(marker)}
            if kind == "pickle":
                path.write_bytes(pickle.dumps(Trap(marker)))
            else:
                torch.save(Trap(marker) if kind == "torch" else content, path)
            paths.append(path)
    return paths


def test_traps_run_where_they_are_unpickled(tmp_path):
    """Or the test below would show nothing."""
    marker = tmp_path / "marker"
    for path in traps(tmp_path, marker)[:3]:
        if path.name.startswith("pickle"):
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        assert marker.exists()
        marker.unlink()


def test_no_reader_runs_what_is_in_a_file(tmp_path):
    marker = tmp_path / "marker"
    for path in traps(tmp_path, marker):
        for read in (read_tensors, read_saved, lambda p: load_into(torch.nn.Linear(1, 1), p)):
            with pytest.raises(RequestError, match=path.name):
                read(path)
            assert not marker.exists()
