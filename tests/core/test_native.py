"""The compiled CPU kernels: what torch's operations cannot show, and what happens where they are missing."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from cpu_paths import DTYPES, PATHS, kernels_of, usable_levels
from cpu_paths import LEVELS as EVERY_LEVEL
from golu_core import golu
from golu_core.activation import gated_golu
from golu_core.activation.compute import eager, learned_cpu, native
from golu_core.activation.compute import layout as layout_module
from golu_core.activation.compute.parameters import gompertz_parameters
from reference import golu_gradient, reference_forward, reference_gradient, ulp_error

LEVELS = usable_levels()
needs_kernels = pytest.mark.skipif(not LEVELS, reason="needs the compiled kernels, which no C compiler built here")
PARAMETERS = [(1.0, 1.0, 1.0), (2.5, 0.3, 4.0), (0.5, 1e-6, 1e6), (3.0, 1e6, 1e-6), (1e6, 20.0, 0.2)]


def sample(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3).to(dtype)


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()])


def error_of(value: Tensor, reference: Tensor) -> float:
    """The largest error as a share of the value, or of 1 where the value is smaller."""
    return float(((value.double() - reference).abs() / reference.abs().clamp(min=1)).max())


TOLERANCE = {torch.float64: 1e-15, torch.float32: 3e-7, torch.float16: 5e-4, torch.bfloat16: 4e-3}


# -------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_values_and_gradients(dtype, parameters, level):
    """At most twice the error of torch's operations, whose exponentials are right to the last unit."""
    alpha, beta, gamma = parameters
    x = ((sample(20_000, dtype=torch.float64) * 2 + math.log(beta)) / gamma).to(dtype)
    incoming = sample(20_000, dtype=dtype).flip(0)
    checked = gompertz_parameters(*parameters)
    slopes = incoming.double() * reference_gradient(x, *parameters)
    for reference, ours, torchs in (
        (reference_forward(x, *parameters), *(f.golu_forward(x, checked) for f in (native, eager))),
        (slopes, *(f.golu_backward(incoming, x, checked) for f in (native, eager))),
    ):
        assert ours.dtype == dtype
        finite = reference.abs() <= torch.finfo(dtype).max / 2
        scale = alpha * max(1.0, float((x.double() * gamma).abs().max() / gamma))
        errors = [float(((y.double() - reference)[finite] / scale).abs().max()) for y in (ours, torchs)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(torch.float64).eps


@pytest.mark.parametrize(("low", "high", "units"), [(-1, -0.5, 3.0), (-0.5, 0, 3.0), (0, 1, 3.0), (1, 100, 2.0)])
def test_units_in_the_last_place(low, high, units, level):
    x = torch.linspace(low, high, 1_000_001)
    assert ulp_error(golu(x), reference_forward(x)).max() <= units


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_hundred_million_values(direction):
    """Random bit patterns of float32 between -20 and 100, and beyond: the kernel of this processor."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(100):
        x = torch.randint(-(2**31), 2**31, (1_000_000,), generator=generator).to(torch.int32).view(torch.float32)
        x = torch.where(x.isfinite(), x, torch.zeros(()))
        value = golu(x) if direction == "forward" else golu_gradient(golu, x)
        reference = reference_forward(x) if direction == "forward" else reference_gradient(x)
        assert not value.isnan().any()
        worst = max(worst, error_of(value, reference))
    assert worst <= 3e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_value(dtype, level):
    """All 65,536 bit patterns: NaN, infinities and subnormal numbers included; half a unit, and float32's own error."""
    x = torch.from_numpy(numpy.arange(-(2**15), 2**15, dtype=numpy.int16)).view(dtype)
    checked = gompertz_parameters(1.0, 1.0, 1.0)
    one = torch.ones_like(x)
    for value, reference in (
        (native.golu_forward(x, checked), reference_forward(x)),
        (native.golu_backward(one, x, checked), reference_gradient(x)),
        (native.gated_forward(x, one, checked), reference_forward(x)),
    ):
        assert torch.equal(value.isnan(), x.isnan())
        known, finite = reference[~x.isnan()], value[~x.isnan()]
        assert torch.equal(finite.isinf(), known.to(dtype).isinf())
        right, error = known[~finite.isinf()], finite[~finite.isinf()].double() - known[~finite.isinf()]
        unit = torch.finfo(dtype).eps * 2.0 ** right.abs().clamp(min=torch.finfo(dtype).tiny).log2().floor()
        assert (error.abs() <= unit / 2 * 1.01 + 1e-4 * right.abs() + 3e-7 * (right.abs() < 1e-3)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_float16_and_others_are_rounded_as_torch_rounds(dtype, level):
    """Far to the right GoLU is x: each value comes back as it was, through the conversions both ways."""
    x = torch.linspace(100, 60_000, 5001, dtype=torch.float64).to(dtype)
    assert torch.equal(golu(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_does_not_depend_on_its_place_or_the_threads(dtype, level):
    x = sample(3 * native.AT_ONCE + 77, dtype=dtype)
    incoming = sample(x.numel(), dtype=dtype).flip(0)
    checked = gompertz_parameters(1.3, 0.7, 0.9)
    threads = torch.get_num_threads()
    whole = native.golu_forward(x, checked), native.golu_backward(incoming, x, checked)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for start, stop in ((0, None), (1, None), (5, 40), (37, 2 * native.AT_ONCE + 3), (7, 8)):
                part = slice(start, stop)
                assert torch.equal(bits(native.golu_forward(x[part], checked)), bits(whole[0][part]))
                assert torch.equal(bits(native.golu_backward(incoming[part], x[part], checked)), bits(whole[1][part]))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_of_the_gated_form(dtype, level):
    largest = torch.finfo(dtype).max
    x = torch.tensor([-math.inf, -largest, -90.0, largest, math.inf, math.nan], dtype=dtype, requires_grad=True)
    other = torch.full_like(x, 2.0).requires_grad_()
    y = gated_golu(x, other)
    y.backward(torch.ones_like(y))
    assert y[:3].abs().tolist() == [0, 0, 0] and y[4] == math.inf and y[5].isnan()
    assert x.grad[:5].tolist() == [0, 0, 0, 2, 2] and x.grad[5].isnan()
    assert other.grad[:3].abs().tolist() == [0, 0, 0] and torch.equal(other.grad[3:5], x.detach()[3:5])


# -------------------------------------------------------------------------------------------------------------- layouts

# views of a (4, 6, 8, 20) tensor, and whether the kernels read them where they are
LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "dense": (lambda x: x, True),
    "first half of the last dimension": (lambda x: x.chunk(2, -1)[0], True),
    "second half of the last dimension": (lambda x: x.chunk(2, -1)[1], True),
    "half of the channels": (lambda x: x.chunk(2, 1)[1], True),
    "some rows of a matrix": (lambda x: x.view(24, 160)[3:20, 11:44], True),
    "every second row": (lambda x: x.view(24, 160)[::2], True),
    "channels last": (lambda x: x.contiguous(memory_format=torch.channels_last), True),
    "not aligned": (lambda x: x.flatten()[1:], True),
    "dimensions of 1": (lambda x: x[:1, :1, :, :8], True),
    "empty": (lambda x: x[:0], True),
    "a number": (lambda x: x[1, 2, 3, 4], True),
    "transposed": (lambda x: x.transpose(1, 3), True),
    "every second element": (lambda x: x[..., ::2], False),
    "expanded": (lambda x: x[..., :1].expand(-1, -1, -1, 20), False),
    "short rows": (lambda x: x.view(24, 160)[:, :7], False),
    "two strides": (lambda x: x.view(4, 6, 160)[:, 1:3, :50], False),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_what_a_dense_copy_gives(layout, dtype, level):
    view = LAYOUTS[layout][0]
    x, other, incoming = (view(sample(4, 6, 8, 20, dtype=dtype).roll(k)) for k in range(3))
    checked = gompertz_parameters(1.2, 0.8, 1.1)

    def results(*tensors: Tensor) -> list[Tensor]:
        a, b, g = tensors
        found = [native.golu_forward(a, checked), native.golu_backward(g, a, checked)]
        return [*found, native.gated_forward(a, b, checked), *native.gated_backward(g, a, b, checked)]

    for strided, dense in zip(
        results(x, other, incoming), results(*map(torch.clone, (x, other, incoming))), strict=True
    ):
        assert strided.shape == x.shape and strided.stride() == torch.relu(x).stride()
        assert torch.equal(bits(strided), bits(dense))
    mixed = results(x, torch.clone(other, memory_format=torch.contiguous_format), incoming)
    for strided, dense in zip(mixed, results(x, other, incoming), strict=True):
        assert torch.equal(bits(strided), bits(dense))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_what_has_no_rows_is_copied(layout, level, monkeypatch):
    view, stays = LAYOUTS[layout]
    x = view(sample(4, 6, 8, 20))
    copied = []
    original = layout_module.laid_out_like

    def noted(tensor: Tensor, result: Tensor) -> Tensor:
        found = original(tensor, result)
        copied.append(found is not tensor)
        return found

    monkeypatch.setattr(layout_module, "laid_out_like", noted)
    native.golu_forward(x, gompertz_parameters(1.0, 1.0, 1.0))
    assert any(copied) == (not stays)


# ------------------------------------------------------------------------------------------------------ the gated form


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gated_form_is_the_product(path, dtype, monkeypatch):
    kernels = kernels_of(path)
    monkeypatch.setattr(native, "kernels", lambda: kernels)
    both = sample(50, 64, dtype=dtype).requires_grad_()
    incoming = sample(50, 32, dtype=dtype)
    y = gated_golu(*both.chunk(2, -1), 1.5, 0.7, 1.2)
    y.backward(incoming)
    x, other = both.detach().double().chunk(2, -1)
    value, slope = (f(x, 1.5, 0.7, 1.2) for f in (reference_forward, reference_gradient))
    expected = torch.cat([incoming.double() * other * slope, incoming.double() * value], dim=-1)
    assert error_of(y, value * other) <= 4 * TOLERANCE[dtype]
    assert error_of(both.grad, expected) <= 8 * TOLERANCE[dtype]


@pytest.mark.parametrize("path", PATHS)
def test_the_gated_form_among_torchs_transforms(path, monkeypatch):
    kernels = kernels_of(path)
    monkeypatch.setattr(native, "kernels", lambda: kernels)
    x, other = sample(4, 5, dtype=torch.float64).requires_grad_(), sample(4, 5, dtype=torch.float64).flip(0)
    inputs = x, other.requires_grad_()
    assert torch.autograd.gradcheck(gated_golu, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(gated_golu, inputs)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(gated_golu)(*inputs), golu(x) * other)
    torch.testing.assert_close(gated_golu(x, other[:1]), golu(x) * other[:1])
    torch.testing.assert_close(gated_golu(x, other.float()), golu(x) * other.float())


def test_the_gated_form_saves_its_inputs_alone():
    saved = []
    x, other = sample(1000).requires_grad_(), sample(1000).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.data_ptr()), t)[1], lambda t: t):
        gated_golu(x, other)
    assert not LEVELS or sorted(saved) == sorted([x.data_ptr(), other.data_ptr()])


# ------------------------------------------------------------------------------------------ the source, and the library


def test_the_source_has_no_undefined_behavior(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "checked.so"
    flags = [
        "-O1",
        "-std=c11",
        "-shared",
        "-fPIC",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
        "-Wall",
        "-Werror",
    ]
    define = f'-DGOLU_SOURCE="{native.source_fingerprint()}"'
    built = subprocess.run(
        [compiler, *flags, define, str(native.SOURCE), "-o", str(library)], capture_output=True, text=True, check=False
    )
    if "ubsan" in built.stderr:
        pytest.skip("needs the compiler's library for undefined behavior")
    assert built.returncode == 0, built.stderr
    code = f"""
import torch
from pathlib import Path
from golu_core import golu
from golu_core.activation import gated_golu
from golu_core.activation.compute import native
from golu_core.activation.compute.layout import KERNEL_DTYPES
kernels = native.Kernels(native.load_library(Path({str(library)!r})), native._torch_parallel_for())
native.kernels = lambda: kernels
for dtype in KERNEL_DTYPES:
    largest = torch.finfo(dtype).max
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), largest, -largest, 0.0, -0.0, 1e-6, -4.477, -88])
    for size in (1, 2, 7, 8, 33):
        for parameters in ((1.0, 1.0, 1.0), (1e6, 1e6, 1e-6), (1e-6, 1e-6, 1e6)):
            x = values.to(dtype).repeat(size)[: 10 * size - 1].requires_grad_()
            gated_golu(golu(x, *parameters), x, *parameters).sum().backward()
print("clean")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "clean\n", done.stderr


@pytest.mark.parametrize("name", EVERY_LEVEL)
def test_a_library_beside_the_source_is_built_from_it(name):
    """Where this fails after golu_cpu.c was edited, run `uv sync`, which builds the libraries."""
    path = native.library_path(name)
    if not path.exists():
        pytest.skip("needs a library of this instruction set")
    assert set(native.load_library(path)) == set(native.DIRECTIONS)


def built_from_another_source(folder: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = folder / "other.so"
    command = [compiler, "-shared", "-fPIC", '-DGOLU_SOURCE="of yesterday"', str(native.SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def not_a_library(folder: Path) -> Path:
    path = folder / "text.so"
    path.write_text("not a library")
    return path


MISSING: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a pure wheel": (lambda folder: folder / "absent.so", "this installation has no compiled kernels"),
    "a damaged file": (not_a_library, "text.so cannot be loaded"),
    "of another source": (built_from_another_source, "was built from another golu_cpu.c: install golu-core again"),
}


@pytest.fixture
def asked_anew():
    """`native` as at the first call of a program."""
    native.kernels.cache_clear()
    native._outcome.cache_clear()
    yield
    native.kernels.cache_clear()
    native._outcome.cache_clear()


@pytest.mark.parametrize("case", MISSING)
def test_without_the_library_golu_works_and_the_report_says_why(case, tmp_path, monkeypatch, capsys, asked_anew):
    from golu_core.cli import main

    make, reason = MISSING[case]
    path = make(tmp_path)
    monkeypatch.setattr(native, "library_path", lambda name: path)
    x = sample(100)
    with pytest.warns(RuntimeWarning, match="GoLU runs without its CPU kernels") as warned:
        golu(x)
    assert [reason in str(warning.message) for warning in warned] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is one warning
        golu(x)
    assert native.kernels() is None and reason in (native.why_not() or "")
    assert torch.equal(golu(x), eager.golu_forward(x, gompertz_parameters(1.0, 1.0, 1.0)))
    assert main([]) == 0 and reason in capsys.readouterr().out


@needs_kernels
def test_without_torchs_thread_pool(monkeypatch, asked_anew):
    monkeypatch.setattr(native, "_TORCH_LIBRARIES", {sys.platform: "absent.so"})
    with pytest.warns(RuntimeWarning, match="torch's thread pool"):
        native.kernels()
    assert native.kernels() is None and "torch's thread pool cannot be reached" in (native.why_not() or "")


def test_a_platform_without_kernels(monkeypatch, asked_anew, recwarn):
    monkeypatch.setattr(native, "_TORCH_LIBRARIES", {})
    assert native.kernels() is None and f"there are no compiled kernels for {sys.platform}" in (native.why_not() or "")
    assert not [warned for warned in recwarn if "GoLU runs without" in str(warned.message)]  # nothing can be done


@needs_kernels
def test_the_report_names_the_kernels(capsys):
    from golu_core.cli import main

    assert main([]) == 0
    assert f"cpu: compiled kernels, {native.instruction_set()}" in capsys.readouterr().out


def test_the_instruction_set_is_torchs_choice(monkeypatch):
    for capability, name in (("AVX512", "avx512"), ("AVX2", "avx2"), ("DEFAULT", "baseline"), ("SVE256", "baseline")):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert native.instruction_set() == name


@pytest.mark.parametrize(("name", "job"), [("Job", native.JOB), ("LearnedJob", learned_cpu.JOB)])
def test_a_job_has_the_layout_of_the_source(name, job):
    """The fields in golu_cpu.c, one after another, in the letters of `struct`."""
    text = native.SOURCE.read_text()
    fields = text[: text.index(f"}} {name};")].rpartition("typedef struct {")[2].split(";")[:-1]
    letters = {"void": "P", "int64_t": "q", "double": "d"}
    found = ["".join(letters[word] for word in field.split() if word in letters) for field in fields]
    counts = [len(field.split(",")) for field in fields]
    every = "".join(letter * count for letter, count in zip(found, counts, strict=True))
    assert "".join(letter * int(count) for count, letter in re.findall(r"(\d+)(\w)", job.format)) == every
    assert job.size == 8 * len(every)
