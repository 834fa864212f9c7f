"""The paper's translator, `transformer-wmt14`, and a small one to try, `transformer-numbers`.

The paper (Das et al., NeurIPS 2025, arXiv 2502.03654) only states that its Transformer was trained with fairseq, and
the authors' public code does not include it. Hyperparameters are therefore those that fairseq publishes for the base
model or, where it publishes none, those of Vaswani et al. (2017); `docs/reproduction.md` lists the source of each.
"""

from __future__ import annotations

from golu_core.training import AdamW, StepWarmup
from golu_core.training.config import InverseSquareRoot, LastAverage, PaperRow, published

from .config import Pairs, Transformer, TranslationConfig

TRANSFORMER_WMT14 = TranslationConfig(
    recipe="transformer-wmt14",
    paper=PaperRow(
        "Vanilla Transformer",
        "WMT14 (EN-DE)",
        "bleu",
        60_915_712,
        {"bleu": published("28.33±0.14 28.20±0.04 28.34±0.08 28.31±0.10 28.44±0.15")},
    ),
    model=Transformer(),
    data=Pairs(name="wmt14-en-de", bundle_tokens=4096, train_pairs=4_508_785, test_pairs=3_003),
    optim=AdamW(lr=7e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0),
    schedule=InverseSquareRoot(warmup=StepWarmup(steps=4000, start_lr=1e-7)),
    average=LastAverage(count=5, every=1500),
    label_smoothing=0.1,
    steps=100_000,
    batch_size=8,
    micro_batch_size=1,
    eval_every=5_000,
    mixed_precision="fp16",
)
"""Bundles: 8 of at most 4,096 subwords on either side, about 25,000 target subwords a step. Peak rate, bundles and the
warm-up's first rate are fairseq's (`examples/scaling_nmt`, `examples/translation`); steps, average and search are of
Vaswani et al. Other published settings: `--optim.lr 5e-4 --data.bundle-tokens 3584` (Ott et al., 2018),
`--optim.eps 1e-9` (Vaswani et al.)."""

TRANSFORMER_NUMBERS = TranslationConfig(
    recipe="transformer-numbers",
    paper=PaperRow("Transformer (small)", "number words (EN-DE)", "bleu", 966_656),
    model=Transformer(layers=2, heads=4, width=128, feed_forward=512, longest=128, vocabulary=320, dropout=0.0),
    data=Pairs(name="numbers-en-de", bundle_tokens=1024),
    optim=AdamW(lr=2e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0),
    schedule=InverseSquareRoot(warmup=StepWarmup(steps=200, start_lr=1e-7)),
    average=LastAverage(count=5, every=50),
    label_smoothing=0.1,
    steps=800,
    batch_size=2,
    micro_batch_size=1,
    eval_every=200,
    eval_sentences=100,
)
"""Amounts of money in words, which need no download; about two minutes on two CPU cores."""

RECIPES: dict[str, TranslationConfig] = {recipe.recipe: recipe for recipe in (TRANSFORMER_NUMBERS, TRANSFORMER_WMT14)}
