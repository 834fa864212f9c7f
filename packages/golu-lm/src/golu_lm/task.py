"""What golu-core and its tools need to know of language models and translators."""

from __future__ import annotations

from typing import Any

from golu_core.training import Command, Metric, Task

from .recipes import RECIPES

TASK: Task[Any] = Task(
    name="lm",
    title="Language models and translation",
    package="golu_lm",
    recipes=RECIPES,
    metrics={
        "perplexity": Metric("perplexity", 3, False),
        "token_accuracy": Metric("token accuracy (%)", 3, True, secondary=True),
        "bleu": Metric("BLEU", 2, True),
        "bleu_tokenized": Metric("BLEU of tokens", 2, True, secondary=True),
        "bleu_compound": Metric("BLEU of tokens, compounds split", 2, True, secondary=True),
        "chrf": Metric("chrF", 2, True, secondary=True),
        "bits_per_byte": Metric("bits per byte", 4, False),
        "loss": Metric("loss", 5, False),
    },
    unit="tokens/s",
    outputs=("samples/generated.txt", "samples/translations.txt", "subwords.json"),
    train="golu_lm.families:train",
    evaluate="golu_lm.families:evaluate",
    evaluation_flags="golu_lm.translation.flags:TranslationEvaluationFlags",
    commands={
        "prepare": Command(
            "tokenize a data set or a file; pairs of sentences as prepare-pairs does",
            "golu_lm.prepare:prepare_command",
            "DATASET [flags]",
            "golu_lm.prepare:PrepareFlags",
        ),
        "prepare-pairs": Command(
            "cut pairs of sentences into subwords: wmt14, or a file or folder",
            "golu_lm.translation.prepare_command:prepare_pairs_command",
            "DATASET [flags]",
            "golu_lm.translation.prepare_command:PairFlags",
        ),
        "generate": Command(
            "text from a finished run",
            "golu_lm.generate:generate_command",
            "RUN_DIR [flags]",
            "golu_lm.generate:GenerateFlags",
        ),
        "translate": Command(
            "translations by a finished run",
            "golu_lm.translation.translate:translate_command",
            "RUN_DIR [FILE|-] [flags]",
            "golu_lm.translation.translate:TranslateFlags",
        ),
        "export": Command(
            "a finished run's network for transformers, ONNX Runtime or torch.export",
            "golu_lm.export:export_command",
            "RUN_DIR [flags]",
            "golu_core.training.export.exporting:ExportFlags",
        ),
    },
    order=2,
    probe="golu_lm.families:probe",
    workload="golu_lm.families:workload",
    own_data={"text": "golu_lm.own_text:fit_text"},
)
