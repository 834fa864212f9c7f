"""What the numbers can carry over recipes, and intervals of means; `paired` has comparisons over seeds.

Methods (each is a library's): Friedman's test with a p-value by permutation (SciPy), Nemenyi's test and Wilcoxon's
signed-rank test with Holm's correction over recipes (scikit-posthocs), bootstrap intervals by BCa (SciPy). The way over
recipes is that of Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
"""

from __future__ import annotations

import importlib
import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy
from numpy.typing import NDArray

from .paired import ALPHA, smallest_p
from .summary import Row

FEWEST_VALUES = 6
"""For a bootstrap interval: fewer values have too few distinct resamples."""
FEWEST_FAMILIES = 6
"""Of recipes, for a test over them: below, not even one signed-rank test could reach 0.05."""
_RESAMPLES = 9_999
_SEED = 0


def load_libraries() -> None:
    """Imports what the statistics are made of."""
    importlib.import_module("scipy.stats")
    importlib.import_module("statsmodels.stats.multitest")


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
        activations: The activations that all rows have.
        ranks: The ranks of each row, (N, k), 1 the best; equal means share their ranks.
        families: The families of the rows, each once. They are the blocks of the test: ResNets of two sizes on one data
            set give similar evidence, and a test that treats them as independent rejects too often.
        family_ranks: The ranks of each family, (F, k), by the mean of its rows' ranks.
        friedman: None where families or activations are too few.
        reason: why there is no test.
    """

    rows: tuple[Row, ...]
    left_out: tuple[tuple[Row, str], ...]
    activations: tuple[str, ...]
    ranks: NDArray[numpy.float64]
    families: tuple[str, ...]
    family_ranks: NDArray[numpy.float64]
    friedman: Friedman | None
    reason: str

    @property
    def mean_ranks(self) -> dict[str, float]:
        """By activation, over families."""
        if not self.rows:
            return {}
        return dict(zip(self.activations, self.family_ranks.mean(axis=0).tolist(), strict=True))

    @property
    def counted(self) -> str:
        """How many recipes there are, and of how many families where that is fewer."""
        return _counted(len(self.rows), len(self.families))

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
        p: The p-value by permutation of the ranks within families, which needs no large sample.
        critical_difference: Nemenyi's critical difference of mean ranks.
        nemenyi, wilcoxon_holm: p-values of pairs, symmetric; None where Friedman's test finds nothing, and Wilcoxon's
            where this many pairs over this few families could not reach 0.05.
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

    A recipe counts once: of several configs the one nearest to the recipe, of these the one with the most runs. A
    family of recipes is one block of the test.
    """
    chosen, left_out = _one_row_a_recipe([row for row in rows if row.is_primary])
    alone = [row for row in chosen if len(row.activations) < 2]
    left_out += [(row, "it has one activation only") for row in alone]
    candidates = [row for row in chosen if len(row.activations) >= 2]
    activations = _common_activations(candidates)
    used = [row for row in candidates if set(activations) <= set(row.activations)]
    left_out += [(row, "it lacks activations that the others have") for row in candidates if row not in used]
    ranks = numpy.array([_ranks(row, activations) for row in used]).reshape(len(used), len(activations))
    families = list(dict.fromkeys(row.family for row in used))
    members = [[place for place, row in enumerate(used) if row.family == family] for family in families]
    family_ranks = _rank_rows(_means(ranks, members))
    reason = ""
    if len(families) < FEWEST_FAMILIES:
        verb = "is" if len(used) == 1 else "are"
        unit = "" if len(used) == len(families) else " families"
        counted = _counted(len(used), len(families))
        reason = f"{counted} {verb} too few for a test over recipes; it takes {FEWEST_FAMILIES}{unit}"
    elif len(activations) < 3:
        reason = f"{len(activations)} activations are too few for Friedman's test; it takes 3"
    friedman = None
    if not reason:
        relative = numpy.array([_relative(row, activations) for row in used])
        friedman = _friedman(_means(relative, members), activations, family_ranks)
    found = tuple(used), tuple(left_out), tuple(activations), ranks, tuple(families), family_ranks
    return OverRecipes(*found, friedman, reason)


def _counted(rows: int, families: int) -> str:
    recipes = "1 recipe" if rows == 1 else f"{rows} recipes"
    if rows == families:
        return recipes
    return f"{recipes} of {families} {'family' if families == 1 else 'families'}"


def _means(values: NDArray[numpy.float64], members: Sequence[Sequence[int]]) -> NDArray[numpy.float64]:
    """The mean of each group of rows (N, k): (F, k)."""
    means = [values[list(places)].mean(axis=0) for places in members]
    return numpy.array(means).reshape(len(members), values.shape[1])


def _rank_rows(values: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Ranks within each row (N, k), of the smallest first; equal values share theirs."""
    from scipy.stats import rankdata

    # rounded, since means of the same ranks may differ in their last digits
    found: NDArray[numpy.float64] = rankdata(values.round(9), axis=1).astype(float)
    return found


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
    """By mean; an activation with failed runs comes after those with fewer failures, however good the others are."""
    from scipy.stats import rankdata

    keys = [row.merit(name) for name in activations]
    places = {key: place for place, key in enumerate(sorted(set(keys), reverse=True))}
    return [float(rank) for rank in rankdata([places[key] for key in keys])]


def _friedman(relative: NDArray[numpy.float64], activations: Sequence[str], ranks: NDArray[numpy.float64]) -> Friedman:
    """Of relative means and ranks of families, both (F, k)."""
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
    wilcoxon = _pairwise_wilcoxon(relative) if smallest_p(n, math.comb(k, 2)) < ALPHA else None
    for table in (nemenyi, wilcoxon):
        if table is not None:
            table.index = table.columns = list(activations)
    return Friedman(statistic, float(p), critical, nemenyi, wilcoxon)


def _relative(row: Row, activations: Sequence[str]) -> NDArray[numpy.float64]:
    """Means over the row's own size, larger ones better, so that differences of other units make signed ranks together.

    An activation of which runs failed is as far below the worst as the worst is below the best.
    """
    sign = 1.0 if row.metric.higher_is_better else -1.0
    means = numpy.array([sign * row.cells[name].mean for name in activations])
    failed = numpy.array([bool(row.cells[name].failed) for name in activations])
    whole = means[~failed]
    if len(whole):
        means[failed] = whole.min() - max(float(numpy.ptp(whole)), abs(float(whole.min())), 1e-12)
    means = numpy.nan_to_num(means)
    size = abs(float(means.mean())) or float(numpy.abs(means).max()) or 1.0
    found: NDArray[numpy.float64] = means / size
    return found


def _pairwise_wilcoxon(values: NDArray[numpy.float64]) -> Any:
    import scikit_posthocs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties, for which it uses the normal approximation
        return scikit_posthocs.posthoc_wilcoxon(list(values.T), p_adjust="holm")


def rank_intervals(over: OverRecipes) -> Mapping[str, tuple[float, float]]:
    """95 % bootstrap intervals of the mean ranks over families; empty where families are too few."""
    if len(over.families) < FEWEST_FAMILIES:
        return {}
    found = {}
    for name, column in zip(over.activations, over.family_ranks.T, strict=True):
        interval = bootstrap_interval(column.tolist())
        assert interval is not None
        found[name] = interval
    return found
