"""`golu-lm export`: export a model for transformers, ONNX Runtime, or torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from golu_core.training import FinishedRun
from golu_core.training.export import Exportable, ExportFlags, export_network
from golu_core.training.messages import complain
from golu_core.training.runs import Result
from golu_core.training.tasks import parsed_run_flags

from .config import LmConfig
from .hugging_face import export_to_hugging_face
from .model import GPT


def export_command(arguments: Sequence[str]) -> None:
    """Run `golu-lm export RUN_DIR --out DIR [--format onnx|pt2|safetensors]`.

    `safetensors` is transformers' own format. `golu-lm export RUN_DIR DIR`, which wrote that format, still works for
    one minor version.

    Raises:
        RequestError: The request is invalid, or a library is not installed.
        RunFailure: The exported network's outputs differ, or the export fails.
    """
    if len(arguments) > 1 and not any(word.startswith("-") for word in arguments[:2]):
        complain(
            "golu-lm: export RUN_DIR DIR is now export RUN_DIR --out DIR --format safetensors, "
            "and the old form will be gone in the next version"
        )
        arguments = [arguments[0], "--out", arguments[1], "--format", "safetensors", *arguments[2:]]
    folder, flags = parsed_run_flags(ExportFlags, arguments, "golu-lm export")
    if flags.format == "safetensors":
        export_to_hugging_face(folder, flags.out)
    else:
        export_network(folder, flags, _of_run)


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
