"""The interface of language models to golu-core and its tools."""

from __future__ import annotations

from golu_core.training import Command, Metric, Task

from .config import LmConfig
from .recipes import RECIPES

TASK: Task[LmConfig] = Task(
    name="lm",
    title="Language models",
    package="golu_lm",
    recipes=RECIPES,
    metrics={
        "perplexity": Metric("perplexity", 3, False),
        "token_accuracy": Metric("token accuracy (%)", 3, True, secondary=True),
        "bits_per_byte": Metric("bits per byte", 4, False),
        "loss": Metric("loss", 5, False),
    },
    unit="tokens/s",
    outputs=("samples/generated.txt",),
    train="golu_lm.train:train",
    evaluate="golu_lm.evaluate:evaluate_run",
    commands={
        "prepare": Command(
            "tokenize a data set or a file",
            "golu_lm.prepare:prepare_command",
            "DATASET [flags]",
            "golu_lm.prepare:PrepareFlags",
        ),
        "generate": Command(
            "generate text with a finished run",
            "golu_lm.generate:generate_command",
            "RUN_DIR [flags]",
            "golu_lm.generate:GenerateFlags",
        ),
        "export": Command(
            "export a finished run's model for transformers, ONNX Runtime, or torch.export",
            "golu_lm.export:export_command",
            "RUN_DIR [flags]",
            "golu_core.training.export.exporting:ExportFlags",
        ),
    },
    order=2,
    has_holdout=True,
    analysis_model="golu_lm.analysis:analysis_model",
    timing_model="golu_lm.analysis:timing_model",
    own_data={"text": "golu_lm.auto_recipe:fit_text"},
    moved={"translate": "golu-translate translate", "prepare-pairs": "golu-translate prepare"},
)
