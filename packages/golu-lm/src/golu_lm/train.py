"""Trains a language model: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from functools import partial

import torch

from golu_core.training.activations import swapped_for
from golu_core.training.config import limited_steps
from golu_core.training.data import train_loader
from golu_core.training.errors import RequestError
from golu_core.training.fingerprint import tensors_fingerprint
from golu_core.training.optim import build_optimizer
from golu_core.training.ownership import write_text
from golu_core.training.results import SwappedActivations
from golu_core.training.run import Run
from golu_core.training.schedules import learning_rate
from golu_core.training.seeding import seed_global_generators

from .config import LmConfig
from .data import LmData, TokenWindows, WindowOrder, load_data
from .evaluate import OUTPUTS, PRIMARY, UNIT, evaluate_sample, evaluate_whole
from .generate import sample_texts
from .model import GPT, flops_per_token
from .tokenizers import build_tokenizer
from .utilisation import device_peak


def train(config: LmConfig) -> None:
    """Trains a recipe, continues its run, or says that it is finished.

    Raises:
        RequestError: the request is wrong; nothing was written.
        RunFailure: training failed; the message names the last good checkpoint.
        Interrupted: a signal stopped it, and it is saved.
    """
    context = config.model.context
    with Run(config, task="lm", unit=UNIT, primary=PRIMARY, units_per_sample=context, outputs=OUTPUTS) as run:
        if run.already_finished():
            return

        plan = run.plan_batches(config.batch_size, config.max_device_batch)
        model, swapped = build_model(config)
        try:
            with run.accelerator.main_process_first():  # one process tokenises, the others find it
                data = load_data(config)
        except RequestError as error:
            if not config.dry_run or config.check_data:
                raise
            describe(run, None, model, swapped, str(error))
            return
        for difference in data.differences:
            run.warn(difference)
        if config.check_data:
            run.say(f"data: all {len(data.train) + len(data.test):,} tokens are in range")

        if config.dry_run:
            describe(run, data, model, swapped)
            return
        inputs = {"data": data.fingerprint} | (
            {} if config.init_from is None else {"init_from": tensors_fingerprint(model.state_dict())}
        )
        flops = flops_per_token(model)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device)
        tokens_per_step = config.batch_size * context
        steps = total_steps(config)
        prepared, _ = run.prepare(
            model, optimizer, total_steps=steps, inputs=inputs, steps_per_pass=len(data.train) / tokens_per_step
        )
        order = WindowOrder(len(data.train), context, config.batch_size, config.seed, config.eval_every)
        batches = train_loader(TokenWindows(data.train, context), order, plan, run.rank, config.num_workers)
        schedule = partial(learning_rate, config.schedule, config.optim.lr, steps_per_epoch=1, epochs=config.steps)

        for stretch in run.epochs():  # of `eval_every` steps, each with an evaluation and a checkpoint at its end
            prepared.train()
            for batch in run.batches(batches, stretch):
                tokens = batch.tokens.to(run.device, non_blocking=True)
                loss = prepared(tokens[:, :-1], tokens[:, 1:])
                run.step(loss, schedule, clip=config.clip)
            if not run.is_last_epoch:
                run.report(evaluate_sample(run, run.evaluated_model, data))

        # the published numbers rest on random windows; the last ones reported here on the whole split
        sampled = evaluate_sample(run, run.evaluated_model, data)
        metrics = evaluate_whole(run, run.evaluated_model, data)
        metrics |= {f"sampled_{name}": value for name, value in sampled.items()}
        run.report(metrics)
        save_samples(run)
        peak = device_peak(run.device, config.mixed_precision)
        used = flops * run.throughput / (peak.flops * run.world_size)
        run.say(f"model FLOPs utilisation {100 * used:.1f} % of {peak.flops / 1e12:.3g} TFLOP/s ({peak.source})")
        run.finish(
            metrics,
            dataset=data.name,
            model_name="GPT-2",
            data=data.facts,
            swapped=swapped,
            other={"model_flops_utilisation": {"value": used, "peak_flops": peak.flops, "peak_source": peak.source}},
        )


def build_model(config: LmConfig) -> tuple[GPT, SwappedActivations]:
    """The model, its weights a function of the seed alone or from `init_from`, and what became of its activations."""
    seed_global_generators(config.seed, "weights")
    model = GPT(config.model, config.own_activation)
    swapped = swapped_for(model, config.own_activation, config.activation, (torch.zeros(1, 1, dtype=torch.int64),))
    if config.init_from is not None:
        from .hugging_face import load_hugging_face

        load_hugging_face(model, config.init_from)
    return model, swapped


def total_steps(config: LmConfig) -> int:
    """Optimizer steps of the whole run."""
    return limited_steps(config, config.steps)


def save_samples(run: Run[LmConfig]) -> None:
    """Writes generated text, or says why there is none; a sharded model needs all processes for it."""
    config = run.config
    try:
        tokenizer = build_tokenizer(config.data.tokenizer, config.data.vocab_file)
    except RequestError as error:
        run.warn(f"no text is generated: {error}")
        return
    text = sample_texts(run.evaluated_model, config, tokenizer)
    if run.is_main:
        write_text(run.folder / "samples" / "generated.txt", text)


def describe(
    run: Run[LmConfig], data: LmData | None, model: GPT, swapped: SwappedActivations, missing: str = ""
) -> None:
    """Prints what a run of the config would be."""
    config, sizes = run.config, run.config.model
    plan = run.plan_batches(config.batch_size, config.max_device_batch)
    state = f"missing: {missing}" if data is None else f"{len(data.train):,} training, {len(data.test):,} test tokens"
    parameters = sum(p.numel() for p in model.parameters())
    steps, tokens = total_steps(config), config.batch_size * sizes.context
    run.say(f"recipe       {config.recipe}, activation {config.activation}, seed {config.seed}")
    run.say(f"run folder   {run.folder}")
    run.say(f"data         {state}")
    run.say(
        f"model        GPT-2, {sizes.layers} layers, {sizes.heads} heads, width {sizes.width}, "
        f"context {sizes.context:,}, vocabulary {sizes.vocabulary:,}: {parameters:,} parameters"
    )
    run.say(f"activations  {swapped.swapped} {config.own_activation} swapped for {config.activation}")
    for line in swapped.lines():
        run.say(f"             {line}")
    passes = "" if data is None else f", {steps * tokens / len(data.train):.3g} passes over the data"
    run.say(
        f"steps        {steps:,} of {tokens:,} tokens "
        f"({plan.processes} processes x {plan.accumulation} accumulated x {plan.device_size} sequences){passes}"
    )
