"""How many seeds a study needs to show a difference of a given size, before anything is trained.

The report's test is Wilcoxon's signed-rank test over seeds, corrected over all comparisons (Bonferroni's correction,
which is Holm's first step). Its power for normal differences is simulated up to 60 seeds, with the exact test. Above,
it is that of the paired t-test (statsmodels) with 3/pi of the seeds, its asymptotic relative efficiency (Hodges and
Lehmann, 1956).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy

from golu_core.training.config.run_config import RunConfig

from .reporting.collect import collect
from .reporting.metrics import in_table_order, paper_name, secondary_metrics
from .reporting.paired import ALPHA, rejected_sums, smallest_p
from .reporting.summary import Row, rows_of
from .reporting.tables import Table, TableCell, TableRow
from .sweeping.study import PlannedRun

_POWER = 0.8
_FEWEST_FOR_A_SPREAD = 3
_MOST_SEEDS = 10_000
_MOST_SIMULATED, _SIMULATED = 60, 4000


def seeds_needed(deviation: float, difference: float, comparisons: int, power: float = _POWER) -> int | None:
    """Seeds with which a difference is shown in the given share of studies; None if 10,000 are too few.

    Args:
        deviation: standard deviation of the paired differences over seeds.
        difference: their true mean, in the same units.
        comparisons: The number of comparisons in the report, which are corrected together.
        power: the share.
    """
    level = ALPHA / comparisons
    fewest = next(n for n in range(1, 100) if smallest_p(n, comparisons) < ALPHA)
    if deviation == 0:
        return fewest
    effect = abs(difference) / deviation
    high = fewest
    while _power_of(high, effect, level) < power:  # from below: far above, the noncentral t has no number
        if high >= _MOST_SEEDS:
            return None
        high = min(2 * high, _MOST_SEEDS)
    low = max(high // 2, fewest - 1)
    while high - low > 1:  # power grows with the seeds
        middle = (low + high) // 2
        low, high = (low, middle) if _power_of(middle, effect, level) >= power else (middle, high)
    return high


def _power_of(n: int, effect: float, level: float) -> float:
    """The share of studies in which n seeds show a mean difference of `effect` deviations at a level."""
    if n > _MOST_SIMULATED:
        from statsmodels.stats.power import TTestPower

        efficient = n * 3 / math.pi
        return float(TTestPower().power(effect, efficient, level, df=efficient - 1))
    differences = numpy.random.default_rng(0).normal(effect, 1.0, (_SIMULATED, n))
    ranks = numpy.abs(differences).argsort(axis=1).argsort(axis=1) + 1
    positive = numpy.where(differences > 0, ranks, 0).sum(axis=1)
    smaller = numpy.minimum(positive, n * (n + 1) // 2 - positive)
    return float((smaller < rejected_sums(n, level)).mean())


def power_table(planned: Sequence[PlannedRun], output_dir: Path, percent: float, reference: str = "golu") -> Table:
    """Seeds that each comparison of a study needs, by the spreads of its finished runs, or else by the published ones.

    Args:
        planned: runs of the study.
        output_dir: The folder of its finished runs, if there are any.
        percent: size of the difference, of the other activation's mean.
        reference: the activation that is compared.
    """
    found = _rows(output_dir)
    rows = {row.recipe: row for row in found if row.is_primary}
    configs: dict[str, RunConfig] = {}
    activations: dict[str, set[str]] = {}
    seeds: dict[str, set[int]] = {}
    for run in planned:
        configs.setdefault(run.config.recipe, run.config)
        activations.setdefault(run.config.recipe, set()).add(run.config.activation)
        seeds.setdefault(run.config.recipe, set()).add(run.config.seed)
    pairs = [(recipe, other) for recipe in configs for other in in_table_order(activations[recipe] - {reference})]
    comparisons = comparison_count(planned, found, reference)
    table = Table(
        f"Seeds to show that {paper_name(reference)} differs by {percent:g} %",
        ("recipe", "against"),
        ("spread of differences (%)", "known from", "seeds needed", "seeds planned"),
    )
    for recipe, other in pairs:
        spread, source = _spread(rows.get(recipe), configs[recipe], reference, other)
        needed = None if spread is None else seeds_needed(spread, percent, comparisons)
        texts = (
            "–" if spread is None else f"{spread:.3g}",
            source,
            "–" if spread is None else f"more than {_MOST_SEEDS:,}" if needed is None else str(needed),
            str(len(seeds[recipe])),
        )
        table.rows.append(TableRow((recipe, paper_name(other)), tuple(map(TableCell, texts))))
    table.notes.append(
        f"With these seeds {100 * _POWER:g} % of studies would show a difference of {percent:g} % of the other mean, "
        f"at 5 % over all {comparisons} comparisons of the report together, of all metrics and varied flags. For "
        "normal differences; with few seeds, the spread is a rough estimate. The paper's ± is the standard error "
        "of 3 seeds' population deviation; its seeds are assumed to be independent."
    )
    return table


def comparison_count(planned: Sequence[PlannedRun], rows: Sequence[Row], reference: str) -> int:
    """Return how many comparisons over seeds the report of a study makes, which are corrected together.

    A recipe is compared by its primary metric and by the secondary ones that its results have, or that are published
    for it, once for each combination of varied flags.

    Args:
        planned: The runs of the study.
        rows: The rows of its finished runs, if there are any.
        reference: The activation that is compared with each other.
    """
    others: dict[tuple[str, str], set[str]] = {}
    metrics: dict[tuple[str, str], int] = {}
    for run in planned:
        config, key = run.config, (run.config.recipe, run.variant)
        others.setdefault(key, set()).add(config.activation)
        known = {row.metric_name for row in rows if row.recipe == config.recipe}
        published = set() if config.paper is None else set(config.paper.results)
        secondary = {name for name in secondary_metrics(run.task.name) if name in published}
        metrics[key] = len(known or {config.primary_metric, *secondary})
    return sum(metrics[key] * len(names - {reference}) for key, names in others.items() if reference in names)


def _rows(output_dir: Path) -> list[Row]:
    if not output_dir.exists() or not any(output_dir.rglob("result.json")):
        return []
    return rows_of(collect([output_dir]).runs)


def _spread(row: Row | None, config: RunConfig, reference: str, other: str) -> tuple[float | None, str]:
    """Deviation of the paired differences in percent of the other's mean, and where it is known from."""
    if row is not None and reference in row.cells and other in row.cells:
        mine, theirs = row.cells[reference].values, row.cells[other].values
        differences = [mine[seed] - theirs[seed] for seed in sorted(set(mine) & set(theirs))]
        scale = abs(row.cells[other].mean)
        if len(differences) >= _FEWEST_FOR_A_SPREAD and scale > 0:
            return 100 * statistics.stdev(differences) / scale, f"{len(differences)} seeds of this study"
    paper = config.paper
    results = {} if paper is None else paper.results.get(paper.metric, {})
    if paper is not None and reference in results and other in results and results[other][0]:
        mean = results[other][0]
        one, two = (paper.sample_deviation(results[name][1]) for name in (reference, other))
        return 100 * math.hypot(one, two) / abs(mean), "the paper"
    return None, "nothing yet: train three seeds first"
