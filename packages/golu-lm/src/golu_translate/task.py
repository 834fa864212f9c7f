"""The interface of translators to golu-core and its tools."""

from __future__ import annotations

from golu_core.training import Command, Metric, Task

from .config import TranslationConfig
from .recipes import RECIPES

TASK: Task[TranslationConfig] = Task(
    name="translation",
    title="Translation",
    package="golu_translate",
    recipes=RECIPES,
    metrics={
        "bleu": Metric("BLEU", 2, True),
        "bleu_tokenized": Metric("BLEU of tokens", 2, True, secondary=True),
        "bleu_compound": Metric("BLEU of tokens, compounds split", 2, True, secondary=True),
        "chrf": Metric("chrF", 2, True, secondary=True),
        "perplexity": Metric("perplexity", 3, False),
        "token_accuracy": Metric("token accuracy (%)", 3, True, secondary=True),
        "loss": Metric("loss", 5, False),
    },
    unit="tokens/s",
    outputs=("samples/translations.txt", "subwords.json"),
    train="golu_translate.train:train",
    evaluate="golu_translate.evaluate:evaluate_run",
    evaluation_flags="golu_translate.evaluate:TranslationEvaluationFlags",
    commands={
        "prepare": Command(
            "tokenize pairs of sentences: wmt14, or a file or folder",
            "golu_translate.prepare:prepare_command",
            "DATASET [flags]",
            "golu_translate.prepare:PrepareFlags",
        ),
        "translate": Command(
            "translate text with a finished run",
            "golu_translate.translate:translate_command",
            "RUN_DIR [FILE|-] [flags]",
            "golu_translate.translate:TranslateFlags",
        ),
        "export": Command(
            "export a finished run's model and tokenizer for transformers",
            "golu_translate.export:export_command",
            "RUN_DIR [flags]",
            "golu_translate.export:TranslatorExportFlags",
        ),
    },
    order=2,
    has_holdout=True,
    timing_model="golu_translate.analysis:timing_model",
    distribution="golu-lm",
    former_name="lm",
)
