"""How often reports claim what is not there: made-up runs without a difference, through the report's own statistics.

    python tools/simulate_reports.py [--reports 400] [--tuning] [--json FILE]

With --tuning, the settings of each activation are chosen first, fairly and unfairly.
Runs are normal numbers. With families, a recipe's means move by activation too, half of that together with the other
recipes of its family, as those of one network's sizes would: over recipes there still is no difference.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import scipy
from rich.progress import track

from golu_core.studies.reporting.collect import RunResult
from golu_core.studies.reporting.comparison import over_recipes
from golu_core.studies.reporting.paired import paired_comparisons
from golu_core.studies.reporting.summary import Row, rows_of
from golu_core.training.runs.results import PrimaryMetric, Result, SwappedActivations, Throughput
from measuring import markdown

ACTIVATIONS = ("relu", "gelu", "swish", "mish", "golu")
SIZES = ((4, 3), (4, 10), (16, 3), (16, 10))
FAMILIES = (5, 3, 2, 2, 1, 1, 1, 1)
"""Recipes of each family, of 16: about as the paper's."""
_SEED = 0


def simulated_rows(random: numpy.random.Generator, recipes: int, seeds: int, families: tuple[int, ...]) -> list[Row]:
    """Rows of a report in which no activation is better than another.

    Args:
        random: The random generator.
        recipes, seeds: The numbers of recipes and seeds of the report.
        families: recipes of each; empty where only seeds differ.
    """
    shift = numpy.zeros((recipes, len(ACTIVATIONS)))
    names = [f"recipe{number:02d}" for number in range(recipes)]
    if families:
        names = [f"family{number}" for number, size in enumerate(families) for _ in range(size)]
        shared = random.normal(size=(len(families), len(ACTIVATIONS))).repeat(families, axis=0)
        shift = (shared + random.normal(size=shift.shape)) / 2**0.5
    rows = []
    for number, family in enumerate(names):
        values = 70 + shift[number, :, None] + random.normal(size=(len(ACTIVATIONS), seeds))
        runs = [
            _run(f"recipe{number:02d}", name, seed, float(values[place, seed]))
            for place, name in enumerate(ACTIVATIONS)
            for seed in range(seeds)
        ]
        (row,) = rows_of(runs)
        rows.append(replace(row, family=family))
    return rows


def _run(recipe: str, activation: str, seed: int, value: float) -> RunResult:
    result = Result(
        task="simulated",
        recipe=recipe,
        dataset="none",
        model="none",
        activation=activation,
        seed=seed,
        primary_metric=PrimaryMetric("score", value, True),
        metrics={"score": value},
        best={},
        parameters=1,
        steps=1,
        train_seconds=1.0,
        eval_seconds=1.0,
        throughput=Throughput("1/s", 1.0),
        world_size=1,
        data={},
        environment={},
        config_sha256="",
        activations=SwappedActivations(1, []),
    )
    return RunResult(result, Path(recipe, activation, str(seed)), None)


def claims_of(rows: list[Row]) -> dict[str, bool]:
    """What a report says of some rows: a claim over seeds, intervals without 0, a difference over recipes."""
    pairs = [pair for _, found in paired_comparisons(rows, "golu") for pair in found]

    def without_zero(intervals: list[tuple[float, float] | None]) -> bool:
        return any(interval is not None and (interval[0] > 0 or interval[1] < 0) for interval in intervals)

    friedman = over_recipes(rows).friedman
    alone = over_recipes([replace(row, family=row.recipe) for row in rows]).friedman
    return {
        "claim over seeds": any(pair.verdict.startswith(("better", "worse")) for pair in pairs),
        "plain interval without 0": without_zero([pair.interval for pair in pairs]),
        "joint interval without 0": without_zero([pair.together for pair in pairs]),
        "difference over recipes": friedman is not None and friedman.rejects,
        "… if each recipe were a block": alone is not None and alone.rejects,
    }


def table(reports: int) -> list[dict[str, Any]]:
    """Percent of the reports of each size that say each thing."""
    cases = [(*size, ()) for size in SIZES] + [(16, seeds, FAMILIES) for seeds in (3, 10)]
    rows = []
    for recipes, seeds, families in cases:
        random = numpy.random.default_rng((_SEED, recipes, seeds, len(families)))
        counts: dict[str, int] = {}
        for _ in track(range(reports), f"{recipes} recipes, {seeds} seeds", transient=True):
            for name, said in claims_of(simulated_rows(random, recipes, seeds, families)).items():
                counts[name] = counts.get(name, 0) + said
        shown = {name: f"{100 * count / reports:.1f}" for name, count in counts.items()}
        if families:  # recipes differ by themselves there, so that claims over seeds are right
            shown |= dict.fromkeys(list(shown)[:3], "–")
        rows.append({"recipes": recipes, "families": len(families) or recipes, "seeds": seeds, **shown})
    return rows


# --------------------------------------------------------------------------------------------------------------- tuning

_TRIALS, _SEEDS = 9, 12
_RATES = numpy.array([0.0, *numpy.linspace(-1, 1, _TRIALS - 1)])
"""Logarithms of the settings that are tried, less that of the recipe's own setting, which is the first."""
_LOSS = 3.0
"""What a setting ten times off costs, in standard deviations over seeds."""
PROTOCOLS = {
    "12 pilot seeds, one for each seed": "own 12",
    "6 pilot seeds, to which seeds take turns": "own 6",
    "3 pilot seeds, to which seeds take turns": "own 3",
    "6 pilot seeds, one common choice by their median": "common 6",
    "3 pilot seeds, one common choice by their median": "common 3",
    "none tuned; each is best at another setting": "recipe's",
    "GoLU alone tuned, on the test set": "one",
    "each tuned on the test set, by the runs compared": "same runs",
}


def tuned_rows(random: numpy.random.Generator, protocol: str) -> list[Row]:
    """One recipe's row, in which no activation is better than another at its best setting.

    Args:
        random: The source of the numbers.
        protocol: A value of `PROTOCOLS`: how settings are chosen before the activations are compared.
    """
    best = numpy.full(len(ACTIVATIONS), 0.4 if protocol == "one" else 0.0)
    if protocol == "recipe's":
        best = random.uniform(-0.5, 0.5, len(ACTIVATIONS))
    means = -_LOSS * (_RATES - best[:, None]) ** 2
    test = means[..., None] + random.normal(size=(len(ACTIVATIONS), _TRIALS, _SEEDS))
    kind, _, count = protocol.partition(" ")
    if kind in ("own", "common"):
        pilots = means[..., None] + random.normal(size=(len(ACTIVATIONS), _TRIALS, int(count)))
        common = numpy.median(pilots, axis=2).argmax(axis=1)
        by_pilot = pilots.argmax(axis=1)[:, numpy.arange(_SEEDS) % int(count)]
        chosen = by_pilot if kind == "own" else common[:, None].repeat(_SEEDS, axis=1)
    else:
        best_cell = test.mean(axis=2).argmax(axis=1) * (protocol != "recipe's")
        if protocol == "one":
            best_cell[:-1] = 0
        chosen = best_cell[:, None].repeat(_SEEDS, axis=1)
    runs = [
        _run("recipe", name, seed, float(70 + test[place, chosen[place, seed], seed]))
        for place, name in enumerate(ACTIVATIONS)
        for seed in range(_SEEDS)
    ]
    return rows_of(runs)


def tuning_table(reports: int) -> list[dict[str, Any]]:
    """Percent of reports that claim a difference for GoLU, or for it, by how settings were chosen."""
    rows = []
    for title, protocol in PROTOCOLS.items():
        random = numpy.random.default_rng((_SEED, list(PROTOCOLS).index(title)))
        better, any_claim = 0, 0
        for _ in range(reports):
            verdicts = [
                pair.verdict for _, found in paired_comparisons(tuned_rows(random, protocol), "golu") for pair in found
            ]
            better += any(verdict.startswith("better") for verdict in verdicts)
            any_claim += any(verdict.startswith(("better", "worse")) for verdict in verdicts)
        rows.append(
            {
                "settings": title,
                "a claim": f"{100 * any_claim / reports:.1f}",
                "GoLU is better": f"{100 * better / reports:.1f}",
            }
        )
    return rows


def main() -> None:
    """Prints the table, and writes it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=400, help="of each size")
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--tuning", action="store_true", help="choose settings before the comparison")
    flags = parser.parse_args()
    rows = tuning_table(flags.reports) if flags.tuning else table(flags.reports)
    print(markdown(rows))
    if flags.json is not None:
        about = {"reports": flags.reports, "python": platform.python_version(), "scipy": scipy.__version__}
        flags.json.write_text(json.dumps({**about, "percent": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
