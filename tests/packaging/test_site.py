"""The site builds without a warning, and needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHED = (
    r"<script[^>]*\ssrc=[\"']?(?:https?:)?//",
    r"<link(?![^>]*rel=[\"']?canonical)[^>]*\shref=[\"']?(?:https?:)?//",
    r"<img[^>]*\ssrc=[\"']?(?:https?:)?//",
    r"@import|url\(\s*[\"']?(?:https?:)?//",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "tools/site/mkdocs.yml"]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(place)], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
def test_every_page_of_the_documents_is_on_the_site(site):
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    documents = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in ROOT.glob("docs/**/*.md")}
    documents = {name.replace("README", "index") for name in documents}
    assert documents <= pages
    assert {f"packages/golu-{name}" for name in ("core", "vision", "lm", "detect", "diffusion")} <= pages


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site):
    fetched = [
        (path.relative_to(site), found[0])
        for path in [*site.rglob("*.html"), *site.rglob("*.css")]
        for pattern in FETCHED
        if (found := re.search(pattern, path.read_text(encoding="utf-8")))
    ]
    assert fetched == []


@pytest.mark.slow
def test_links_lead_somewhere(site):
    for path in site.rglob("*.html"):
        for target in re.findall(r"href=\"([^\"#?]+)", path.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith(("mailto:", "data:")) and path.name != "404.html":
                assert (path.parent / target).exists(), f"{path.relative_to(site)}: {target}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["activation", "training", "tasks"])
def test_the_reference_has_a_heading_for_each_name(site, name):
    """Under the name by which it is imported, not that of the module that defines it."""
    page = (site / f"api/{name}.html").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (\S+)$", (ROOT / f"docs/api/{name}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed
    assert [target for target in listed if f'id="{target}"' not in page] == []
