"""Each package as a stranger installs it: a wheel in a new environment, outside the workspace."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TASKS = {
    "golu_vision": ("vision", "digits", ["--batch-size", "16"], "top1"),
    "golu_detect": ("detect", "fasterrcnn-digits", ["--batch-size", "2"], "box_map"),
    "golu_diffusion": ("diffusion", "ddpm-digits", ["--samples", "0"], "loss"),
    "golu_lm": ("lm", "babygpt-pydocs", ["--sample-tokens", "5"], "perplexity"),
}


def build(folder: Path, *what: str, **variables: str) -> Path:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    command = [uv, "build", "--wheel", *what, "--out-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("wheels"), "--all-packages")


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory) -> Path:
    folder = build(tmp_path_factory.mktemp("pure"), "--package", "golu-core", GOLU_CPU_KERNELS="off")
    return next(folder.glob("*.whl"))


def has_compiler() -> bool:
    return any(map(shutil.which, ("cc", "gcc", "clang")))


@pytest.mark.slow
def test_the_kernels_are_in_the_wheel_of_a_platform_and_not_in_the_pure_one(wheels, pure_wheel):
    def libraries(wheel: Path) -> list[str]:
        return [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]

    platform_wheel = next(wheels.glob("golu_core-*.whl"))
    assert pure_wheel.name.endswith("-py3-none-any.whl") and not libraries(pure_wheel)
    assert "golu_core/activation/compute/golu_cpu.c" in zipfile.ZipFile(pure_wheel).namelist()
    if has_compiler():
        assert f"-py3-none-{sysconfig.get_platform().replace('-', '_')}" in platform_wheel.name
        assert "golu_core/activation/compute/_golu_cpu_baseline.so" in libraries(platform_wheel)


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure_or_the_build_says_why(tmp_path):
    core = ("--package", "golu-core")
    folder = build(tmp_path / "built", *core, CC="no-such-compiler")
    assert next(folder.glob("*.whl")).name.endswith("-py3-none-any.whl")
    with pytest.raises(AssertionError, match="there is no C compiler that can build the kernels"):
        build(tmp_path / "other", *core, CC="no-such-compiler", GOLU_CPU_KERNELS="required")


@pytest.mark.slow
def test_wheels_hold_what_is_needed(wheels):
    core = zipfile.ZipFile(next(wheels.glob("golu_core-*.whl")))
    assert {
        "golu_core/activation/compute/golu.cu",
        "golu_core/activation/compute/golu_cpu.c",
        "golu_core/py.typed",
    } <= set(core.namelist())
    beside_code = {
        path for path in (ROOT / "packages/golu-core/src").rglob("*.*") if path.suffix in (".toml", ".txt", ".jinja")
    }
    assert len(beside_code) >= 7
    assert {str(path.relative_to(ROOT / "packages/golu-core/src")) for path in beside_code} <= set(core.namelist())
    for package in TASKS:
        wheel = zipfile.ZipFile(next(wheels.glob(f"{package}-*.whl")))
        assert f"{package}/py.typed" in wheel.namelist()
        assert ("golu_translate/py.typed" in wheel.namelist()) == (package == "golu_lm")
        metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith("METADATA"))).decode()
        assert "golu-core[studies,train]<0.4,>=0.3" in metadata
        assert "Provides-Extra: cuda13" in metadata


@pytest.mark.slow
@pytest.mark.parametrize("package", ["golu_core", "pure", *TASKS])
def test_a_wheel_installs_and_runs_in_a_new_environment(package, wheels, pure_wheel, tmp_path):
    uv = shutil.which("uv")
    environment = tmp_path / "env"
    wheel = pure_wheel if package == "pure" else next(wheels.glob(f"{package}-*.whl"))
    variables = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(uv, "venv", "--quiet", "--python", sys.executable, str(environment))
    python = str(environment / "bin" / "python")
    constraints = str(ROOT / "constraints.txt")
    run(uv, "pip", "install", "--quiet", "--python", python, "-c", constraints, "--find-links", str(wheels), str(wheel))
    if package in ("golu_core", "pure"):
        compiled = package == "golu_core" and has_compiler()
        computes = "cpu: compiled kernels" if compiled else "cpu: torch operations, several times slower"
        assert computes in run(str(environment / "bin" / "golu-core"))
        code = "import golu_core, torch, sys; print(golu_core.golu(torch.ones(1)).item(), 'accelerate' in sys.modules)"
        value, training_came_along = run(python, "-c", code).split()
        assert float(value) == pytest.approx(math.exp(-math.exp(-1)), rel=1e-6)
        assert training_came_along == "False"
        asked = [str(environment / "bin" / "golu-core"), "sweep", "quick"]
        refused = subprocess.run(asked, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert 'pip install "golu-core[studies]"' in refused.stderr and "Traceback" not in refused.stderr
    else:
        task, recipe, flags, metric = TASKS[package]
        script = str(environment / "bin" / package.replace("_", "-"))
        assert recipe in run(script, "recipes")
        assert f"finished: {metric}" in run(script, "train", recipe, "--max-steps", "2", *flags)
        assert (tmp_path / "runs" / task / recipe / "golu/seed0/result.json").exists()
        core = str(environment / "bin" / "golu-core")
        assert "1 run is in the tables" in run(core, "aggregate", "runs", "--out", "report")
        assert (tmp_path / "report" / "report.html").exists()
        assert f"-m {package} train {recipe}" in run(core, "sweep", "--recipes", recipe, "--print")
