"""Pins the workspace: resolves the newest versions that fit and writes them to constraints.txt and pyproject.toml.

There is no lock file, since one would hold download addresses. constraints.txt has a line `name==version` for each
package, for pip's `-c`; `[tool.uv] constraint-dependencies` has the same lines for uv.

    python tools/pin.py           resolve anew and write both
    python tools/pin.py --check   exit with status 1 if the two do not agree
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = ROOT / "pyproject.toml"
_BLOCK = re.compile(
    r"# written by tools/pin\.py, like constraints\.txt\nconstraint-dependencies = \[\n.*?\n\]\n", re.DOTALL
)
_OWN = re.compile(r"golu-")


def resolved() -> list[str]:
    """The newest versions for every extra, group, platform and Python that the packages support."""
    unpinned = _BLOCK.sub("", PROJECT.read_text())
    pinned = PROJECT.read_text()
    PROJECT.write_text(unpinned)
    try:
        command = ["uv", "export", "--all-packages", "--all-extras", "--all-groups", "--no-hashes", "--no-annotate"]
        command += ["--no-header", "--no-emit-workspace", "--upgrade"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    finally:
        PROJECT.write_text(pinned)
    return constraint_lines(done.stdout)


def constraint_lines(exported: str) -> list[str]:
    """`name==version` lines, sorted; where a platform or Python needs another version, with its marker."""
    lines = {line.split("#")[0].strip() for line in exported.splitlines()}
    lines = {line for line in lines if "==" in line.split(";")[0] and not _OWN.match(line)}
    versions: dict[str, set[str]] = {}
    for line in lines:
        versions.setdefault(line.split("==")[0], set()).add(line.split(";")[0].strip())
    single = {next(iter(found)) for found in versions.values() if len(found) == 1}
    several = {line for line in lines if len(versions[line.split("==")[0]]) > 1}
    return sorted(single | several)


def block(lines: list[str]) -> str:
    """The lines as pyproject.toml has them."""
    quoted = "\n".join('    "' + line.replace('"', "'") + '",' for line in lines)
    return f"# written by tools/pin.py, like constraints.txt\nconstraint-dependencies = [\n{quoted}\n]\n"


def main() -> int:
    """Writes both files, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the two, and write nothing")
    flags = parser.parse_args()
    project = PROJECT.read_text()
    if flags.check:
        agree = block(CONSTRAINTS.read_text().split("\n")[:-1]) in project
        print("the pins agree" if agree else "constraints.txt and pyproject.toml differ: run python tools/pin.py")
        return 0 if agree else 1
    lines = resolved()
    CONSTRAINTS.write_text("\n".join(lines) + "\n")
    if _BLOCK.search(project):
        project = _BLOCK.sub(lambda _: block(lines), project)
    else:
        project = project.replace("[tool.uv]\n", f"[tool.uv]\n{block(lines)}", 1)
    PROJECT.write_text(project)
    print(f"{len(lines)} versions pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
