"""What the numbers can carry: paired comparisons over seeds, comparisons over recipes, intervals.

Methods (each is a library's): Friedman's test with a p-value by permutation (SciPy), Nemenyi's test and Wilcoxon's
signed-rank test with Holm's correction over recipes (scikit-posthocs), Wilcoxon's test over seeds (SciPy), bootstrap
intervals by BCa (SciPy). The way over recipes is that of Demsar, "Statistical Comparisons of Classifiers over Multiple
Data Sets", JMLR 7 (2006).
"""

from __future__ import annotations

import importlib
import itertools
import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy
from numpy.typing import NDArray

from .summary import Row

ALPHA = 0.05
FEWEST_VALUES = 6
"""For a bootstrap interval: fewer values have too few distinct resamples."""
FEWEST_RECIPES = 6
"""For a test over recipes: below, not even one signed-rank test could reach 0.05."""
_RESAMPLES = 9_999
_SEED = 0


@dataclass(frozen=True)
class PairedComparison:
    """A reference activation against another, over the seeds that both have.

    Attributes:
        seeds: that both have.
        difference: mean of reference less other; positive is better, whatever the metric's direction.
        interval: 95 % interval of the difference by Student's t, which assumes normal differences; None below 3 seeds.
        better: seeds at which the reference is better.
        p: of Wilcoxon's signed-rank test, two-sided, Holm-corrected over the row; None where the seeds are too few.
        smallest_p: the smallest that this many seeds can give after Holm's correction.
    """

    reference: str
    other: str
    seeds: tuple[int, ...]
    difference: float
    interval: tuple[float, float] | None
    better: int
    p: float | None
    smallest_p: float

    @property
    def verdict(self) -> str:
        """What may be claimed."""
        if self.p is None:
            return "too few seeds"
        if self.p >= ALPHA:
            return "no difference shown"
        return "better" if self.difference > 0 else "worse"


def smallest_p(n: int, comparisons: int) -> float:
    """The smallest p that Wilcoxon's two-sided signed-rank test of n pairs can give after Holm's correction."""
    return min(1.0, comparisons * 2.0 ** (1 - n))


def paired_comparisons(row: Row, reference: str) -> list[PairedComparison]:
    """The reference against each other activation of a row, over their common seeds."""
    if reference not in row.cells:
        return []
    found = []
    sign = 1.0 if row.metric.higher_is_better else -1.0
    for other in row.activations:
        mine, theirs = row.cells[reference].values, row.cells[other].values
        seeds = tuple(sorted(mine.keys() & theirs.keys()))
        if other == reference or not seeds:
            continue
        differences = [sign * (mine[seed] - theirs[seed]) for seed in seeds]
        found.append((other, seeds, differences))
    # seeds at which both are equal say nothing, and the test leaves them out
    smallest = [smallest_p(sum(d != 0 for d in differences), len(found)) for _, _, differences in found]
    testable = [place for place, p in enumerate(smallest) if p < ALPHA]
    corrected = dict(zip(testable, holm([signed_rank_p(found[place][2]) for place in testable]), strict=True))
    return [
        PairedComparison(
            reference=reference,
            other=other,
            seeds=seeds,
            difference=statistics.fmean(differences),
            interval=_t_interval(differences),
            better=sum(difference > 0 for difference in differences),
            p=corrected.get(place),
            smallest_p=smallest[place],
        )
        for place, (other, seeds, differences) in enumerate(found)
    ]


def signed_rank_p(differences: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test, two-sided, without zeros: exact up to 13 differences, and up to 50 without ties."""
    from scipy.stats import wilcoxon

    if not any(differences):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties among many, for which it uses the normal approximation
        return float(wilcoxon(differences).pvalue)


def _t_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    from scipy.stats import t

    n = len(differences)
    if n < 3:
        return None
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    half = float(t.ppf(1 - ALPHA / 2, n - 1)) * error
    return mean - half, mean + half


def load_libraries() -> None:
    """Imports what the statistics are made of."""
    importlib.import_module("scipy.stats")
    importlib.import_module("statsmodels.stats.multitest")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, by statsmodels."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def bootstrap_interval(values: Iterable[float]) -> tuple[float, float] | None:
    """95 % BCa bootstrap interval of the mean; None for fewer values than `FEWEST_VALUES`."""
    return _bootstrap_interval(tuple(sorted(values)))


@cache
def _bootstrap_interval(listed: tuple[float, ...]) -> tuple[float, float] | None:
    from scipy.stats import bootstrap

    if len(listed) < FEWEST_VALUES:
        return None
    if listed[0] == listed[-1]:
        return listed[0], listed[0]
    interval = bootstrap(
        (listed,), numpy.mean, n_resamples=_RESAMPLES, batch=1000, rng=numpy.random.default_rng(_SEED)
    ).confidence_interval
    return float(interval.low), float(interval.high)


# --------------------------------------------------------------------------------------------------------- over recipes


@dataclass(frozen=True)
class OverRecipes:
    """Activations compared over recipes.

    Attributes:
        rows: the recipes, one row each.
        left_out: rows that take no part, and why.
        activations: that all rows have.
        ranks: of each row (N, k), 1 the best; equal means share their ranks.
        friedman: None where recipes or activations are too few.
        reason: why there is no test.
    """

    rows: tuple[Row, ...]
    left_out: tuple[tuple[Row, str], ...]
    activations: tuple[str, ...]
    ranks: NDArray[numpy.float64]
    friedman: Friedman | None
    reason: str

    @property
    def mean_ranks(self) -> dict[str, float]:
        """By activation."""
        return dict(zip(self.activations, self.ranks.mean(axis=0).tolist(), strict=True)) if len(self.rows) else {}

    @property
    def wins(self) -> dict[str, int]:
        """Rows in which an activation has the best mean, alone or with others."""
        best = self.ranks.min(axis=1, keepdims=True) if len(self.rows) else self.ranks
        counts = (self.ranks == best).sum(axis=0).tolist()
        return dict(zip(self.activations, counts, strict=True))


@dataclass(frozen=True)
class Friedman:
    """Friedman's test and what follows from it.

    Attributes:
        statistic: chi-squared.
        p: by permutation of the ranks within recipes, which needs no large sample.
        critical_difference: of mean ranks, by Nemenyi.
        nemenyi, wilcoxon_holm: p-values of pairs, symmetric; None where Friedman's test finds nothing, and Wilcoxon's
            where this many pairs over this few recipes could not reach 0.05.
    """

    statistic: float
    p: float
    critical_difference: float
    nemenyi: Any
    wilcoxon_holm: Any

    @property
    def rejects(self) -> bool:
        """Whether the activations differ at all."""
        return self.p < ALPHA


def over_recipes(rows: Sequence[Row]) -> OverRecipes:
    """Compares activations over the primary metrics of recipes.

    A recipe counts once: of several configs the one nearest to the recipe, of these the one with the most runs.
    """
    chosen, left_out = _one_row_a_recipe([row for row in rows if row.is_primary])
    alone = [row for row in chosen if len(row.activations) < 2]
    left_out += [(row, "it has one activation only") for row in alone]
    candidates = [row for row in chosen if len(row.activations) >= 2]
    activations = _common_activations(candidates)
    used = [row for row in candidates if set(activations) <= set(row.activations)]
    left_out += [(row, "it lacks activations that the others have") for row in candidates if row not in used]
    ranks = numpy.array([_ranks(row, activations) for row in used]).reshape(len(used), len(activations))
    reason = ""
    if len(used) < FEWEST_RECIPES:
        count = "1 recipe is" if len(used) == 1 else f"{len(used)} recipes are"
        reason = f"{count} too few for a test over recipes; it takes {FEWEST_RECIPES}"
    elif len(activations) < 3:
        reason = f"{len(activations)} activations are too few for Friedman's test; it takes 3"
    friedman = None if reason else _friedman(used, activations, ranks)
    return OverRecipes(tuple(used), tuple(left_out), tuple(activations), ranks, friedman, reason)


def _one_row_a_recipe(rows: Sequence[Row]) -> tuple[list[Row], list[tuple[Row, str]]]:
    by_recipe: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_recipe.setdefault((row.task, row.recipe), []).append(row)
    chosen, left_out = [], []
    for group in by_recipe.values():
        nearest = min(group, key=lambda row: (len(row.overrides), -len(row.runs), row.variant))
        chosen.append(nearest)
        reason = (
            f"another config than its sibling's ({nearest.variant}), which is nearer to the recipe or has more runs"
        )
        left_out += [(row, reason) for row in group if row is not nearest]
    return chosen, left_out


def _common_activations(rows: Sequence[Row]) -> list[str]:
    """The set of activations with the most means in rows that have all of it."""
    sets = {frozenset(row.activations) for row in rows}
    sets |= {a & b for a, b in itertools.combinations(sets, 2) if len(a & b) >= 2}
    if not sets:
        return []

    def means(candidate: frozenset[str]) -> tuple[int, int, list[str]]:
        holders = sum(candidate <= set(row.activations) for row in rows)
        return holders * len(candidate), len(candidate), sorted(candidate)

    best = max(sets, key=means)
    order = next(row for row in rows if best <= set(row.activations)).activations
    return [name for name in order if name in best]


def _ranks(row: Row, activations: Sequence[str]) -> list[float]:
    from scipy.stats import rankdata

    sign = -1.0 if row.metric.higher_is_better else 1.0
    return [float(rank) for rank in rankdata([sign * row.cells[name].mean for name in activations])]


def _friedman(rows: Sequence[Row], activations: Sequence[str], ranks: NDArray[numpy.float64]) -> Friedman:
    from scipy.stats import friedmanchisquare, permutation_test, studentized_range

    def spread(*columns: NDArray[numpy.float64], axis: int) -> Any:  # monotone in Friedman's statistic
        return sum(numpy.sum(column, axis=axis) ** 2 for column in columns)

    n, k = ranks.shape
    statistic = float(friedmanchisquare(*ranks.T).statistic) if numpy.ptp(ranks) else 0.0
    p = permutation_test(
        tuple(ranks.T),
        spread,
        permutation_type="samples",
        alternative="greater",
        n_resamples=_RESAMPLES,
        rng=numpy.random.default_rng(_SEED),
    ).pvalue
    critical = float(studentized_range.ppf(1 - ALPHA, k, numpy.inf)) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    if p >= ALPHA:
        return Friedman(statistic, float(p), critical, None, None)
    import scikit_posthocs

    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(ranks)
    sign = [1.0 if row.metric.higher_is_better else -1.0 for row in rows]
    # metrics of other units: relative to the row's mean, so that the signed ranks over recipes make sense
    means = numpy.array([[row.cells[name].mean for name in activations] for row in rows])
    relative = numpy.array(sign)[:, None] * means / numpy.abs(means.mean(axis=1, keepdims=True))
    wilcoxon = _pairwise_wilcoxon(relative) if smallest_p(n, math.comb(k, 2)) < ALPHA else None
    for table in (nemenyi, wilcoxon):
        if table is not None:
            table.index = table.columns = list(activations)
    return Friedman(statistic, float(p), critical, nemenyi, wilcoxon)


def _pairwise_wilcoxon(values: NDArray[numpy.float64]) -> Any:
    import scikit_posthocs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties, for which it uses the normal approximation
        return scikit_posthocs.posthoc_wilcoxon(list(values.T), p_adjust="holm")


def rank_intervals(over: OverRecipes) -> Mapping[str, tuple[float, float]]:
    """95 % bootstrap intervals of the mean ranks over recipes; empty where recipes are too few."""
    if len(over.rows) < FEWEST_RECIPES:
        return {}
    found = {}
    for name, column in zip(over.activations, over.ranks.T, strict=True):
        interval = bootstrap_interval(column.tolist())
        assert interval is not None
        found[name] = interval
    return found
