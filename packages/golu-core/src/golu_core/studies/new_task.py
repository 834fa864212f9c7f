"""Write a new task to start from: a package with a config, recipes, data, a model, training and evaluation.

    golu-core new-task my-tabular              the package my_tabular, in the new folder my-tabular
    golu-core new-task my-tabular --out work   the same in the folder work

The task trains as it is, on a small table of numbers. Replace its data and model with yours. Exit status: 0 the files
are written; 1 a file could not be written; 2 a wrong request, and nothing is written.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from golu_core.training.config.help_page import CONFIG, shown
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import say
from golu_core.training.storage.output_folders import output_folder
from golu_core.training.storage.user_files import read_text

from .exit_status import exit_status

_TEMPLATE = Path(__file__).with_name("task_template")
_NAME, _PACKAGE = "my-tabular", "my_tabular"
"""The names in the template that the new task's replace."""
_FORM = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Flags:
    """Write a new task to start from."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the package and its command, in lower case and with dashes, such as my-tabular."""
    out: Annotated[Path | None, shown("FOLDER")] = None
    """New folder for the package. Defaults to the name."""


def task_files(name: str) -> Mapping[str, str]:
    """Return the files of a new task: their text by path.

    Args:
        name: The name of the package and its command, such as `my-tabular`.

    Raises:
        RequestError: The name does not consist of words in lower case, separated by dashes, or golu already uses it.
    """
    if not _FORM.fullmatch(name):
        raise RequestError(f"{name!r} is not a name for a package: write words in lower case with dashes, as {_NAME}")
    if name.startswith("golu"):
        raise RequestError(f"{name!r} begins as golu's own packages do: choose another name")
    package = name.replace("-", "_")
    files = {f"{package}/__init__.py": ""}
    for path in sorted(_TEMPLATE.glob("*.txt")):
        where = path.stem if path.stem == "pyproject.toml" else f"{package}/{path.stem}"
        files[where] = read_text(path).replace(_NAME, name).replace(_PACKAGE, package)
    return files


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 2 for a RequestError."""
    return exit_status("golu-core new-task", lambda: _new_task(arguments))


def _new_task(arguments: list[str] | None) -> int:
    flags = tyro.cli(Flags, args=arguments, prog="golu-core new-task", description=__doc__, config=CONFIG)
    files = task_files(flags.name)
    folder = flags.out or Path(flags.name)
    with output_folder(folder, "--out") as partial:
        for name, text in files.items():
            path = partial / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    say(f"written: {folder}/pyproject.toml and {len(files) - 1} other files")
    where = str(folder) if folder.is_absolute() else f"./{folder}"  # pip looks for a bare name on PyPI
    say(f"next: pip install {shlex.quote(where)}, then {flags.name} train tumors --dry-run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
