"""Notes and tag of a package's version, made of its CHANGELOG; refuses what is not ready to be released.

python tools/release.py golu-vision            # what would be released, and its notes
python tools/release.py golu-vision --tag      # the annotated tag golu-vision-v0.2.0, whose message is the notes

The version is that of the package's pyproject.toml. Nothing is pushed or uploaded.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SECTION = re.compile(r"^## (\S+)[^\n]*\n", re.MULTILINE)


class NotReady(Exception):
    """Why a version cannot be released."""


def version_of(package: Path) -> str:
    """The version that a package's pyproject.toml states."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def release_notes(changelog: str, version: str) -> str:
    """The lines of a CHANGELOG about a version.

    Args:
        changelog: its text, with a section `## 0.2.0` for each version, newest first.
        version: The version to release.

    Raises:
        NotReady: the version has no section, no line in it, or is not the newest.
    """
    pieces = _SECTION.split(changelog)[1:]
    sections = dict(zip(pieces[::2], pieces[1::2], strict=True))
    if version not in sections:
        raise NotReady(f"CHANGELOG.md has no section ## {version}")
    if next(iter(sections)) != version:
        raise NotReady(f"the newest section of CHANGELOG.md is {next(iter(sections))}, not {version}")
    notes = sections[version].strip()
    if not re.search(r"^- \S", notes, re.MULTILINE):
        raise NotReady(f"CHANGELOG.md says nothing about {version}")
    return notes


def require_range_of_siblings(package: Path) -> None:
    """Raises NotReady where a package's range for golu-core leaves out the version that lies beside it."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = version_of(package.parent / "golu-core")
    for requirement in project["dependencies"]:
        bounds = re.match(r"golu-core\[.*\]>=([\d.]+),<([\d.]+)$", requirement)
        if bounds and not _numbers(bounds[1]) <= _numbers(core) < _numbers(bounds[2]):
            raise NotReady(f"it asks for {requirement}, and golu-core is {core}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def require_committed(folder: Path) -> None:
    """Raises NotReady if a working tree has changes that no commit has."""
    if _git("status", "--porcelain", folder=folder):
        raise NotReady("there are changes that are not committed")


def _git(*arguments: str, folder: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Prints a version's notes, and makes its tag if that is asked for."""
    packages = sorted(path.parent.name for path in root.glob("packages/*/pyproject.toml"))
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("package", choices=packages)
    flags.add_argument("--tag", action="store_true", help="make the tag")
    asked = flags.parse_args(arguments)
    package = root / "packages" / asked.package
    version = version_of(package)
    tag = f"{asked.package}-v{version}"
    try:
        notes = release_notes((package / "CHANGELOG.md").read_text(encoding="utf-8"), version)
        require_range_of_siblings(package)
        if _git("tag", "--list", tag, folder=root):
            raise NotReady("its tag is there already")
        if asked.tag:
            require_committed(root)
            _git("tag", "--annotate", tag, "--message", f"{asked.package} {version}\n\n{notes}", folder=root)
    except NotReady as reason:
        print(f"{asked.package} {version} cannot be released: {reason}", file=sys.stderr)
        return 2
    print(f"{tag}{' is made; push it by git push origin ' + tag if asked.tag else ''}\n\n{notes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
