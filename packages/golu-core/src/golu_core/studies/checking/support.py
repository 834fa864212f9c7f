"""Checks of what works with an activation: layouts, transforms, compilers, exporters, copies."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import shutil

import torch
from torch import Tensor, nn

from golu_core.activation.names.loading import LoadedActivation

from .subject import Check, Failed, NotApplicable, Subject, quiet, same_numbers


def _input(*shape: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=random)


def _layouts(subject: Subject) -> str:
    module, x = subject.module(), _input(4, 8, 6, 6)
    with torch.no_grad():
        expected = module(x.clone())
        same_numbers(module(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)), expected, "strided")
        wide = torch.zeros(4, 8, 6, 12)
        wide[..., ::2] = x
        same_numbers(module(wide[..., ::2]), expected, "every second column")
        images = x.contiguous(memory_format=torch.channels_last)
        found = module(images)
    same_numbers(found, expected, "channels_last")
    kept = found.is_contiguous(memory_format=torch.channels_last)
    return "strided and channels_last, " + ("which it keeps" if kept else "which it does not keep")


def _no_elements(subject: Subject) -> str:
    x = torch.empty(0, 8).requires_grad_()
    y = subject.module()(x.clone())
    y.sum().backward()
    if y.shape != x.shape:
        raise Failed(f"(0, 8) becomes {tuple(y.shape)}")
    return "forward and backward"


def _autocast(subject: Subject) -> str:
    torch.manual_seed(0)
    layer, module, x = nn.Linear(8, 8), subject.module(), _input(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(layer(x))
    y.float().sum().backward()
    same_numbers(y.float(), module(layer(x)), "bfloat16", 0.1)
    return f"bfloat16 on the CPU, of {str(y.dtype).removeprefix('torch.')}"


def _vmap(subject: Subject) -> str:
    module, x = subject.module(), _input(3, 4, 8)
    with torch.no_grad():
        same_numbers(torch.func.vmap(module)(x), torch.stack([module(row.clone()) for row in x]), "vmap")
    return "over rows"


def _func_grad(subject: Subject) -> str:
    module, x = subject.module(), _input(4, 8)
    found = torch.func.grad(lambda t: module(t.clone()).square().sum())(x)
    points = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module(points.clone()).square().sum(), points)
    same_numbers(found, expected, "grad")
    return "as autograd's"


def _jvp(subject: Subject) -> str:
    module, x = subject.module(), _input(4, 8)
    with quiet():  # torch scripts its own decompositions at the first call, and warns of that
        found: Tensor = torch.func.jvp(lambda t: module(t.clone()), (x,), (torch.ones_like(x),))[1]
    if subject.is_elementwise:
        points = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(module(points.clone()).sum(), points)
        same_numbers(found, expected, "jvp")
    return "forward mode"


def _compile(subject: Subject) -> str:
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))):
        raise NotApplicable("there is no C++ compiler")
    module, x = subject.module(), _input(4, 8).requires_grad_()
    torch.compiler.reset()  # or many cards in one process would be one function, compiled too often
    with quiet():
        compiled = torch.compile(module, fullgraph=True)
        y = compiled(x.clone())
        (found,) = torch.autograd.grad(y.sum(), x)
    points = x.detach().clone().requires_grad_()
    expected = module(points.clone())
    same_numbers(y, expected, "compiled")
    same_numbers(found, torch.autograd.grad(expected.sum(), points)[0], "gradient of the compiled module")
    return "fullgraph, forward and backward"


def _export(subject: Subject) -> str:
    module, x = subject.module(), _input(4, 8)
    with quiet(), torch.no_grad():
        same_numbers(torch.export.export(module, (x,)).module()(x), module(x.clone()), "exported")
    return "torch.export"


def _onnx(subject: Subject) -> str:
    for name in ("onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise NotApplicable(f"{name} is not installed")
    module, x = subject.module(), _input(4, 8)
    with quiet():
        import onnxruntime  # type: ignore[import-untyped]

        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
        assert program is not None
        content = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        same_numbers(torch.from_numpy(found), module(x.clone()), "onnxruntime", 1e-4)
    return "run by onnxruntime"


def _meta(subject: Subject) -> str:
    y = subject.module().to("meta")(torch.empty(4, 8, device="meta"))
    if y.device.type != "meta" or y.shape != (4, 8):
        raise Failed(f"returns a {y.device.type} tensor of shape {tuple(y.shape)}")
    return "shapes without numbers"


def _copies(subject: Subject) -> str:
    module, x = subject.module(), _input(4, 8)
    with torch.no_grad():
        expected = module(x.clone())
        same_numbers(copy.deepcopy(module)(x.clone()), expected, "deepcopy")
        same_numbers(pickle.loads(pickle.dumps(module))(x.clone()), expected, "pickle")
    return "deepcopy and pickle"


def _state(subject: Subject) -> str:
    module, x = subject.module(), _input(4, 8)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    other = subject.module()
    other.load_state_dict(state)
    with torch.no_grad():
        same_numbers(other(x.clone()), module(x.clone()), "state dict")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return f"{len(state)} tensors, {parameters} parameters"


def _gpu(subject: Subject) -> str:
    if not torch.accelerator.is_available():
        raise NotApplicable("there is no GPU here")
    device = torch.accelerator.current_accelerator()
    assert device is not None
    module, x = subject.module(), _input(64, 8)
    with torch.no_grad():
        expected = module(x.clone())
        same_numbers(subject.module().to(device)(x.to(device)).cpu(), expected, device.type, 1e-4)
    return f"{device.type} and CPU agree"


def saved_for_backward(loaded: LoadedActivation) -> tuple[int, float]:
    """How many tensors of a thousand float32 elements the forward pass keeps, and bytes an element."""
    module, x = loaded.build().train(), torch.randn(1000, 1).requires_grad_()
    given = x.clone()
    kept: dict[tuple[int, int], float] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= 1000:
            place = tensor.untyped_storage().data_ptr(), int(tensor.storage_offset())
            kept[place] = tensor.numel() * tensor.element_size() / 1000
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module(given)
    del y
    return len(kept), sum(kept.values())


CHECKS = (
    Check("layouts", _layouts),
    Check("no elements", _no_elements),
    Check("autocast", _autocast),
    Check("torch.func.vmap", _vmap),
    Check("torch.func.grad", _func_grad),
    Check("torch.func.jvp", _jvp),
    Check("torch.compile", _compile),
    Check("torch.export", _export),
    Check("ONNX", _onnx),
    Check("meta device", _meta),
    Check("copies", _copies),
    Check("state dict", _state),
    Check("GPU", _gpu),
)
