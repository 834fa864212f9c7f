"""golu-lm as a program, flags that make its `babygpt-pydocs` a matter of seconds, and the vocabulary of GPT-2."""

import os
from pathlib import Path

import pytest

from command_line import Program

LM = Program("golu_lm")
MODEL = ["--model.layers", "2", "--model.heads", "2", "--model.width", "32", "--model.context", "32"]
SHORT = ["--steps", "12", "--eval-every", "4", "--eval-sequences", "11", "--sample-tokens", "20"]
TINY = [*MODEL, "--model.dropout", "0.1", *SHORT, "--batch-size", "8", "--log-every", "1", "--checkpoint-every", "3"]
FOLDER = Path("runs/lm/babygpt-pydocs/golu/seed0")

_VOCABULARY = Path(os.environ.get("GOLU_GPT2_VOCABULARY", Path(__file__).parents[3] / "shared/data/gpt2.tiktoken"))


def gpt2_vocabulary() -> Path:
    """The GPT-2 vocabulary as a file; skips the test where there is none."""
    if not _VOCABULARY.exists():
        pytest.skip("needs GPT-2's vocabulary: set GOLU_GPT2_VOCABULARY to a .tiktoken file")
    return _VOCABULARY


def shrink(name: str) -> list[str]:
    """Flags that make a recipe a matter of seconds."""
    rest = ["--batch-size", "4", "--micro-batch-size", "2", "--mixed-precision", "no", "--schedule.warmup.steps", "2"]
    sizes = ["--steps", "6", "--eval-every", "3", "--eval-sequences", "8", "--sample-tokens", "5"]
    text = ["--data.tokenizer", "bytes", "--model.vocabulary", "320"]
    return [*MODEL, "--model.bias", *text, *sizes, *rest]
