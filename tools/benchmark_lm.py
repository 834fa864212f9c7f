"""golu-lm against a bare loop in nanoGPT's style, and its `prepare` against tiktoken alone."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_lm.config import LmConfig, Model
from measuring import Row, interleaved, peak_resident_mib, seconds_of


@dataclass(frozen=True)
class Size:
    """What is trained: a model, sequences of a step, and in which precision."""

    name: str
    model: Model
    batch: int
    mixed_precision: str = "no"
    compile: bool = False
    rounds: int = 15


_BYTES = Model(layers=2, heads=6, width=192, context=128, vocabulary=320, dropout=0.0)
_BABY = Model(layers=6, heads=6, width=384, context=256, vocabulary=50_304, dropout=0.0)
_GPT2S = Model(layers=12, heads=12, width=768, context=1024, vocabulary=50_304, dropout=0.0)
_CPU_SIZES = [Size("babyGPT, 8 x 256", _BABY, 8), Size("bytes, 8 x 128", _BYTES, 8, rounds=60)]
_CPU_MEMORY = [*_CPU_SIZES, Size("GPT2-S, 2 x 1024", _GPT2S, 2)]
_GPU_SIZES = [
    Size("GPT2-S, 12 x 1024, bf16", _GPT2S, 12, "bf16", rounds=30),
    Size("GPT2-S, 12 x 1024, bf16, compiled", _GPT2S, 12, "bf16", compile=True, rounds=30),
]


class BareBlock(nn.Module):
    """A transformer layer as nanoGPT writes it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attention, self.projection = (nn.Linear(width, n * width, bias=False) for n in (3, 1))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        n, t, c = x.shape
        parts = self.attention(self.norms[0](x)).split(c, dim=2)
        q, k, v = (part.view(n, t, self.heads, c // self.heads).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, c)
        x = x + self.projection(y)
        residual: Tensor = self.mlp(self.norms[1](x))
        return x + residual


class BareGpt(nn.Module):
    """The model as nanoGPT writes it: all logits, then their cross-entropy."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.tokens = nn.Embedding(model.vocabulary, model.width)
        self.positions = nn.Embedding(model.context, model.width)
        self.blocks = nn.Sequential(*(BareBlock(model.width, model.heads) for _ in range(model.layers)))
        self.norm = nn.LayerNorm(model.width, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of (N, T) tokens."""
        hidden = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        logits = F.linear(self.norm(self.blocks(hidden)), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def bare_loop(size: Size, folder: Path) -> Iterator[None]:
    """nanoGPT's loop."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = BareGpt(size.model).to(device)
    if size.compile:
        model.compile()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=device == "cuda")
    context = size.model.context
    autocast = torch.autocast(device, torch.bfloat16) if size.mixed_precision == "bf16" else nullcontext()
    while True:
        data = numpy.memmap(folder / "data" / "bench" / "train.bin", dtype=numpy.uint16, mode="r")
        places = torch.randint(len(data) - context, (size.batch,))
        x, y = (
            torch.stack([torch.from_numpy(data[p + k : p + k + context].astype(numpy.int64)) for p in places.tolist()])
            for k in (0, 1)
        )
        if device == "cuda":
            x, y = (part.pin_memory().to(device, non_blocking=True) for part in (x, y))
        with autocast:
            loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        yield


def our_loop(size: Size, folder: Path) -> Iterator[None]:
    """golu-lm's loop, with GELU as in the other."""
    from golu_core.training.config.optim import build_optimizer
    from golu_core.training.loop.run import Run
    from golu_lm.data import TokenWindows, WindowOrder, load_data
    from golu_lm.model import build_model
    from golu_lm.recipes import RECIPES
    from golu_lm.task import TASK

    recipe = RECIPES["gpt2s-openwebtext"]
    config: LmConfig = replace(
        recipe,
        activation="gelu",
        model=size.model,
        data=replace(recipe.data, name="bench", tokenizer="none"),
        data_dir=folder / "data",
        output_dir=folder / f"runs-{time.monotonic_ns()}",
        batch_size=size.batch,
        micro_batch_size=size.batch,
        mixed_precision="bf16" if size.mixed_precision == "bf16" else "no",
        compile=size.compile,
        log_every=10**9,
        num_workers=0,
        clip=1.0,
    )
    data = load_data(config)
    with Run(config, TASK) as run:
        model = build_model(config)[0].to(run.device)
        optimizer = build_optimizer(model, config.optim, run.device)
        order = WindowOrder(len(data.train), size.model.context, config.batch_size, 0, 10**9)
        windows = TokenWindows(data.train, size.model.context)
        prepared = run.prepare(model, optimizer, windows, order, inputs={"data": data.fingerprint})
        prepared.train()
        for micro_batch in run.micro_batches():
            tokens = micro_batch.batch.tokens.to(run.device, non_blocking=True)
            run.backward(micro_batch, prepared(tokens[:, :-1], tokens[:, 1:]))
            if run.device.type == "cuda":
                torch.cuda.synchronize()
            yield


_LOOPS = {"golu-lm": our_loop, "bare nanoGPT-style loop": bare_loop}


def training_rows(compiled: bool) -> list[Row]:
    """Tokens a second of both loops taking turns, and peak memory of three steps, each loop in a process of its own."""
    on_gpu = torch.cuda.is_available()
    rows: list[Row] = []
    on_this_gpu = [size for size in _GPU_SIZES if compiled or not size.compile]
    for size in on_this_gpu if on_gpu else _CPU_SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = _token_files(Path(name), size.model.vocabulary)
            loops = {loop: make(size, folder) for loop, make in _LOOPS.items()}
            tasks: dict[str, Any] = {loop: partial(next, steps) for loop, steps in loops.items()}
            times = interleaved(tasks, size.rounds, 1)
        tokens = size.batch * size.model.context
        speeds = {loop: tokens / statistics.median(values) for loop, values in times.items()}
        for loop, speed in speeds.items():
            row: Row = {"size": size.name, "loop": loop, "tokens_per_second": speed}
            row["of_the_bare_loop"] = speed / speeds["bare nanoGPT-style loop"]
            rows.append(row | (_utilization(size, speed) if on_gpu else {}))
    for size in on_this_gpu if on_gpu else _CPU_MEMORY:
        for loop in _LOOPS:
            rows.append({"size": size.name, "loop": loop, "peak_memory_mib": _in_new_process(size, loop)})
    return rows


def _utilization(size: Size, tokens_per_second: float) -> Row:
    from golu_lm.model import GPT, flops_per_token
    from golu_lm.utilization import device_peak

    with torch.device("meta"):
        flops = flops_per_token(GPT(size.model, "gelu"))
    peak = device_peak(torch.device("cuda"), size.mixed_precision)
    return {"model_flops_utilization": tokens_per_second * flops / peak.flops}


def _token_files(folder: Path, vocabulary: int) -> Path:
    place = folder / "data" / "bench"
    place.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for split, count in (("train", 2_000_000), ("test", 10_000)):
        random.integers(0, vocabulary, count, dtype=numpy.uint16).tofile(place / f"{split}.bin")
    return folder


def _in_new_process(size: Size, loop: str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (size, loop))


def _peak_memory(size: Size, loop: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        steps = _LOOPS[loop](size, _token_files(Path(name), size.model.vocabulary))
        for _ in range(3):
            next(steps)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_mib()


def prepare_rows(vocab_file: Path | None, megabytes: int = 1000) -> list[Row]:
    """Seconds of `golu-lm prepare` for a text file and of tiktoken's batch call on the same text, and peak memory.

    tiktoken's call is timed on pieces of 16 MB that are in memory already, and writes nothing.
    """
    from golu_lm.corpora import python_docs
    from golu_lm.prepare import prepare
    from golu_lm.text_files import TextCorpus
    from golu_lm.tokenizers import Gpt2Tokenizer

    tokenizer = Gpt2Tokenizer(vocab_file)
    topics = [text for split in python_docs().splits.values() for text in split]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "text.txt"
        with path.open("w", encoding="utf-8") as file:
            for number in range(megabytes * 10**6):
                if file.tell() >= megabytes * 10**6:
                    break
                file.write(f"{number} {topics[number % len(topics)]}")
        ours, tiktokens = [], []
        lines = [piece.text for piece in TextCorpus([path], test_size=0.1).pieces("train", 0)][:16]
        size = sum(len(text.encode()) for text in lines) / 1e6
        small = Path(name) / "small.txt"
        small.write_text("".join(lines), encoding="utf-8")
        for turn in range(7):
            tiktokens.append(seconds_of(lambda: tokenizer.encoding.encode_ordinary_batch(lines, num_threads=threads)))
            ours.append(
                seconds_of(
                    partial(prepare, TextCorpus([small], test_size=0.1), Path(name) / str(turn), tokenizer, threads)
                )
            )
        speeds = {"golu-lm prepare": size / statistics.median(ours), "tiktoken": size / statistics.median(tiktokens)}
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            whole, memory = pool.apply(_prepare_whole, (path, Path(name) / "whole", vocab_file, threads))
    rows: list[Row] = [
        {"what": what, "megabytes_per_second": speed, "of_tiktoken": speed / speeds["tiktoken"]}
        for what, speed in speeds.items()
    ]
    rows.append({"what": f"golu-lm prepare, {megabytes} MB file: seconds", "megabytes_per_second": megabytes / whole})
    rows.append({"what": f"golu-lm prepare, {megabytes} MB file", "peak_memory_mib": memory})
    return rows


def _prepare_whole(path: Path, out: Path, vocab_file: Path | None, threads: int) -> tuple[float, float]:
    from golu_lm.prepare import prepare
    from golu_lm.text_files import TextCorpus
    from golu_lm.tokenizers import Gpt2Tokenizer

    tokenizer = Gpt2Tokenizer(vocab_file)
    seconds = seconds_of(lambda: prepare(TextCorpus([path], test_size=0.1), out, tokenizer, threads))
    return seconds, peak_resident_mib()
