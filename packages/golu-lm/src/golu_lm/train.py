"""Train a language model: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from golu_core.training import Processes, Run, build_optimizer, load_checked
from golu_core.training.finetuning import head_of_start, inputs_of_start, measure_start, train_mode
from golu_core.training.storage import write_text

from .config import LmConfig
from .data import LmData, TokenWindows, WindowOrder, load_data
from .evaluate import evaluate_sample, evaluate_whole
from .generate import sample_texts
from .initial_weights import sized_like_source, start_of_run
from .model import GPT, build_model, flops_per_token
from .opening import no_tokens, opening
from .task import TASK
from .tokenizers import build_tokenizer
from .utilization import device_peak

_TEXT = "samples/generated.txt"


def train(config: LmConfig) -> None:
    """Train a recipe, resume its run, or report that it is finished.

    Raises:
        RequestError: The request is invalid; nothing was written.
        RunFailure: Training failed; the message names the last good checkpoint.
        Interrupted: A signal stopped the run, which is saved.
    """
    config = sized_like_source(config)
    context = config.model.context
    with Run(config, TASK) as run:
        if run.report_if_finished():
            return

        model, swapped = build_model(config)
        stand_in = None if config.data.text is not None else partial(no_tokens, config)
        data = run.load(partial(checked_data, config, run.processes), stand_in)
        start = start_of_run(config, model, run.processes)
        inputs = {"data": data.fingerprint} | inputs_of_start(start)
        flops = flops_per_token(model)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device, head_of_start(start))
        order = WindowOrder(len(data.train), context, config.batch_size, config.seed, config.eval_every)
        windows = TokenWindows(data.train, context)
        steps_per_pass = len(data.train) / (config.batch_size * context)
        opened = opening(config, data, model, swapped, start)
        prepared = run.prepare(
            model, optimizer, windows, order, inputs=inputs, opening=opened, steps_per_pass=steps_per_pass
        )
        measure_start(
            run, start, partial(other_model, config), lambda network: evaluate_whole(run.evaluation, network, data)
        )

        for _ in run.epochs():  # `eval_every` steps each, ending with an evaluation and a checkpoint
            train_mode(prepared, config.freeze)
            for micro_batch in run.micro_batches():
                tokens = micro_batch.batch.tokens.to(run.device, non_blocking=True)
                run.backward(micro_batch, prepared(tokens[:, :-1], tokens[:, 1:]))
            metrics = evaluate_sample(run.evaluation, run.evaluated_model, data, run.position.step)
            if run.is_complete:  # the paper evaluates random windows; the final metrics here use the whole split
                sampled = {f"sampled_{name}": value for name, value in metrics.items()}
                metrics = evaluate_whole(run.evaluation, run.evaluated_model, data) | sampled
            run.report(metrics)

        run.finish(
            metrics,
            dataset=data.name,
            model_name="GPT-2",
            data=data.facts,
            swapped=swapped,
            other={"model_flops_utilization": flops_utilization(run, flops)},
            extras={_TEXT: lambda: save_samples(run)},
        )


def other_model(config: LmConfig, activation: str) -> GPT:
    """Build the recipe's network with a different activation, on the CPU."""
    return build_model(replace(config, activation=activation))[0]


def checked_data(config: LmConfig, processes: Processes) -> LmData:
    """Load both splits, tokenized on the first run; raise RequestError if one is missing or malformed."""

    def read_all(data: LmData) -> str:
        return f"all {len(data.train) + len(data.test):,} tokens are in range"

    return load_checked(config, processes, lambda: load_data(config), read_all)


def save_samples(run: Run[LmConfig]) -> None:
    """Write generated text; a sharded model needs all processes. Raise RequestError if the tokenizer is missing."""
    config = run.config
    tokenizer = build_tokenizer(config.data.tokenizer, config.data.vocab_file)
    text = sample_texts(run.evaluated_model, config, tokenizer)
    if run.is_main:
        write_text(run.folder / _TEXT, text)


def flops_utilization(run: Run[LmConfig], flops_per_token: float) -> dict[str, Any]:
    """Print the training's share of the devices' peak FLOP/s, and return it for result.json."""
    peak = device_peak(run.device, run.config.mixed_precision)
    used = flops_per_token * run.log.throughput / (peak.flops * run.processes.count)
    run.processes.say(f"model FLOPs utilization {100 * used:.1f} % of {peak.flops / 1e12:.3g} TFLOP/s ({peak.source})")
    return {"value": used, "peak_flops": peak.flops, "peak_source": peak.source}
