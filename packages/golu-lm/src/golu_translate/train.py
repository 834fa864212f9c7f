"""Train a translator: from a recipe to result.json, top to bottom."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from golu_core.training import Processes, RequestError, Run, build_optimizer, load_checked
from golu_core.training.finetuning import Start, head_of_start, inputs_of_start, measure_start, train_mode
from golu_core.training.storage import regular_json, write_json

from .bundles import BundleOrder, TrainingBundles, bundles_of
from .config import TranslationConfig
from .data import PairData, load_pairs
from .evaluate import SAMPLES_FILE, Evaluated, evaluate_split, save_samples, validated_sentences
from .initial_weights import sized_like_source, start_of_run
from .model import Translator, build_model
from .opening import opening
from .pairs_folder import SUBWORDS_FILE
from .task import TASK


def train(config: TranslationConfig) -> None:
    """Train a recipe, resume its run, or report that it is finished.

    Raises:
        RequestError: The request is invalid; nothing was written.
        RunFailure: Training failed; the message names the last good checkpoint.
        Interrupted: A signal stopped the run, which is saved.
    """
    config = sized_like_source(config)
    with Run(config, TASK) as run:
        if run.report_if_finished():
            return

        model, swapped = build_model(config)
        data = run.load(partial(checked_pairs, config, run.processes))
        start = start_of_run(config, model, run.processes)
        check_subwords(start, data)
        inputs = {"data": data.fingerprint} | inputs_of_start(start)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device, head_of_start(start))
        bundles = bundles_of(data.train, config.data.bundle_tokens, config.seed)
        order = BundleOrder(len(bundles), config.batch_size, config.seed, config.eval_every)
        dataset = TrainingBundles(data.train, bundles, order)
        prepared = run.prepare(
            model,
            optimizer,
            dataset,
            order,
            inputs=inputs,
            opening=opening(config, data, model, swapped, start, dataset),
            average=config.average,
            steps_per_pass=order.steps_per_pass,
            units_per_step=dataset.mean_step,
        )
        measure_start(
            run,
            start,
            partial(other_model, config),
            lambda network: evaluate_split(run.evaluation, network, data, "test").metrics,
        )

        translated = validated_sentences(run.evaluation, data)
        for _ in run.epochs():  # `eval_every` steps each, ending with an evaluation and a checkpoint
            train_mode(prepared, config.freeze)
            for micro_batch in run.micro_batches():
                source, previous, targets, places, scale = micro_batch.batch.to(run.device)
                total = prepared(source, previous, targets, places, smoothing=config.label_smoothing)
                run.backward(micro_batch, total * scale)
            found = evaluate_during_training(run, data)
            run.report(found.metrics)
            run.extra(SAMPLES_FILE, partial(save_samples, run.evaluation, found))

        if run.is_main:
            write_json(run.folder / SUBWORDS_FILE, subwords_of_run(data))
        run.finish(
            found.metrics,
            dataset=data.name,
            model_name="Transformer",
            data=data.facts,
            swapped=swapped,
            other={"signatures": found.signatures, "valid_sentences": translated},
            files=(SUBWORDS_FILE,),
        )


def evaluate_during_training(run: Run[TranslationConfig], data: PairData) -> Evaluated:
    """Return the metrics of the validation split and, at the end, of the test split, which the paper reports."""
    validated = evaluate_split(run.evaluation, run.evaluated_model, data, "valid", sentences=run.config.eval_sentences)
    if not run.is_complete:
        return validated
    found = evaluate_split(run.evaluation, run.evaluated_model, data, "test")
    return replace(found, metrics=found.metrics | {f"valid_{name}": value for name, value in validated.metrics.items()})


def check_subwords(start: Start | None, data: PairData) -> None:
    """Raise RequestError if the run in `--init-from` uses a different tokenization."""
    folder = None if start is None or start.given is None else start.given.folder
    if folder is None:
        return
    try:
        theirs = regular_json(folder / SUBWORDS_FILE)
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder / SUBWORDS_FILE} cannot be read: {error}") from None
    if theirs != json.loads(json.dumps(subwords_of_run(data))):
        raise RequestError(f"--init-from {folder} knows other subwords than {data.name} has")


def subwords_of_run(data: PairData) -> dict[str, Any]:
    """Return all files that `golu-translate translate` needs in addition to the weights."""
    languages = [data.languages.source, data.languages.target]
    return {"languages": languages, "cutting": data.meta["cutting"], **data.codec.subwords.content}


def other_model(config: TranslationConfig, activation: str) -> Translator:
    """Build the recipe's network with a different activation, on the CPU."""
    return build_model(replace(config, activation=activation))[0]


def checked_pairs(config: TranslationConfig, processes: Processes) -> PairData:
    """Load all splits on every process; raise RequestError if one is missing or malformed."""

    def read_all(data: PairData) -> str:
        count = sum(len(split.source) for split in (data.train, data.valid, data.test))
        return f"all {count:,} pairs have the checksums of meta.json"

    return load_checked(config, processes, lambda: load_pairs(config), read_all)
