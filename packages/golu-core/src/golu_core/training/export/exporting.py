"""`export`: write a finished run's network in another format, verify it against torch, and add a model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config.named_activations import ACTIVATION_FILE, loaded_code
from ..messages.errors import RequestError, RunFailure
from ..messages.text_sinks import say
from ..runs.finite_numbers import finite_outputs
from ..runs.results import Result
from ..storage.output_folders import check_output_folder, output_folder
from ..tasks.command_line import parsed_run_flags
from .model_card import Usage, write_card

_MOST_IN_ONE_FILE = 1_500_000_000  # bytes; a protocol buffer holds 2 GiB
LARGEST_DIFFERENCE = 1e-4
"""Maximum difference from torch, relative to the largest output: float32 rounding in other kernels."""
_NOTES = ("doc_string", "metadata_props")
_NOTES_OF_NODES = ("stack_trace", "from_node")
_NEEDS = {
    "onnx": "onnxruntime alone: the activation is a few standard operators in the graph",
    "pt2": "torch alone: the activation is a few standard operators in the graph",
}


@dataclass(frozen=True)
class ExportFlags:
    """Export the model of a finished run."""

    out: Path
    """New folder for the network and its card."""
    format: Literal["onnx", "pt2", "safetensors"] = "onnx"
    """`onnx` for ONNX Runtime and others, `pt2` by torch.export, or `safetensors`, the weights with a config."""


@dataclass(frozen=True)
class Exportable:
    """A network to export.

    Attributes:
        model: The network on the CPU, in evaluation mode; it returns one tensor.
        example: Example inputs, each with a leading batch dimension of 2.
        inputs: The names of the inputs.
        output: The name of the output.
        pipeline: The task's pipeline tag on the Hub, such as `image-classification`.
        free: Other dynamic dimensions of the inputs: name, minimum, and maximum.
        files: Additional files of each format, by name: JSON values, or bytes that are written unchanged.
        loading: Lines of Python that load the weights as `model`, for the format `safetensors`.
        needs: A sentence on the requirements of these lines.
        library: The Hub's name of the library that these lines use.
        called: The call of the network in these lines, with braces for its inputs.
        weights: The network whose weights are saved, if `model` wraps it.
        writers: Custom writers of formats: each fills a folder and returns the largest difference from torch.
    """

    model: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    output: str
    pipeline: str
    free: Mapping[int, tuple[str, int, int]] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    loading: Sequence[str] = ()
    needs: str = ""
    library: str = "pytorch"
    called: str = "model.eval()({})"
    weights: nn.Module | None = None
    writers: Mapping[str, Callable[[Exportable, Path], float | None]] = field(default_factory=dict)


def export_run(arguments: Sequence[str], program: str, made: Callable[[Path], tuple[Exportable, Result]]) -> None:
    """`export RUN_DIR --out DIR [--format FORMAT]`.

    Args:
        arguments: The arguments after the command's name.
        program: The command as it is typed, such as `golu-vision export`.
        made: The function that returns the network of a finished run, and its result.

    Raises:
        RequestError: The request is invalid, or a library is missing.
        RunFailure: The exported network computes different outputs, or the export fails.
    """
    folder, flags = parsed_run_flags(ExportFlags, arguments, program)
    export_network(folder, flags, made)


def export_network(folder: Path, flags: ExportFlags, made: Callable[[Path], tuple[Exportable, Result]]) -> None:
    """Export the network of a finished run, as `export_run`, for commands that read the arguments themselves."""
    out = flags.out
    check_output_folder(out, "--out")
    network, result = made(folder)
    _check_finite(network)
    with output_folder(out, "--out") as whole:
        difference = {**_WRITERS, **network.writers}[flags.format](network, whole)
        for name, values in network.files.items():
            (whole / name).write_bytes(
                values if isinstance(values, bytes) else (json.dumps(values, indent=1) + "\n").encode()
            )
        write_card(whole, result, _use(network, flags.format))
    compared = "" if difference is None else f"; largest difference from torch {difference:.2g} of the largest output"
    say(f"exported: {out}{compared}")


# ------------------------------------------------------------------------------------------------------------- formats


def _write_onnx(network: Exportable, folder: Path) -> float:
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  # torch.onnx needs it, and says so in a long traceback
    except ImportError:
        raise RequestError("this needs ONNX's packages: pip install 'golu-core[export]'") from None
    path = folder / "model.onnx"
    try:
        torch.onnx.export(
            network.model,
            network.example,
            path,
            input_names=list(network.inputs),
            output_names=[network.output],
            dynamic_shapes=_dynamic(network),
            dynamo=True,
            external_data=_bytes_of(network.model) > _MOST_IN_ONE_FILE,
            verbose=False,
        )
        remove_origins(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # torch's exporter and the runtime each have their own
        raise RunFailure(f"the network cannot be exported to ONNX: {_first_line(error)}") from error

    def run(*inputs: Tensor) -> Tensor:
        named = {name: tensor.numpy() for name, tensor in zip(network.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run([network.output], named)[0])

    return _compared(network, run)


def _write_pt2(network: Exportable, folder: Path) -> float:
    path = folder / "model.pt2"
    try:
        program = torch.export.export(network.model, network.example, dynamic_shapes=_dynamic(network))
        _remove_stack_traces(program)
        torch.export.save(program, path)
        loaded: Any = torch.export.load(path).module()
    except Exception as error:  # torch.export has many
        raise RunFailure(f"the network cannot be exported by torch.export: {_first_line(error)}") from error
    return _compared(network, loaded)


def _check_finite(network: Exportable) -> None:
    """Run the example once; RunFailure if a layer with weights gives NaN or infinity.

    Outputs alone would not show it: a detector drops what is not finite, and comparisons with NaN hold nowhere.
    """
    layers = [module for module in network.model.modules() if list(module.parameters(recurse=False))]
    with torch.no_grad(), finite_outputs(layers, "the network's outputs"):
        network.model(*network.example)


def remove_origins(path: Path) -> None:
    """Rewrite an ONNX file without the origins of its nodes: lines of code with paths of this machine."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    _remove_notes(model)
    onnx.save(model, path)


def _remove_notes(message: Any) -> None:
    """Clears the free texts of a protocol buffer of ONNX, and of all in it; its opset, names and numbers stay."""
    for part, value in message.ListFields():
        if part.name in _NOTES:
            message.ClearField(part.name)
        elif part.message_type is not None:
            for inner in value if isinstance(value, Iterable) else [value]:
                _remove_notes(inner)


def _remove_stack_traces(program: torch.export.ExportedProgram) -> None:
    """Remove the stack traces of a program's nodes, which contain paths of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in _NOTES_OF_NODES:
                    node.meta.pop(note, None)


def _write_safetensors(network: Exportable, folder: Path) -> None:
    from safetensors.torch import save_model

    save_model(network.weights or network.model, str(folder / "model.safetensors"), metadata={"format": "pt"})


_WRITERS: dict[str, Callable[[Exportable, Path], float | None]] = {
    "onnx": _write_onnx,
    "pt2": _write_pt2,
    "safetensors": _write_safetensors,
}


def _bytes_of(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _dynamic(network: Exportable) -> tuple[dict[int, Any], ...]:
    """Every input may have any number of samples, and as many of what else the network leaves open."""
    sizes = {0: torch.export.Dim("batch", min=1)}
    sizes |= {
        number: torch.export.Dim(name, min=least, max=most) for number, (name, least, most) in network.free.items()
    }
    return tuple(sizes for _ in network.example)


def _compared(network: Exportable, run: Callable[..., Tensor]) -> float:
    """Return the largest difference from torch for one and for three samples, relative to the largest output.

    Raises:
        RunFailure: The difference is larger than rounding.
    """
    largest = 0.0
    for count in (1, 3):
        inputs = tuple(tensor.repeat(2, *[1] * (tensor.ndim - 1))[:count] for tensor in network.example)
        for number, (_, least, _) in network.free.items():
            inputs = tuple(t.narrow(number, 0, max(least, t.shape[number] // count)) for t in inputs)
        with torch.no_grad():
            expected, found = network.model(*inputs), run(*inputs)
        scale = float(expected.abs().max().clamp(min=1e-30))
        difference = float((expected - found).abs().max()) / scale
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailure(f"the exported network differs from torch's by {difference:.2g} of the largest output")
        largest = max(largest, difference)
    return largest


def _first_line(error: BaseException) -> str:
    """Of the error that all began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]


def activation_file(text: str) -> dict[str, bytes]:
    """The file that a person's own activation is of, beside the weights; none for others."""
    code = loaded_code(text)
    return {} if code is None else {ACTIVATION_FILE: code}


def spec_in_export(text: str) -> str:
    """An activation as it is called in the folder of an export, where its file has another name."""
    return text if loaded_code(text) is None else f"./{ACTIVATION_FILE}:{text.partition(':')[2]}"


def _use(network: Exportable, form: str) -> Usage:
    """Return the usage section of the model card for an export format."""
    library = {"onnx": "onnx", "pt2": "pytorch"}.get(form, network.library)
    return Usage(network.pipeline, library, _NEEDS.get(form, network.needs), _loading(network, form))


def _loading(network: Exportable, form: str) -> list[str]:
    """Python that loads the network and calls it; the last line leaves its output in `y`."""
    shapes = [tuple(tensor.shape) for tensor in network.example]
    kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in network.example]
    if form == "onnx":
        inputs = ", ".join(
            f'"{name}": np.zeros({shape}, np.{kind})'
            for name, shape, kind in zip(network.inputs, shapes, kinds, strict=True)
        )
        return [
            "import numpy as np",
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])',
            f"y = session.run(None, {{{inputs}}})[0]",
        ]
    called = ", ".join(f"torch.zeros({shape}, dtype=torch.{kind})" for shape, kind in zip(shapes, kinds, strict=True))
    if form == "pt2":
        return ["import torch", 'model = torch.export.load("model.pt2").module()', f"y = model({called})"]
    return [*network.loading, f"y = {network.called.format(called)}"]
