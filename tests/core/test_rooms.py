"""The layout of the source: rooms whose imports go in one direction, no circles, and doors that others come in by."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {path.name: path for path in ROOT.glob("packages/*/src/*") if path.is_dir()}
TASKS = sorted(set(PACKAGES) - {"golu_core"})
ORDER = (
    ("_front_door", "regular_files"),
    ("activation.compute",),
    ("activation",),
    ("activation.names",),
    ("activation.swap",),
    ("training.messages",),
    ("training.storage",),
    ("training.config",),
    ("training.distributed", "training.figures"),
    ("training.data",),
    ("training.runs",),
    ("training.tasks",),
    ("training.loop",),
    ("training.finetuning", "training.export"),
    ("studies.reporting",),
    ("studies.analyses", "studies.sweeping"),
    ("studies.checking",),
    ("studies",),
    ("cli",),
    ("__main__",),
)
"""The rooms of golu-core, from the foundation up: each imports from rooms before it."""
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
STUBS = sorted(PACKAGES["golu_core"].rglob("__init__.pyi"))
DOORS = {".".join(path.parent.relative_to(PACKAGES["golu_core"].parent).parts): path for path in STUBS}
"""The packages that export names, and the stubs that list them."""


def module_name(path: Path) -> str:
    """The name under which a file below a package's `src` is imported."""
    package = next(folder for folder in PACKAGES.values() if folder in path.parents)
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for folder in PACKAGES.values() for path in folder.rglob("*.py")}


def imports(name: str) -> Iterator[tuple[str, str, int]]:
    """The imports of a module, those inside functions and for type checkers included: module, name, and line."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name, node.lineno) for alias in node.names)


def imported_files(name: str) -> set[str]:
    """The modules of this repository that a module imports."""
    found = set()
    for module, attribute, _ in imports(name):
        inner = f"{module}.{attribute}"
        found |= {inner} & set(FILES) or {module} & set(FILES)
    return found - {name}


def room_of(name: str) -> str:
    """The room of a module of golu-core; a package's own `__init__` belongs to it."""
    inside = name.removeprefix("golu_core.")
    for room in sorted(LEVEL, key=len, reverse=True):
        if inside == room or inside.startswith(f"{room}."):
            return room
    return inside


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_circles(package):
    graph = {name: imported_files(name) for name in FILES if name.partition(".")[0] == package}
    TopologicalSorter(graph).prepare()


def test_rooms_import_in_one_direction():
    doors = {"golu_core", *DOORS}
    wrong = [
        f"{name} imports {other}"
        for name in FILES
        if name.startswith("golu_core.") and name not in doors
        for other in imported_files(name)
        if other.startswith("golu_core.") and other not in doors
        if room_of(name) != room_of(other) and LEVEL[room_of(other)] >= LEVEL[room_of(name)]
    ]
    assert wrong == []


def test_every_file_of_the_core_is_in_a_room():
    outside = {name for name in FILES if name.startswith("golu_core.") and room_of(name) not in LEVEL}
    assert outside == {"golu_core.training"}


def exports(door: str) -> dict[str, str]:
    """The names that a door exports, with the module that each comes from."""
    found = {}
    for node in ast.walk(ast.parse(DOORS[door].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name: node.module or "" for alias in node.names}
    return found


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens(door):
    """Each name is there, is listed, and is not hidden by a module of the same name."""
    module = importlib.import_module(door)
    assert module.__all__ == sorted(exports(door))
    inner = {path.stem for path in DOORS[door].parent.iterdir()}
    assert not inner.intersection(exports(door)), "a module and a name are called the same"
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def outside_of_doors(text: str) -> list[str]:
    """Imports from golu-core in a program's text that do not come in by a door."""
    return [
        f"line {node.lineno}: {node.module} {alias.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "golu_core"
        for alias in node.names
        if alias.name not in (exports(node.module or "") if node.module in DOORS else {})
    ] + [
        f"line {node.lineno}: import {alias.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.startswith("golu_core.")
    ]


@pytest.mark.parametrize("package", TASKS)
def test_task_packages_come_in_by_the_doors(package):
    wrong = {
        name: found
        for name, path in FILES.items()
        if name.partition(".")[0] == package
        if (found := outside_of_doors(path.read_text(encoding="utf-8")))
    }
    assert wrong == {}


def test_the_page_for_task_authors_needs_the_front_door_alone():
    page = (ROOT / "docs" / "own-task.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python[^\n]*\n(.*?)```", page, re.DOTALL)
    assert programs
    for text in programs:
        assert outside_of_doors(text) == []
        modules = {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and not n.level}
        assert {m for m in modules if m and m.startswith("golu_core")} <= {"golu_core", "golu_core.training"}


def test_every_name_of_a_room_s_door_is_used_by_a_task():
    """Rooms export what the task packages need, and nothing besides."""
    used = {
        (module, name)
        for file in FILES
        if file.partition(".")[0] in TASKS
        for module, name, _ in imports(file)
        if module in DOORS
    }
    rooms = [door for door in DOORS if door.count(".") == 2]
    assert rooms
    unused = [f"{door}.{name}" for door in rooms for name in exports(door) if (door, name) not in used]
    assert unused == []


def test_contributing_lists_the_rooms_from_the_foundation_up():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = [room.replace("/", ".") for room in re.findall(r"^\| `([a-z/]+)` \|", text, re.MULTILINE)]
    folders = {".".join(p.relative_to(PACKAGES["golu_core"]).parts) for p in PACKAGES["golu_core"].rglob("*/")}
    assert set(listed) == {room for room in LEVEL if room in folders} - {"studies"}
    assert sorted(listed, key=LEVEL.__getitem__) == listed


FLOOR_PLAN = {
    "task",
    "recipes",
    "config",
    "data",
    "model",
    "train",
    "evaluate",
    "export",
    "analysis",
    "initial_weights",
    "cli",
}


@pytest.mark.parametrize("package", TASKS)
def test_task_packages_share_one_floor_plan(package):
    """Whoever knows one task finds their way in all of them."""
    files = {name.rpartition(".")[2] for name in FILES if name.startswith(f"{package}.")}
    assert FLOOR_PLAN - files == set()
    homes = {
        "build_model": "model",
        "start_of_run": "initial_weights",
        "train": "train",
        "evaluate": "evaluate",
        "analysis_model": "analysis",
        "timing_model": "analysis",
    }
    for name, path in FILES.items():
        if name.startswith(f"{package}."):
            functions = {
                node.name
                for node in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(node, ast.FunctionDef)
            }
            strays = {one for one in functions & set(homes) if name != f"{package}.{homes[one]}"}
            assert strays == set(), name


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("packages/*/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_documents_name_are_there(page):
    """A path in backticks, such as `training/loop/run.py`, is the end of a file's path in this repository."""
    files = [
        f"/{path.relative_to(ROOT).as_posix()}"
        for part in ("packages", "tests", "tools")
        for path in (ROOT / part).rglob("*.*")
    ]
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|cu|c))`", page.read_text(encoding="utf-8"))
    ours = [path for path in named if not path.startswith("my_")]
    assert [path for path in ours if not any(file.endswith(f"/{path}") for file in files)] == []
