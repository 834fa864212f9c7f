"""The CUDA source without a GPU: compiled by NVRTC, and run on the CPU over emulated blocks and threads."""

from __future__ import annotations

import ctypes
import math
import re
import sys
from functools import cache
from types import SimpleNamespace

import numpy
import pytest
import torch

from emulation import LEARNED_KERNELS, ROW_KERNELS, THREADS, emulation, launch_on
from golu_core import golu
from golu_core.activation.compute import kernel, learned, learned_cuda
from golu_core.activation.compute.channel_layout import layout_of
from golu_core.activation.compute.kernel import KERNEL_DTYPES, kernel_name, kernel_scalars, kernel_source
from golu_core.activation.compute.parameters import gate_range, gompertz_parameters
from learned_cases import CASES, assert_as_the_expression, sample
from reference import reference_forward, reference_gradient, ulp_error

CANARY = 16
ALL_KERNELS = [
    (direction, dtype, aligned)
    for direction in ("forward", "backward")
    for dtype in KERNEL_DTYPES
    for aligned in (True, False)
]
WIDE_MOVE = re.compile(r"(ld|st)\.global(?:\.nc|\.cs)?\.(?:v4\.[a-z]32|v2\.[a-z]64|[a-z]128|v8\.[a-z]16)")

MOVES = [
    kernel.TransferStyle(),
    kernel.TransferStyle(vectors=2),
    kernel.TransferStyle(streaming=True),
    kernel.TransferStyle(2, True),
]


@cache
def compile_by_nvrtc(architecture: str, moves: kernel.TransferStyle = MOVES[0]) -> str:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings, from the dependency group test")
    try:
        status, program = nvrtc.nvrtcCreateProgram(kernel_source().encode(), b"golu.cu", 0, [], [])
    except RuntimeError as error:
        pytest.skip(f"needs NVRTC, which torch's CUDA builds bring: {error}")
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "moves", moves)
        options = [option.encode() for option in (*kernel.compile_options(), f"--gpu-architecture={architecture}")]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * (size + 1)  # NVRTC writes into it, and bytes of length 1 are shared by the whole interpreter
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    assert "warning" not in log.decode(), log.decode()
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = b" " * size
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.decode()


def ptx_of(ptx: str, name: str) -> str:
    start = ptx.index(f".entry {name}(")
    return ptx[start : ptx.index("\n}\n", start)]


@pytest.mark.parametrize("architecture", ["compute_75", "compute_80", "compute_90", "compute_100"])
def test_nvrtc_compiles_every_kernel(architecture):
    ptx = compile_by_nvrtc(architecture)
    for direction, dtype, aligned in ALL_KERNELS:
        assert f".entry {kernel_name(direction, dtype, aligned)}(" in ptx
    for operation, dtype, aligned in ROW_KERNELS:
        assert f".entry {kernel_name(operation, dtype, aligned, in_rows=True)}(" in ptx
    for name in LEARNED_KERNELS:
        assert f".entry {name}(" in ptx


@pytest.mark.parametrize(("operation", "dtype", "aligned"), ROW_KERNELS)
def test_rows_are_moved_sixteen_bytes_at_a_time(operation, dtype, aligned):
    code = ptx_of(compile_by_nvrtc("compute_90"), kernel_name(operation, dtype, aligned, in_rows=True))
    loads, stores = {"forward": (1, 1), "backward": (2, 1), "gated_forward": (2, 1), "gated_backward": (3, 2)}[
        operation
    ]
    moves = [match.group(1) for match in WIDE_MOVE.finditer(code)]
    copies = len(moves) // (loads + stores) if aligned else 0  # the compiler may write the loop out more than once
    assert sorted(moves) == sorted((["ld"] * loads + ["st"] * stores) * copies) and bool(copies) == aligned


@pytest.mark.parametrize("moves", MOVES, ids=str)
@pytest.mark.parametrize(("direction", "dtype", "aligned"), ALL_KERNELS)
def test_memory_is_moved_sixteen_bytes_at_a_time(direction, dtype, aligned, moves):
    code = ptx_of(compile_by_nvrtc("compute_90", moves), kernel_name(direction, dtype, aligned))
    found = [match.group(1) for match in WIDE_MOVE.finditer(code)]
    expected = ["ld"] * moves.vectors * (1 if direction == "forward" else 2) + ["st"] * moves.vectors
    assert sorted(found) == (sorted(expected) if aligned else [])
    assert ("global.cs." in code) == (moves.streaming and aligned)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_half_types_take_two_exponentials_an_element(direction):
    ptx = compile_by_nvrtc("compute_90")
    for dtype in (torch.float16, torch.bfloat16):
        assert ptx_of(ptx, kernel_name(direction, dtype, True)).count("ex2.approx.ftz.f32") == 2 * (8 + 1)
    assert ".f64" not in ptx_of(ptx, kernel_name(direction, torch.float32, True))


@pytest.fixture(scope="module")
def emulated_otherwise(tmp_path_factory) -> ctypes.CDLL:
    """With the moves that are not chosen."""
    return emulation(tmp_path_factory.mktemp("moves"), "-DGOLU_VECTORS=2", "-DGOLU_STREAMING")


def run_emulated(library, direction, tensors, parameters, aligned):
    """Runs a kernel with the launcher's own grid, names and constants; returns what it wrote, canaries checked."""
    x = tensors[0]
    count = x.numel()
    offset = 0 if aligned else 1
    padded = torch.full((count + 2 * CANARY,), 7, dtype=x.dtype)
    place = slice(CANARY + offset, CANARY + offset + count)
    inputs = []
    for tensor in tensors:
        held = padded.clone()
        held[place] = tensor
        inputs.append(held)
    output = padded.clone()
    pointers = [ctypes.c_void_p(t.data_ptr() + (CANARY + offset) * t.element_size()) for t in (*inputs, output)]
    threads = kernel._thread_count(count, x.element_size(), aligned)
    constants = (ctypes.c_double * 6)(*kernel_scalars(x.dtype, parameters))
    function = getattr(library, f"run_{kernel_name(direction, x.dtype, aligned)}")
    function(-(-threads // THREADS), THREADS, *pointers, ctypes.c_longlong(count), constants)
    outside = torch.ones(len(output), dtype=torch.bool)
    outside[place] = False
    assert (output[outside] == 7).all(), "a kernel wrote outside its tensor"
    for held, tensor in zip(inputs, tensors, strict=True):
        assert torch.equal(held[place].nan_to_num(), tensor.nan_to_num()), "a kernel wrote to its input"
    return output[place]


def assert_close(value, reference, dtype):
    step = {torch.float64: 1e-14, torch.float32: 4e-7, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    absolute = {torch.float64: 1e-15}.get(dtype, 3e-7) + smallest
    finite = reference.isfinite() & (reference.abs() <= torch.finfo(dtype).max)
    error = (value.double() - reference).abs()
    assert (error <= step * 1.02 * reference.abs() + absolute)[finite].all()
    assert torch.equal(value[reference.isinf()].double(), reference[reference.isinf()])


COUNTS = [1, 2, 7, 8, 9, 15, 16, 17, 255, 256, 1000, 2049]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("direction", "dtype", "aligned"), ALL_KERNELS)
def test_other_moves_give_the_same_bits(emulated, emulated_otherwise, monkeypatch, direction, dtype, aligned, count):
    generator = torch.Generator().manual_seed(count)
    tensors = [(torch.randn(count, generator=generator) * 4).to(dtype) for _ in range(1 + (direction == "backward"))]
    parameters = gompertz_parameters(2.0, 0.5, 1.5)
    expected = run_emulated(emulated, direction, tensors, parameters, aligned)
    monkeypatch.setattr(kernel, "moves", kernel.TransferStyle(2, True))
    assert torch.equal(run_emulated(emulated_otherwise, direction, tensors, parameters, aligned), expected)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("direction", "dtype", "aligned"), ALL_KERNELS)
def test_every_kernel_on_the_cpu(emulated, direction, dtype, aligned, count):
    generator = torch.Generator().manual_seed(count)
    x = (torch.randn(count, generator=generator) * 4).to(dtype)
    incoming = torch.randn(count, generator=generator).to(dtype)
    for parameters in (gompertz_parameters(1.0, 1.0, 1.0), gompertz_parameters(2.0, 0.5, 1.5)):
        triple = parameters.alpha, parameters.beta, parameters.gamma
        if direction == "forward":
            value = run_emulated(emulated, direction, (x,), parameters, aligned)
            reference = reference_forward(x, *triple)
        else:
            value = run_emulated(emulated, direction, (x, incoming), parameters, aligned)
            reference = reference_gradient(x, *triple) * incoming.double()
        assert_close(value, reference, dtype)


@pytest.mark.parametrize("dtype", list(KERNEL_DTYPES))
@pytest.mark.parametrize("aligned", [True, False])
def test_extremes_on_the_cpu(emulated, dtype, aligned):
    largest = torch.finfo(dtype).max
    x = torch.tensor([-torch.inf, -largest, -100, 100, largest, torch.inf, torch.nan, 0, -0.0], dtype=dtype)
    parameters = gompertz_parameters(1.0, 1.0, 1.0)
    y = run_emulated(emulated, "forward", (x,), parameters, aligned)
    gradient = run_emulated(emulated, "backward", (x, torch.ones_like(x)), parameters, aligned)
    assert y[:3].abs().tolist() == [0, 0, 0]
    assert torch.equal(y[3:6], x[3:6])
    assert gradient[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert y[6].isnan() and gradient[6].isnan()
    assert y[7:].tolist() == [0, 0]
    hidden = run_emulated(
        emulated, "backward", (torch.zeros_like(x), torch.full_like(x, torch.nan)), parameters, aligned
    )
    assert hidden.isnan().all(), "a NaN gradient must stay NaN"


def test_float32_ulp_on_the_cpu(emulated):
    x = torch.linspace(-1, 20, 200_001)
    y = run_emulated(emulated, "forward", (x,), gompertz_parameters(1.0, 1.0, 1.0), True)
    assert ulp_error(y, reference_forward(x)).max() <= 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_value_on_the_cpu(emulated, dtype):
    """All 65,536 bit patterns: the conversions of NaN, infinities and subnormal numbers included."""
    x = torch.from_numpy(numpy.arange(-(2**15), 2**15, dtype=numpy.int16)).view(dtype)
    y = run_emulated(emulated, "forward", (x,), gompertz_parameters(1.0, 1.0, 1.0), True)
    assert torch.equal(y.isnan(), x.isnan())
    assert_close(y[~x.isnan()], reference_forward(x[~x.isnan()]), dtype)


# ------------------------------------------------------------------------------------------- the launcher, without CUDA


@pytest.fixture
def launcher(emulated, monkeypatch):
    """`kernel` with the emulated kernels; the names of those that it starts."""
    return launch_on(emulated, monkeypatch)


@pytest.mark.parametrize("dtype", list(KERNEL_DTYPES))
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda x: x, "vector"),
        (lambda x: x.contiguous(memory_format=torch.channels_last), "vector"),
        (lambda x: x.transpose(0, 2), "vector"),
        (lambda x: x[:, ::2], "rows_vector"),
        (lambda x: x[..., :9], "rows_scalar"),
        (lambda x: x[:, :, :, :16], "rows_vector"),
        (lambda x: x[:, :, :, 16:], "rows_vector"),
        (lambda x: x[:, :, 1:, :], "rows_vector"),
        (lambda x: x[..., :1].expand(-1, -1, -1, 4), "vector"),
        (lambda x: x.flatten()[1:], "scalar"),
    ],
    ids=[
        "contiguous",
        "channels_last",
        "transposed",
        "strided",
        "nine of a row",
        "first half",
        "second half",
        "some rows",
        "expanded",
        "unaligned",
    ],
)
def test_launcher(launcher, dtype, make, kind):
    x = make((torch.randn(2, 6, 5, 32, generator=torch.Generator().manual_seed(0)) * 3).to(dtype))
    incoming = torch.randn(x.shape).to(dtype)  # contiguous, whatever x is
    parameters = gompertz_parameters(1.5, 0.7, 1.2)
    y = kernel.golu_forward(x, parameters)
    gradient = kernel.golu_backward(incoming, x, parameters)
    assert y.stride() == torch.relu(x).stride() and y.dtype == dtype
    assert launched_kinds(launcher) == [("forward", kind), ("backward", kind)]
    assert_close(y, reference_forward(x, 1.5, 0.7, 1.2), dtype)
    assert_close(gradient, reference_gradient(x, 1.5, 0.7, 1.2) * incoming.double(), dtype)


def launched_kinds(names):
    parts = [name.removeprefix("golu_").replace("gated_", "gated-").split("_", 2) for name in names]
    return [(direction, kind) for direction, _, kind in parts]


@pytest.mark.parametrize("dtype", list(KERNEL_DTYPES))
@pytest.mark.parametrize("shape", [(5, 64), (3, 7, 18), (1, 2), (700, 32), (2, 4100)])
def test_launcher_of_the_gated_form(launcher, dtype, shape):
    both = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3).to(dtype)
    x, other = both.chunk(2, -1)
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    parameters = gompertz_parameters(1.5, 0.7, 1.2)
    value, slope = (f(x, 1.5, 0.7, 1.2) for f in (reference_forward, reference_gradient))
    y = kernel.gated_forward(x, other, parameters)
    gradients = kernel.gated_backward(incoming, x, other, parameters)
    assert_close(y, value * other.double(), dtype)
    assert_close(gradients[0], incoming.double() * other.double() * slope, dtype)
    assert_close(gradients[1], incoming.double() * value, dtype)
    fits = x.shape[-1] % (16 // dtype.itemsize) == 0 and x.shape[-1] >= 8
    kinds = launched_kinds(launcher)
    assert [direction for direction, _ in kinds] == ["gated-forward", "gated-backward"]
    assert all(kind == "rows_vector" for _, kind in kinds) or not fits


@pytest.fixture
def learned_launcher(launcher, monkeypatch):
    """The CUDA path of learned parameters with emulated kernels, for tensors of the CPU."""
    monkeypatch.setattr(learned, "_implementation", lambda x: learned_cuda)
    return launcher


@pytest.mark.parametrize("dtype", KERNEL_DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_launcher_of_learned_parameters(learned_launcher, case, dtype):
    assert_as_the_expression(*sample(case, dtype))
    names = [f"golu_learned_{direction}_{KERNEL_DTYPES[dtype]}" for direction in ("forward", "backward", "forward")]
    assert learned_launcher == names


@pytest.mark.parametrize("dtype", KERNEL_DTYPES, ids=str)
def test_extremes_of_learned_parameters(learned_launcher, dtype):
    x = torch.tensor([-math.inf, -1e4, -50.0, -0.0, 0.0, 50.0, 1e4, math.inf, math.nan], dtype=dtype)
    own = [torch.tensor(value, requires_grad=True) for value in (1.3, 0.6, 1.7)]
    y = golu(x, *own)
    assert torch.allclose(y.detach().double(), reference_forward(x, 1.3, 0.6, 1.7), rtol=0.01, equal_nan=True)
    assert all(gradient.isnan() for gradient in torch.autograd.grad(y[-1], own))
    known = x[:-1].clone().requires_grad_()
    of_x, of_alpha, of_beta, of_gamma = torch.autograd.grad(golu(known, *own).sum(), [known, *own])
    assert not of_x.isnan().any() and of_alpha == math.inf and of_beta.isfinite() and of_gamma.isfinite()
    for wrong in (0.0, -1.0, math.nan):
        for at in (1, 2):
            assert golu(x, *(torch.tensor(wrong if n == at else 1.0) for n in range(3))).isnan().all()


SPLITS = {
    "few columns": ((3, 5, 7), (5, 1)),
    "long columns": ((2, 3, 2500), (3, 1)),
    "channels side by side": ((700, 33), (33,)),
    "one channel": ((9_001,), ()),
    "tiny maps": ((600, 4, 2, 2), (4, 1, 1)),
    "one element": ((1,), ()),
}


@pytest.mark.parametrize("elements_of_a_thread", [8, 64])
@pytest.mark.parametrize("case", SPLITS)
def test_threads_share_a_tensor_with_learned_parameters(learned_launcher, monkeypatch, case, elements_of_a_thread):
    shape, own = SPLITS[case]
    monkeypatch.setattr(learned_cuda, "_FEWEST", elements_of_a_thread)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parameters = [torch.ones(own).reshape(-1)] * 3
    split = learned_cuda.split_of(x.numel(), layout_of(x, parameters if own == () else [torch.ones(own)] * 3))
    held = torch.full((x.numel() + 2 * CANARY,), 7.0)
    sums = torch.full((3 * split.threads + CANARY,), 7.0)
    result = held[CANARY:-CANARY].view(shape)
    learned_cuda._launch("learned_backward", split, parameters, x, torch.ones_like(x), result, sums)
    assert_close(result, reference_gradient(x), x.dtype)
    assert (held[:CANARY] == 7).all() and (held[-CANARY:] == 7).all() and (sums[-CANARY:] == 7).all()
    assert sums[: split.threads].sum().item() == pytest.approx(reference_forward(x).sum().item(), rel=1e-5)


def test_the_range_of_the_gate_is_that_of_the_parameters():
    closed, opened = map(float, re.findall(r"CLOSED = (\S+), OPEN = (\S+);", kernel_source())[0])
    assert gate_range(1.0, 1.0) == (-closed, -opened)


def test_a_grid_of_rows_covers_each_pack_once():
    for row_count in (1, 2, 7, 255, 70_000, 40_000_000):
        for packs in (1, 2, 3, 32, 100, 256, 257, 5000):
            (across, down), (width, height) = kernel._grid_of_rows(row_count, packs)
            assert width * height == THREADS and across * width >= packs > (across - 1) * width
            assert down == 65_535 or down * height >= row_count > (down - 1) * height


def test_an_empty_tensor_launches_nothing(launcher):
    assert kernel.golu_forward(torch.empty(0, 3), gompertz_parameters(1.0, 1.0, 1.0)).shape == (0, 3)
    assert launcher == []


# what compiling a kernel raises, CuPy's CUDA, and the cure that is named
BROKEN: dict[str, tuple[Exception, int, str]] = {
    "an old driver": (RuntimeError("cudaErrorInsufficientDriver: version is insufficient"), 13020, "insufficient"),
    "no NVRTC": (
        RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: cannot open shared object file"),
        13020,
        r"pip install 'cupy-cuda13x\[ctk\]'",
    ),
    "a cache that cannot be written": (
        PermissionError(13, "Permission denied", "/home/me/.cupy/kernel_cache"),
        13020,
        "set CUPY_CACHE_DIR to a folder that can be written",
    ),
    "a cache in a place of libraries": (
        PermissionError(13, "Permission denied", "/var/lib/me/.cupy/kernel_cache"),
        13020,
        "set CUPY_CACHE_DIR",
    ),
    "a library that is missing": (
        OSError("libnvrtc-builtins.so.13.2: cannot open shared object file"),
        13020,
        r"pip install 'cupy-cuda13x\[ctk\]'",
    ),
    "a read-only disk": (OSError(30, "Read-only file system", "/home/me/.cupy"), 13020, "set CUPY_CACHE_DIR"),
    "a new card": (
        RuntimeError("nvrtc: error: invalid value for --gpu-architecture (-arch)"),
        13020,
        "newer than CuPy's compiler: pip install --upgrade cupy-cuda13x",
    ),
    "another CUDA": (
        RuntimeError("whatever"),
        12090,
        "CuPy is for CUDA 12 and torch for CUDA 13: install cupy-cuda13x",
    ),
    "something else": (RuntimeError("first line\nsecond line"), 13020, "RuntimeError: first line"),
}


@pytest.fixture
def asked_anew(monkeypatch):
    """`kernels_available` as at the first call of a program whose torch is for CUDA 13."""
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    kernel.kernels_available.cache_clear()
    kernel._kernel.cache_clear()
    yield
    kernel.kernels_available.cache_clear()
    kernel._kernel.cache_clear()


def stand_in(compile_kernel, version=13020):
    raw_kernel = SimpleNamespace(compile=compile_kernel)
    runtime = SimpleNamespace(runtimeGetVersion=lambda: version)
    return SimpleNamespace(RawKernel=lambda *arguments: raw_kernel, cuda=SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize("case", BROKEN)
def test_a_kernel_that_does_not_compile_is_one_warning_with_its_cure(case, monkeypatch, asked_anew):
    error, version, cure = BROKEN[case]

    def broken():
        raise error

    monkeypatch.setitem(sys.modules, "cupy", stand_in(broken, version))
    with pytest.warns(RuntimeWarning, match=cure) as warned:
        assert [kernel.kernels_available() for _ in range(2)] == [False, False]
    assert len(warned) == 1 and "second line" not in str(warned[0].message)


def test_without_cupy_the_warning_says_what_to_install(monkeypatch, asked_anew):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.warns(RuntimeWarning, match=r"CuPy is not installed: pip install 'golu-core\[cuda13\]'"):
        assert not kernel.kernels_available()


def test_a_cupy_that_cannot_be_imported(monkeypatch, tmp_path, asked_anew):
    (tmp_path / "cupy.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"CuPy cannot be imported \(OSError: libcudart"):
        assert not kernel.kernels_available()
    sys.modules.pop("cupy", None)


def test_a_kernel_that_compiles_is_used(monkeypatch, asked_anew, recwarn):
    compiled = []
    monkeypatch.setitem(sys.modules, "cupy", stand_in(lambda: compiled.append(1)))
    assert kernel.kernels_available() and kernel.kernels_available()
    assert len(compiled) == 1 and not recwarn.list
