"""The paper's language models, one recipe per row, and two small ones to try: `babygpt-pydocs` and `babygpt-text`.

Hyperparameters are those of the GoLU paper (Das et al., NeurIPS 2025, arXiv 2502.03654) and the authors' public code,
which is based on nanoGPT. Published results are means over three seeds.
"""

from __future__ import annotations

from dataclasses import replace

from golu_core.training import AdamW, Cosine, StepWarmup
from golu_core.training.config import PaperRow, PublishedAt, pictured, published

from .config import Data, LmConfig, Model


def _cosine(final_lr: float, warmup_steps: int) -> Cosine:
    """nanoGPT's schedule: linear warmup from 0, then half a cosine down to `final_lr` at the last step."""
    return Cosine(final_lr=final_lr, per="step", warmup=StepWarmup(steps=warmup_steps))


def _adamw(lr: float, second_beta: float) -> AdamW:
    """nanoGPT's optimizer: weight decay on matrices, including embeddings."""
    return AdamW(lr=lr, betas=(0.9, second_beta), weight_decay=0.1, decay="matrices")


def _row(
    model: str, dataset: str, size: int, perplexity: str, token_accuracy: str, further: tuple[PublishedAt, ...] = ()
) -> PaperRow:
    results = {"perplexity": published(perplexity), "token_accuracy": published(token_accuracy)}
    return PaperRow(model, dataset, "perplexity", size, results, further=further)


BABYGPT_TINYSTORIES = LmConfig(
    recipe="babygpt-tinystories",
    paper=_row(
        "babyGPT",
        "TinyStories",
        30_331_776,
        perplexity="4.519±0.006 4.462±0.005 4.535±0.004 4.539±0.007 4.444±0.005",
        token_accuracy="61.243±0.030 61.465±0.034 61.178±0.032 61.135±0.036 61.545±0.029",
        further=(PublishedAt(results={"token_accuracy": pictured("61.24 61.24 59.86 61.46 61.18 61.13 61.55")}),),
    ),
    model=Model(layers=6, heads=6, width=384, context=1024, dropout=0.2, bias=False),
    data=Data(name="tinystories", train_documents=2_119_719, test_documents=21_990),
    optim=_adamw(1e-3, 0.99),
    schedule=_cosine(1e-4, 100),
    steps=10_000,
    batch_size=640,
    micro_batch_size=16,
    eval_every=250,
    eval_sequences=200 * 16,
    clip=1.0,
    mixed_precision="bf16",
)
"""Context 1024 as the paper says; the public code has 256 (`--model.context 256`). Sequences: 16 x 40 a step, and 200
random batches of 16 in an evaluation."""

GPT2S_OPENWEBTEXT = LmConfig(
    recipe="gpt2s-openwebtext",
    paper=_row(
        "GPT2-S",
        "OpenWebText",
        124_373_760,
        perplexity="17.845±0.078 17.525±0.015 17.785±0.026 17.797±0.086 17.297±0.023",
        token_accuracy="44.059±0.079 44.262±0.042 44.155±0.025 44.104±0.081 44.413±0.023",
    ),
    model=Model(layers=12, heads=12, width=768, context=1024, dropout=0.0, bias=False),
    data=Data(name="openwebtext", train_documents=8_009_762, test_documents=4_007),
    optim=_adamw(6e-4, 0.95),
    schedule=_cosine(6e-5, 2_000),
    steps=600_000,
    batch_size=480,
    micro_batch_size=12,
    eval_every=1_000,
    eval_sequences=200 * 12,
    clip=1.0,
    mixed_precision="bf16",
)
"""Sequences: 12 x 40 a step, 491,520 tokens."""

BABYGPT_PYDOCS = LmConfig(
    recipe="babygpt-pydocs",
    paper=PaperRow("babyGPT (small)", "Python's language reference", "perplexity", 971_712),
    model=Model(layers=2, heads=6, width=192, context=128, vocabulary=320, dropout=0.0, bias=False),
    data=Data(name="pydocs", tokenizer="bytes"),
    optim=_adamw(3e-3, 0.99),
    schedule=_cosine(3e-4, 50),
    steps=1_800,
    batch_size=8,
    micro_batch_size=8,
    eval_every=600,
    eval_sequences=128,
    clip=1.0,
)
"""Real text that needs no download; bytes as tokens. About two minutes on two CPU cores."""

BABYGPT_TEXT = LmConfig(
    recipe="babygpt-text",
    paper=PaperRow("babyGPT", "a text file of yours", "perplexity", 10_843_008),
    model=Model(layers=6, heads=6, width=384, context=256, vocabulary=320, dropout=0.2, bias=False),
    data=Data(name="text", tokenizer="bytes"),
    optim=_adamw(1e-3, 0.99),
    schedule=_cosine(1e-4, 100),
    steps=5_000,
    batch_size=64,
    micro_batch_size=64,
    eval_every=250,
    eval_sequences=200 * 64,
    clip=1.0,
)
"""nanoGPT's `train_shakespeare_char`, on bytes, for any text: `--data.text FILE`."""

TEXT = replace(BABYGPT_TEXT, recipe="text")
"""Any text, `--data.text FILE`; `auto_recipe` chooses the sizes and the length from how much there is."""

RECIPES: dict[str, LmConfig] = {
    recipe.recipe: recipe for recipe in (BABYGPT_PYDOCS, TEXT, BABYGPT_TEXT, BABYGPT_TINYSTORIES, GPT2S_OPENWEBTEXT)
}
