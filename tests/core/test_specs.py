"""Activations by any name: what is read, what is imported, what is refused, and in which spelling it is stored."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import subprocess
import sys
import time
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from golu_core.activation import ACTIVATIONS, build_activation, canonical_name, load_activation, replace_activations
from golu_core.activation.names import loading, registry
from golu_core.activation.names.loading import FunctionActivation, source_of
from golu_core.activation.names.registry import ALIASES, canonical_spec, nothing_loaded, registered_elsewhere
from golu_core.activation.names.specs import folder_name, parse_spec
from golu_core.activation.names.torch_names import named_in_torch
from golu_core.activation.swap.forward_calls import activation_of

SNAKE = """
import torch

class Snake(torch.nn.Module):
    def __init__(self, a: float = 1.0):
        super().__init__()
        self.a = a

    def forward(self, x):
        return x + torch.sin(self.a * x) ** 2 / self.a

class NoModule:
    pass

class NeedsMore(torch.nn.Module):
    def __init__(self, width):
        super().__init__()

class Halves(torch.nn.Module):
    def forward(self, x):
        return x.chunk(2, -1)[0]

class Wider(torch.nn.Module):
    def forward(self, x):
        return x.double()

class Pair(torch.nn.Module):
    def forward(self, x):
        return x, x

class NoGradient(torch.nn.Module):
    def forward(self, x):
        return x.detach()

class Fails(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("on purpose")

class InPlace(torch.nn.Module):
    def forward(self, x):
        return torch.relu_(x)

def squared(x, power=2):
    return x.abs() ** power

def nothing():
    return 1

made = Snake()
number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SNAKE)
    return path


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GoLU", "golu"),
        ("SiLU", "swish"),
        ("gelu-tanh", "gelu_tanh"),
        ("golu(beta=1)", "golu"),
        ("golu( gamma = 2, beta=.5 )", "golu(beta=0.5, gamma=2.0)"),
        ("leakyrelu(negative_slope=0.3)", "leaky_relu(negative_slope=0.3)"),
        ("torch.nn.Hardswish", "torch.nn.Hardswish"),
        ("torch.nn:Hardtanh(max_val=2, inplace=false)", "torch.nn.Hardtanh(inplace=False, max_val=2)"),
        ("./mine.py:Snake", "mine.py:Snake"),
        ("/a (1)/b:c/mine.py:Snake(a=0.2)", "mine.py:Snake(a=0.2)"),
        ("x.py:f(s='a(b', t=(1, 2))", "x.py:f(s='a(b', t=(1, 2))"),
    ],
)
def test_one_spelling(text, name):
    assert canonical_name(text) == name
    assert canonical_name(name) == name


literals = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(), st.text(max_size=8)
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["p.q:R", "p.q.R", "./f.py:R", "/d(1)/f.py:R"]), st.dictionaries(names, literals, max_size=4))
def test_spellings_are_read_back(head, parameters):
    keywords = {name: value for name, value in parameters.items() if name.isidentifier()}
    try:
        compile(f"f({', '.join(f'{name}=1' for name in keywords)})", "", "eval")  # not `if=1`
    except SyntaxError:
        return
    text = head + (f"({', '.join(f'{name}={value!r}' for name, value in keywords.items())})" if keywords else "")
    spec = parse_spec(text)
    assert spec.parameters == keywords
    assert parse_spec(spec.text).text == spec.text
    place = folder_name(spec.text)
    assert len(place) <= 100 and not set(place) & set('/\\:*?"<>| ()') and place == place.strip(".")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        name = canonical_name(text)
    except ValueError:
        return
    assert canonical_name(name) == name


HOSTILE_VALUES = st.one_of(
    st.sampled_from(
        ["[]", "{[]: 1}", "{{}: 1}", "{1, 2}", "set()", "...", "1e999", "-1e999", "1e999j", "b'x'", "1j", "2+1j", "nan"]
    ),
    st.sampled_from(["__import__('os')", "lambda: 1", "f'{1}'", "x if x else y", "(yield)", "*a", "a:=1", "1 .real"]),
    st.sampled_from([9, 99, 400, 900, 4_400]).map(lambda digits: "9" * digits),
    st.sampled_from([9, 300, 999]).map(lambda digits: "0x" + "f" * digits),
    st.tuples(
        st.sampled_from(["(%s)", "[%s]", "{1: %s}", "-%s", "not %s", "f(%s)", "%s.x", "%s[0]"]), st.integers(1, 400)
    ).map(lambda nested: _nested(*nested)),
    st.text(max_size=9).map(repr),
    st.text(max_size=9),
    st.sampled_from(
        ["\0", "'\0'", "'\\0'", "\ud800", "'\ud800'", "'\\ud800'", "'\\N{DIGIT ONE}'", "'\\d'", "\n1", "#"]
    ),
)
HOSTILE_HEADS = st.one_of(
    st.sampled_from(
        ["golu", "p.q:R", "./f.py:R", "\0", "\ud800", "a\0.py:X", "\ud800.py:X", "..:x", "/.py:X", "é.py:X"]
    ),
    st.sampled_from([20, 1_000, 5_000]).map(lambda count: "(" * count),
    st.sampled_from([20, 500, 3_000]).map(lambda count: "()" * count),
    st.text(max_size=20),
)


def _nested(pattern, depth):
    text = "1"
    for _ in range(depth):
        text = pattern % text
    return text


@settings(max_examples=600, deadline=None)
@given(HOSTILE_HEADS, st.lists(st.tuples(st.sampled_from(["beta", "a", "**", "", "if"]), HOSTILE_VALUES), max_size=3))
def test_hostile_texts_are_read_or_refused(head, parameters):
    """In less than a second of CPU time, without a warning, and the stored spelling is read as itself."""
    begin = time.process_time()
    text = f"{head}({', '.join(f'{name}={value}' for name, value in parameters)})"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal, name = "", "golu"
        try:
            name = canonical_name(text)
        except ValueError as error:
            refusal = str(error)
        assert refusal.encode().count(b"\n") == 0
        assert canonical_name(name) == name and name.encode()
        assert len(folder_name(name)) <= 100
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_names_are_folders_as_they_are(name):
    assert folder_name(name) == name and canonical_name(name.upper()) == name


def test_reading_imports_nothing(file):
    code = (
        "import sys; from golu_core.activation import canonical_name; "
        f"canonical_name({str(file)!r} + ':Snake'); canonical_name('json.decoder.Nothing(a=1)'); "
        "assert not {'torch', 'golu_activation', 'json.decoder'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("golo", "did you mean 'golu'"),
        ("golu(bta=1)", "golu has no parameter 'bta': it has alpha, beta, gamma"),
        ("relu(alpha=1)", "relu has no parameter 'alpha': it has none"),
        ("golu(beta=true)", "beta of golu must be a number, not True"),
        ("golu(beta='a')", "beta of golu must be a number"),
        ("golu(beta=1e999)", "beta of .* must be a plain value"),
        ("leaky_relu(0.1)", "name the parameters"),
        ("golu(beta=1, beta=2)", "cannot be read|each be named once"),
        ("golu(**{'beta': 1})", "each be named once"),
        ("golu(beta=__import__('os').getpid())", "must be a plain value"),
        ("golu(beta=x)", "must be a plain value"),
        ("./mine.py", "name an object in it"),
        ("./mine.py:", "does not name an object in the file"),
        ("./mine.py:a b", "does not name an object in the file"),
        ("", "does not name an activation"),
        ("a:b:c", "does not name an activation"),
        ("relu(", "does not name an activation"),
    ],
)
def test_what_names_nothing_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        canonical_name(text)


# ------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("name", [n for n, a in ACTIVATIONS.items() if a.parameters])
def test_parameters_of_the_registry(name):
    """Each parameter arrives, and its default is the module's own."""
    x = torch.linspace(-3, 3, 33, dtype=torch.float64)
    plain = build_activation(name).double()
    for key, default in ACTIVATIONS[name].parameters.items():
        if isinstance(default, bool):
            continue
        at_default = build_activation(f"{name}({key}={default})").double()
        assert torch.equal(at_default(x), plain(x))
        other = build_activation(f"{name}({key}={default * 1.5})").double()
        reached = 40 * x if key == "threshold" else x  # above which softplus is linear
        assert not torch.equal(other(reached), plain(reached))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("torch.nn.Hardswish", nn.Hardswish()),
        ("torch.nn:Hardtanh(max_val=0.5)", nn.Hardtanh(max_val=0.5)),
        ("torch.nn.functional.leaky_relu(negative_slope=0.3)", nn.LeakyReLU(0.3)),
        ("torch.tanh", nn.Tanh()),
        ("golu_core.activation.modules.GoLU(beta=0.5)", build_activation("golu(beta=0.5)")),
    ],
)
def test_packages(text, same):
    loaded = load_activation(text)
    x = torch.randn(64)
    assert torch.equal(loaded.build()(x), same(x))
    assert loaded.source.split()[0] in ("torch", "golu-core") and loaded.source.split()[1][0].isdigit()
    assert loaded.code is None


def test_files(file):
    loaded = load_activation(f"{file}:Snake(a=0.2)")
    assert loaded.text == "mine.py:Snake(a=0.2)" and loaded.build().a == 0.2
    assert loaded.source == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    x = torch.randn(9)
    function = build_activation(f"{file}:squared(power=3)")
    assert isinstance(function, FunctionActivation) and torch.equal(function(x), x.abs() ** 3)
    assert activation_of(function) == "mine.py:squared(power=3)"
    assert torch.equal(build_activation(f"{file}:InPlace")(x), x.relu())


TORCH_FUNCTIONS = sorted(
    f"{home}.{name}"
    for home, place in (("torch", torch), ("torch.special", torch.special), ("torch.nn.functional", nn.functional))
    for name, found in vars(place).items()
    if callable(found) and not inspect.isclass(found)
)
REACHING_OUT = [
    "torch.save(f='victim')",
    "torch.load(f='victim')",
    "torch.jit.load(f='victim')",
    "torch.jit.save(f='victim')",
    "torch.hub.load(repo_or_dir='.', model='evil', source='local')",
    "torch.export.save(f='victim')",
    "torch.package.PackageExporter(f='victim')",
    "torch.utils.cpp_extension.load(name='evil', sources='evil.cpp')",
    "torch.utils.collect_env.run_and_return_first_line",
    "torch.from_file(filename='victim', shared=True, size=8)",
    "torch._inductor.runtime.compile_tasks._reload_python_module(path='evil.py')",
    "torch._C._VariableFunctions.tanh",
    "torch.nn.modules.module.torch.save(f='victim')",
    "torch.nn.functional.torch.save(f='victim')",
    "torch.nn.functional.importlib.import_module",
    "torch.Tensor.numpy",
    "torch.os.system",
    "torch.sys.exit",
    "torch.set_num_threads",
    "torch.manual_seed",
    "torch.compile",
    "torch.nn.Module.apply",
]


@pytest.mark.parametrize("text", REACHING_OUT)
def test_functions_of_torch_that_reach_out_are_refused(text, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('victim', 'w')")
    (tmp_path / "hubconf.py").write_text("open('victim', 'w')\ndef evil(): pass")
    monkeypatch.chdir(tmp_path)
    for load in (load_activation, build_activation):
        with pytest.raises(ValueError, match="is not an activation of torch"):
            load(text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.py", "hubconf.py"]


def test_what_may_be_called_of_torch_is_an_operator():
    """Of all that can be called in its three modules, what is not refused."""
    allowed = set()
    for name in TORCH_FUNCTIONS:
        with contextlib.suppress(ValueError):
            allowed.add(named_in_torch(name))
    assert {torch.tanh, torch.special.expit, nn.functional.gelu, nn.functional.silu} <= allowed
    assert torch.save not in allowed and torch.from_file not in allowed
    homes = {getattr(function, "__module__", None) for function in allowed}
    assert homes <= {"torch", "torch.nn.functional", "torch._C._nn", "torch._C._special", None}
    assert all(inspect.isbuiltin(f) for f in allowed if f.__module__ != "torch.nn.functional")


@pytest.mark.parametrize(
    "text", ["torch.tanh", "torch.nn.functional.mish", "p.q:R", "./mine.py:Snake", "torch.nn.LSTM"]
)
def test_a_command_builds_nothing_that_it_has_not_loaded(text, file, monkeypatch):
    monkeypatch.setattr(loading, "_LOADED", {})
    monkeypatch.chdir(file.parent)
    with nothing_loaded():
        with pytest.raises(ValueError, match="neither built in nor named"):
            build_activation(text)
        with pytest.raises(ValueError, match="neither built in nor named"):
            replace_activations(nn.Sequential(nn.ReLU()), "relu", text)
        assert isinstance(build_activation("torch.nn.Hardswish"), nn.Hardswish)
        assert isinstance(build_activation("golu(beta=0.5)"), nn.Module)
        if text == "./mine.py:Snake":
            assert build_activation(load_activation(text).text).a == 1.0


@pytest.mark.parametrize(
    "text", ["golu(beta=2)", "torch.tanh", "torch.nn.Hardswish", "golu_core.activation:GoLU", "FILE:Snake"]
)
def test_the_source_is_known_without_running_anything(text, file, monkeypatch):
    text = text.replace("FILE", str(file))
    expected = load_activation(text).source
    monkeypatch.setattr(loading, "_executed", None)
    monkeypatch.setattr(loading, "_imported", None)
    assert source_of(text) == expected


def test_a_changed_file_is_loaded_anew(file):
    first = load_activation(f"{file}:Snake")
    file.write_text(SNAKE.replace("self.a = a", "self.a = 2 * a"))
    second = load_activation(f"{file}:Snake")
    assert (first.build().a, second.build().a) == (1.0, 2.0) and first.source != second.source
    assert build_activation(f"{file}:Snake").a == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FILE:Snak", r"mine.py has no Snak, did you mean Snake\?"),
        ("FOLDER/mime.py:Snake", "there is no file .*did you mean .*mine.py"),
        ("FILE:Snake(b=2)", "mine.py:Snake has no parameter 'b'.*it has a"),
        ("FILE:NoModule", "is a class, but not a torch.nn.Module"),
        ("FILE:NeedsMore", "needs width: write mine.py:NeedsMore"),
        ("FILE:Halves", r"of shape \(4, 8\) it makes one of \(4, 4\)"),
        ("FILE:Wider", "of a tensor of dtype torch.float32 it makes one of torch.float64"),
        ("FILE:Pair", "returns a tuple, not a tensor"),
        ("FILE:NoGradient", "has no gradient"),
        ("FILE:Fails", "RuntimeError: on purpose"),
        ("FILE:nothing", "does not accept a tensor"),
        ("FILE:made", "an instance of a module"),
        ("FILE:number", "is a int"),
        ("torch.nn.Hardswich", r"torch.nn has no Hardswich, did you mean Hardswish\?"),
        ("torch.nn.Linear", "needs in_features and out_features"),
        ("torch.nn.LSTM", "cannot be made: TypeError"),
        ("torch.nn", "is not an activation of torch"),
        ("golu_core.activation", "is a module"),
        ("torch.autograd.Function", "autograd.Function"),
        ("no_such_package.x:Y", "there is no package 'no_such_package' installed"),
        ("golu(beta=-1)", "must be positive"),
    ],
)
def test_what_is_no_activation_is_refused(text, message, file):
    with pytest.raises(ValueError, match=message):
        load_activation(text.replace("FILE", str(file)).replace("FOLDER", str(file.parent)))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("\0", "cannot be imported"),
        ("raise ValueError('theirs')", "theirs"),
    ],
)
def test_files_that_cannot_be_imported(code, message, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(code)
    for _ in range(2):  # nothing of a failed import stays
        with pytest.raises(ValueError, match=message):
            load_activation(f"{path}:Snake")


def test_a_file_beside_is_not_imported(tmp_path, monkeypatch):
    """Its changes would go unnoticed."""
    (tmp_path / "helper_beside.py").write_text("SCALE = 2.0\n")
    path = tmp_path / "mine.py"
    path.write_text(f"from helper_beside import SCALE\n{SNAKE}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"imports helper_beside\.py beside it"):
        load_activation(f"{path}:Snake")


def test_entry_points(monkeypatch):
    entries = {"wavy": _Entry("wavy", nn.Hardswish), "broken": _Entry("broken", None)}
    for module in ("registry", "loading"):
        monkeypatch.setattr(f"golu_core.activation.names.{module}.registered_elsewhere", lambda: entries)
    monkeypatch.setattr("golu_core.activation.names.loading.canonical_spec", canonical_spec.__wrapped__)
    monkeypatch.setattr("golu_core.activation.names.registry.canonical_spec", canonical_spec.__wrapped__)
    assert canonical_name("Wavy") == "wavy" and isinstance(build_activation("wavy"), nn.Hardswish)
    assert load_activation("wavy").source == "their-package 1.2"
    with pytest.raises(ValueError, match=r"broken.*cannot be loaded: no such thing"):
        load_activation("broken")
    with pytest.raises(ValueError, match="did you mean 'wavy'"):
        canonical_name("wavi")


class _Entry:
    def __init__(self, name, found):
        self.name, self.value, self._found = name, f"their_package:{name}", found
        self.dist = type("Dist", (), {"name": "their-package", "version": "1.2"})

    def load(self):
        if self._found is None:
            raise ImportError("no such thing")
        return self._found


def test_names_of_ours_stay_ours():
    assert not set(registered_elsewhere()) & {*ACTIVATIONS, *ALIASES}


def test_replacing_by_a_spec(file):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    report = replace_activations(model, "relu", f"{file}:Snake(a=0.5)")
    assert report.swapped == ("1", "3") and model[1].a == 0.5 and model[1] is not model[3]
    with pytest.raises(ValueError, match="no Snak"):
        replace_activations(nn.Sequential(nn.ReLU()), "relu", f"{file}:Snak")
    with pytest.raises(ValueError, match="cannot be searched for"):
        replace_activations(nn.Sequential(nn.ReLU()), "torch.nn.ReLU", "golu")


def test_a_modules_own_calls_are_not_the_networks(tmp_path):
    """What an activation of a person's own calls inside is not reported as left."""
    path = tmp_path / "inner.py"
    path.write_text(
        "import torch\nclass Inner(torch.nn.Module):\n    def forward(self, x):\n        return torch.relu(x) * x\n"
    )
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    report = replace_activations(model, "relu", f"{path}:Inner")
    assert report.swapped == ("1",) and report.left == () and report.uncalled == ()


def test_loading_draws_nothing(file):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    load_activation(f"{file}:Snake")
    assert torch.equal(torch.randn(4), expected)


# --------------------------------------------------------------------------- what is new in the registry, independently

FORMULAS = {
    "relu2": lambda x: max(x, 0.0) ** 2,
    "hard_swish": lambda x: x * min(max(x + 3.0, 0.0), 6.0) / 6.0,
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "telu": lambda x: x * (1 - 2 / (1 + math.exp(2 * math.exp(x)))),
    "logish": lambda x: x * math.log((2 + math.exp(-x)) / (1 + math.exp(-x))),
    "smelu": lambda x: _mean_of_relu(x, 1.0),
    "smelu(beta=0.25)": lambda x: _mean_of_relu(x, 0.25),
}


def _mean_of_relu(x: float, half: float) -> float:
    """ReLU under a box of noise, by integration."""
    from scipy.integrate import quad

    return quad(lambda u: max(x + u, 0.0), -half, half, points=[min(max(-x, -half), half)])[0] / (2 * half)


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name):
    function = build_activation(name).double()
    for x in [-5.0, -2.5, -1.0, -0.3, 0.0, 0.2, 0.9, 1.0, 2.0, 3.5]:
        assert float(function(torch.tensor(x, dtype=torch.float64))) == pytest.approx(FORMULAS[name](x), abs=1e-12)


@pytest.mark.parametrize("name", ["relu2", "telu", "logish", "smelu", "xielu"])
def test_no_slope_is_nan(name):
    x = torch.tensor([-1e4, -100.0, -90.0, -1.0, 0.0, 1.0, 4.0, 90.0, 100.0, 1e4], requires_grad=True)
    y = build_activation(name)(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all() and slope.isfinite().all()


@pytest.mark.parametrize(("name", "theirs"), [("relu2", "ReLUSquaredActivation"), ("xielu", "XIELUActivation")])
def test_as_transformers_has_them(name, theirs):
    activations = pytest.importorskip("transformers.activations")
    made = getattr(activations, theirs)()
    if name == "xielu":
        made = activations.XIELUActivation(dtype=torch.float64)
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    assert torch.allclose(build_activation(name).double()(x), made.double()(x), atol=2e-6)
    assert activation_of(made) == name


def test_the_spelling_is_json(file):
    name = load_activation(f"{file}:squared(power=3)").text
    assert json.loads(json.dumps({"activation": name}))["activation"] == name


def test_a_text_is_parsed_once(monkeypatch):
    """A run of two steps parsed its activation ten times."""
    parsed = []
    parse = registry.parse_spec
    monkeypatch.setattr(registry, "parse_spec", lambda text: parsed.append(text) or parse(text))
    canonical_spec.cache_clear()
    for _ in range(3):
        build_activation("golu(beta=0.3)")
        assert canonical_name("golu(beta=0.3)") == "golu(beta=0.3)"
    assert parsed == ["golu(beta=0.3)"]
