"""Versions are tagged with the notes of their CHANGELOG, or refused with the reason."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

import release

ROOT = Path(__file__).resolve().parents[2]
READY = (
    "# Changelog of golu-core\n\n## 0.2.0\n\n- Something new, which\n  takes two lines.\n\n## 0.1.0\n\n- The first.\n"
)


@pytest.fixture
def repository(tmp_path):
    """Two packages, committed and ready."""
    for name, needs in (("golu-core", ""), ("golu-vision", '"golu-core[train]>=0.2,<0.3"')):
        package = tmp_path / "packages" / name
        package.mkdir(parents=True)
        (package / "pyproject.toml").write_text(f'[project]\nversion = "0.2.0"\ndependencies = [{needs}]\n')
        (package / "CHANGELOG.md").write_text(READY)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    for key, value in (("name", "a"), ("email", "a@b")):
        subprocess.run(["git", "config", f"user.{key}", value], cwd=tmp_path, check=True)
    return tmp_path


def test_a_tag_has_the_notes_of_its_version(repository, capsys):
    assert release.main(["golu-vision", "--tag"], repository) == 0
    command = ["git", "tag", "--list", "--format=%(refname:short) %(objecttype)%0a%(contents)"]
    tags = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert tags.startswith("golu-vision-v0.2.0 tag\ngolu-vision 0.2.0\n\n- Something new, which\n  takes two lines.\n")
    assert "The first" not in tags
    assert release.main(["golu-vision"], repository) == 2
    assert "its tag is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changelog", "reason"),
    [
        ("# Changelog\n\n## 0.1.0\n\n- The first.\n", "no section ## 0.2.0"),
        ("# Changelog\n\n## 0.2.0\n\n## 0.1.0\n\n- The first.\n", "says nothing about 0.2.0"),
        ("# Changelog\n\n## 0.3.0\n\n- New.\n\n## 0.2.0\n\n- Older.\n", "newest section of CHANGELOG.md is 0.3.0"),
        ("", "no section ## 0.2.0"),
    ],
)
def test_a_version_that_the_changelog_does_not_tell_of_is_refused(changelog, reason, repository, capsys):
    (repository / "packages/golu-core/CHANGELOG.md").write_text(changelog)
    assert release.main(["golu-core"], repository) == 2
    assert reason in capsys.readouterr().err


def test_what_does_not_fit_together_is_refused(repository, capsys):
    core = repository / "packages/golu-core/pyproject.toml"
    core.write_text(core.read_text().replace("0.2.0", "0.3.0"))
    assert release.main(["golu-vision"], repository) == 2
    assert "asks for golu-core[train]>=0.2,<0.3, and golu-core is 0.3.0" in capsys.readouterr().err


def test_changes_that_are_not_committed_get_no_tag(repository, capsys):
    (repository / "new.txt").write_text("")
    assert release.main(["golu-core", "--tag"], repository) == 2
    assert "not committed" in capsys.readouterr().err


@pytest.mark.parametrize("package", sorted(path.name for path in (ROOT / "packages").iterdir()))
def test_every_package_of_this_project_could_be_released(package):
    folder = ROOT / "packages" / package
    assert release.release_notes((folder / "CHANGELOG.md").read_text(), release.version_of(folder))
    release.require_range_of_siblings(folder)


def test_workflows_pass_their_linter_and_name_actions_by_commit():
    """Offline, the linter cannot ask whether a commit exists; it finds permissions and expressions in scripts."""
    command = [Path(sysconfig.get_path("scripts")) / "zizmor", "--offline", "--pedantic", "--quiet", ".github"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    used = [
        use for path in (ROOT / ".github/workflows").iterdir() for use in re.findall(r"uses: (\S+)", path.read_text())
    ]
    assert len(used) > 10 and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", use) for use in used), used


def test_files_for_hosts_and_hooks_can_be_read():
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    assert len(files) >= 6
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
    workflows = [path.read_text() for path in (ROOT / ".github/workflows").iterdir()]
    for command in (".ci/run", ".ci/matrix"):
        assert (ROOT / command).exists() and any(command in text for text in workflows)
