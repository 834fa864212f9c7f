"""Makes pages of the repository's own Markdown, and turns links into the repository into links within the site.

A hook of MkDocs. Pages below docs/ are written for readers of the repository, too: they link to the READMEs of packages
and to other files by their places. A README becomes a page; any other file that is linked comes along as it is. A
notebook becomes a page with what its cells printed and drew.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("golu-core", "golu-vision", "golu-lm", "golu-detect", "golu-diffusion")
# of the repository's file: the site's page
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    ".github/SECURITY.md": "security.md",
    **{f"packages/{name}/README.md": f"packages/{name}.md" for name in PACKAGES},
    **{f"packages/{name}/CHANGELOG.md": f"packages/{name}-changes.md" for name in PACKAGES},
}
NOTEBOOKS = {"docs/golu.ipynb": "notebook.md"}
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_ATTACHED = "files"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, and the files that any page links to."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    sources = _sources(files)
    for source, place in NOTEBOOKS.items():
        files.append(File.generated(config, place, content=notebook_page(ROOT / source)))
    linked = {target for source in sources for target in _targets(source) if _page_of(target) is None}
    for target in sorted(linked):
        files.append(File.generated(config, f"{_ATTACHED}/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites a page's links into the repository."""
    source = _source_of(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match[2].partition("#")
        if not target or "://" in target or target.startswith(("mailto:", "data:")):
            return match[0]
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = _page_of(inside) or f"{_ATTACHED}/{inside}"
        return f"{match[1]}{posixpath.relpath(place, here or '.')}{hash_sign}{anchor}{match[3]}"

    return _LINK.sub(rewritten, markdown)


def notebook_page(path: Path) -> str:
    """A notebook as Markdown, with the outputs that are stored in it; pictures are part of the page."""
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(part for cell in notebook.cells for part in _parts(cell)) + "\n"


def _parts(cell: nbformat.NotebookNode) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![what the cell draws](data:image/png;base64,{data['image/png'].strip()})"
        elif "text/markdown" in data:
            yield data["text/markdown"]
        else:
            text = output.get("text") or data.get("text/plain", "")
            yield f"```text\n{text.rstrip()}\n```"


def _source_of(place: str) -> str:
    """Where a page of the site lies in the repository."""
    return next((source for source, page in (PAGES | NOTEBOOKS).items() if page == place), f"docs/{place}")


def _page_of(source: str) -> str | None:
    """The site's name of a file or folder of the repository; None for what is not a part of docs or a page."""
    if source in PAGES | NOTEBOOKS:
        return (PAGES | NOTEBOOKS)[source]
    if (ROOT / source).is_dir():
        readme = posixpath.join(source, "README.md")
        if not (ROOT / readme).exists():
            raise FileNotFoundError(f"a page links to the folder {source}, which has no README.md")
        return _page_of(readme)
    return source.removeprefix("docs/") if source.startswith("docs/") else None


def _sources(files: Files) -> list[str]:
    return [_source_of(file.src_uri) for file in files.documentation_pages()]


def _targets(source: str) -> set[str]:
    """What a Markdown file of the repository links to in it."""
    found = set()
    for match in _LINK.finditer((ROOT / source).read_text(encoding="utf-8")):
        target = match[2].partition("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            inside = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
            if os.path.exists(ROOT / inside):
                found.add(inside)
    return found
