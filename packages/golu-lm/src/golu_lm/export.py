"""`golu-lm export`: a model for transformers, ONNX Runtime or torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from golu_core.training import FinishedRun, RequestError
from golu_core.training.export import Exportable, ExportFlags, export_run
from golu_core.training.runs import Result
from golu_core.training.tasks import parsed_flags, run_directory

from .config import LmConfig
from .families import is_translator
from .hugging_face import export_to_hugging_face
from .model import GPT

_USAGE = "golu-lm export RUN_DIR"


def export_command(arguments: Sequence[str]) -> None:
    """`golu-lm export RUN_DIR --out DIR [--format onnx|pt2|safetensors]`, or `golu-lm export RUN_DIR DIR`.

    The format `safetensors`, and that of the second form, is transformers' own.

    Raises:
        RequestError: the request is wrong, or a library is missing.
        RunFailure: the exported network gives other numbers, or cannot be made.
    """
    if len(arguments) == 2 and not any(argument.startswith("-") for argument in arguments):
        export_to_hugging_face(Path(arguments[0]), Path(arguments[1]))
        return
    folder, rest = run_directory(arguments, _USAGE)
    flags = parsed_flags(ExportFlags, rest, _USAGE)
    if flags.format == "safetensors":
        export_to_hugging_face(folder, flags.out)
    elif is_translator(folder):
        raise RequestError("a translator is a network and a search, which only --format safetensors keeps together")
    else:
        export_run(arguments, _USAGE, _of_run)


def _of_run(folder: Path) -> tuple[Exportable, Result]:
    finished = FinishedRun.at(folder, LmConfig)
    config, sizes = finished.config, finished.config.model
    model = GPT(sizes, config.activation)
    finished.load_weights(model)
    tokens = torch.randint(sizes.vocabulary, (2, sizes.context), generator=torch.Generator().manual_seed(0))
    network = Exportable(
        model=model.eval(),
        example=(tokens,),
        inputs=("tokens",),
        output="logits",
        pipeline="text-generation",
        free={1: ("length", 1, sizes.context)},
        files={
            "tokens.json": {
                "tokenizer": config.data.tokenizer,
                "vocabulary": sizes.vocabulary,
                "context": sizes.context,
            }
        },
    )
    return network, finished.result
