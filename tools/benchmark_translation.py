"""golu-lm's translators against a bare loop over `torch.nn.Transformer`, and beam search against Hugging Face's."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core.training.data.orders import SampleKey
from golu_translate.bundles import BundleOrder, TrainingBundles, bundles_of, padded, padding_share
from golu_translate.config import BeamSearch, Transformer, TranslationConfig
from golu_translate.data import load_pairs
from golu_translate.model import Translator
from golu_translate.number_words import amounts
from golu_translate.pairs_folder import Cutting, prepare_pairs
from golu_translate.parallel_text import Languages, listed
from golu_translate.recipes import RECIPES
from golu_translate.search import beam_search
from golu_translate.vocabulary import PAD
from measuring import Row, interleaved


@dataclass(frozen=True)
class Size:
    """What is trained: a model, and bundles of a step."""

    name: str
    model: Transformer
    bundle_tokens: int
    rounds: int


_SMALL = Transformer(layers=2, heads=4, width=128, feed_forward=512, longest=128, vocabulary=320, dropout=0.0)
_BASE = Transformer(longest=128, dropout=0.0)
_CPU_SIZES = [Size("transformer-numbers", _SMALL, 1024, 60), Size("base Transformer", _BASE, 512, 8)]
_GPU_SIZES = [Size("base Transformer", _BASE, 4096, 60)]


class BareTranslator(nn.Module):
    """torch's own Transformer with the embeddings that it leaves out."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.embedding = nn.Embedding(model.vocabulary, model.width, padding_idx=PAD)
        self.positions = nn.Parameter(torch.zeros(model.longest, model.width), requires_grad=False)
        self.scale = model.width**0.5
        self.transformer = nn.Transformer(
            model.width, model.heads, model.layers, model.layers, model.feed_forward, 0.0, "relu", batch_first=True
        )
        self.transformer.encoder.norm = self.transformer.decoder.norm = None  # which the paper has not

    def forward(self, source: Tensor, previous: Tensor) -> Tensor:
        """Logits (N, T, V) of (N, S) sources and (N, T) texts."""
        x, y = (self.embedding(t) * self.scale + self.positions[: t.shape[1]] for t in (source, previous))
        padding = source == PAD
        mask = nn.Transformer.generate_square_subsequent_mask(previous.shape[1], device=source.device)
        hidden = self.transformer(
            x, y, tgt_mask=mask, src_key_padding_mask=padding, memory_key_padding_mask=padding, tgt_is_causal=True
        )
        return F.linear(hidden, self.embedding.weight)


def _config(size: Size, folder: Path) -> TranslationConfig:
    recipe = RECIPES["transformer-numbers"]
    assert isinstance(recipe, TranslationConfig)
    return replace(
        recipe,
        activation="relu",
        model=size.model,
        data=replace(recipe.data, bundle_tokens=size.bundle_tokens),
        data_dir=folder / "data",
        output_dir=folder / f"runs-{time.monotonic_ns()}",
        average=None,
        log_every=10**9,
        eval_every=10**9,
        num_workers=0,
    )


def our_loop(size: Size, folder: Path) -> Iterator[None]:
    """golu-translate's loop, with ReLU as in the other."""
    from golu_core.training.config.optim import build_optimizer
    from golu_core.training.loop.run import Run
    from golu_translate.model import build_model
    from golu_translate.task import TASK

    config = _config(size, folder)
    data = load_pairs(config)
    with Run(config, TASK) as run:
        model = build_model(config)[0].to(run.device)
        optimizer = build_optimizer(model, config.optim, run.device)
        bundles = bundles_of(data.train, size.bundle_tokens, 0)
        order = BundleOrder(len(bundles), config.batch_size, 0, 10**9)
        dataset = TrainingBundles(data.train, bundles, order)
        prepared = run.prepare(model, optimizer, dataset, order, inputs={"data": data.fingerprint})
        prepared.train()
        for micro_batch in run.micro_batches():
            source, previous, targets, places, scale = micro_batch.batch.to(run.device)
            run.backward(micro_batch, prepared(source, previous, targets, places, smoothing=0.1) * scale)
            if micro_batch.ends_step:
                if run.device.type == "cuda":
                    torch.cuda.synchronize()
                yield


def bare_loop(size: Size, folder: Path) -> Iterator[None]:
    """The same bundles, padded beforehand, through torch's own Transformer."""
    config = _config(size, folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_pairs(config)
    bundles = bundles_of(data.train, size.bundle_tokens, 0)
    order = BundleOrder(len(bundles), config.batch_size, 0, 10**9)
    dataset = TrainingBundles(data.train, bundles, order)
    model = BareTranslator(size.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    for step in range(10**9):
        for number in order.step_bundles(step):
            batch = dataset.__getitems__([SampleKey(number, 0, step * config.batch_size)])
            source, previous, targets, places, scale = batch.to(torch.device(device))
            logits = model(source, previous).flatten(0, 1)[places]
            total = F.cross_entropy(logits.float(), targets, label_smoothing=0.1, reduction="sum")
            (total * scale / config.batch_size).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        yield


_LOOPS: dict[str, Callable[[Size, Path], Iterator[None]]] = {
    "golu-lm": our_loop,
    "bare loop, torch.nn.Transformer": bare_loop,
}


def translation_rows() -> list[Row]:
    """Target subwords a second of both loops taking turns, and sentences a second of both searches."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = amounts(8_000, seed=1)
        splits = {"valid": pairs[:100], "test": pairs[100:300], "train": pairs[300:]}
        place = folder / "data" / "numbers-en-de"
        prepare_pairs(listed(splits, {}), Languages("en", "de"), place, Cutting(vocabulary=320), 1)
        for size in _GPU_SIZES if torch.cuda.is_available() else _CPU_SIZES:
            rows += _training_rows(size, folder)
            rows += _search_rows(size, folder)
    return rows


def _training_rows(size: Size, folder: Path) -> list[Row]:
    data = load_pairs(_config(size, folder))
    bundles = bundles_of(data.train, size.bundle_tokens, 0)
    order = BundleOrder(len(bundles), 2, 0, 10**9)
    step = TrainingBundles(data.train, bundles, order).mean_step
    loops = {loop: make(size, folder) for loop, make in _LOOPS.items()}
    times = interleaved({loop: partial(next, steps) for loop, steps in loops.items()}, size.rounds, 1)
    speeds = {loop: step / statistics.median(values) for loop, values in times.items()}
    bare = speeds["bare loop, torch.nn.Transformer"]
    padding = padding_share(data.train, bundles)
    return [
        {"what": f"training, {size.name}", "by": loop, "per_second": speed, "unit": "target subwords",
         "of_the_other": speed / bare, "padding_share": padding}
        for loop, speed in speeds.items()
    ]  # fmt: skip


def _search_rows(size: Size, folder: Path) -> list[Row]:
    from golu_translate.hugging_face import to_fsmt

    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_pairs(_config(size, folder))
    torch.manual_seed(0)
    model = Translator(size.model, "relu").to(device).eval()
    search = BeamSearch(beam=4, length_penalty=0.6, longer_by=10)
    theirs = to_fsmt(model, "relu", Languages("en", "de"), search).to(device)
    count = 64 if size.model is _SMALL or device == "cuda" else 16
    numbers = sorted(range(len(data.test.source)), key=lambda n: int(data.test.source.lengths[n]))[:count]
    sources = padded([data.test.source.sentence(number) for number in numbers]).to(device)

    def ours() -> None:
        beam_search(model, sources, search)

    def generate() -> None:
        theirs.generate(
            sources, attention_mask=(sources != PAD).long(), num_beams=4, length_penalty=0.6,
            max_length=sources.shape[1] + 11, early_stopping=False,
        )  # fmt: skip

    times = interleaved({"golu-lm": ours, "Hugging Face's generate": generate}, 5, 1)
    speeds = {name: count / statistics.median(values) for name, values in times.items()}
    return [
        {"what": f"beam search, {size.name}", "by": name, "per_second": speed, "unit": "sentences",
         "of_the_other": speed / speeds["Hugging Face's generate"]}
        for name, speed in speeds.items()
    ]  # fmt: skip
