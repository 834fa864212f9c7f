"""Activations compared seed by seed: one estimate, its interval and its test, and what of them may be claimed.

Estimate and interval are those of Hodges and Lehmann (Annals of Mathematical Statistics 34, 1963), which belong to
Wilcoxon's signed-rank test: the median of all means of two differences, and the shifts that the test does not reject.
A single collapsed seed can flip the sign of a mean, but not of these.

    pair       subtract the other activation's metric from the reference's, for each seed that both have
    test       compute the exact p of each comparison that has enough seeds to reach a p below 0.05
    correct    apply Holm's correction over all comparisons of the report together
    estimate   compute the pseudomedian, its own interval, and the interval that holds for all comparisons together
    claim      combine p, mean and failures into a verdict: better, worse, or no difference shown
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy
from numpy.typing import NDArray

from .summary import Row

ALPHA = 0.05
"""The level of tests and intervals, as usual in the field."""
_DIGITS = 7
"""Results store six decimals, so further digits of a difference are rounding errors."""
FEWEST_SEEDS = 6
"""For an interval of 95 % by the signed-rank test: below, it rejects no shift at all."""


@dataclass(frozen=True)
class PairedComparison:
    """A reference activation against another, over the seeds that both have.

    A seed at which one of the two failed is a difference larger than all others; where both failed there is none.

    Attributes:
        seeds: The seeds that both have, including failed ones.
        failed: how many of these the reference failed at, and the other.
        collapsed: The same for seeds at which a run collapsed (`Row.collapse_bound`), failed ones among them.
        difference: Hodges and Lehmann's estimate of reference less other; positive is better, whatever the metric's
            direction; NaN where failures decide it.
        mean: mean difference over the seeds at which neither failed; NaN where there is none.
        interval: 95 % interval of `difference`; below 6 seeds, which cannot carry one, Student's t of `mean`; None
            below 3 seeds, and where failures reach into it.
        together: the same for all intervals of the report together, by Bonferroni's correction; None where the seeds
            cannot carry one.
        better: seeds at which the reference is better.
        p: The two-sided p-value of Wilcoxon's signed-rank test, Holm-corrected over the report; None with few seeds.
        smallest_p: the smallest that this many seeds can give after Holm's correction.
        within: percent of the other's mean that a difference must exceed to matter; None where nobody said.
        equivalent: whether it is shown not to: two one-sided signed-rank tests, Bonferroni-corrected over the report
            (Schuirmann, 1987: the interval of twice the level lies within the bounds).
    """

    reference: str
    other: str
    seeds: tuple[int, ...]
    failed: tuple[int, int]
    difference: float
    mean: float
    interval: tuple[float, float] | None
    together: tuple[float, float] | None
    better: int
    p: float | None
    smallest_p: float
    within: float | None = None
    equivalent: bool = False
    collapsed: tuple[int, int] = (0, 0)

    @property
    def verdict(self) -> str:
        """What may be claimed, and at how many seeds runs failed or collapsed, which an estimate does not show."""
        claim, counted = self._claim, [("failed", self.failed)]
        if sum(self.collapsed) > sum(self.failed):
            counted.append(("collapsed", self.collapsed))
            claim += " in the typical seed" if claim.startswith(("better", "worse")) else ""
        told = [
            f"; {mine} and {other} of {len(self.seeds)} seeds {what}"
            for what, (mine, other) in counted
            if mine or other
        ]
        return claim + "".join(told)

    @property
    def _claim(self) -> str:
        if self.p is None or self.p >= ALPHA:
            if self.equivalent:
                return f"no difference above {self.within:g} %"
            return "too few seeds" if self.p is None else "no difference shown"
        # a failure is a loss, and has no number that could contradict
        if not any(self.failed) and self.mean * self.difference < 0:
            return "no claim: mean and median disagree"
        direction = self.difference if not math.isnan(self.difference) else 2 * self.better - len(self.seeds)
        bound = f", by less than {self.within:g} %" if self.equivalent else ""
        return ("better" if direction > 0 else "worse") + bound


@dataclass(frozen=True)
class _Differences:
    """What is known of one comparison before others are looked at."""

    other: str
    seeds: tuple[int, ...]
    failed: tuple[int, int]
    collapsed: tuple[int, int]
    values: tuple[float, ...]
    """Infinite where one of the two failed."""

    @property
    def finite(self) -> list[float]:
        return [value for value in self.values if math.isfinite(value)]

    @property
    def nonzero(self) -> int:
        return sum(value != 0 for value in self.values)


def smallest_p(n: int, comparisons: int) -> float:
    """The smallest p that Wilcoxon's two-sided signed-rank test of n pairs can give after Holm's correction."""
    return min(1.0, comparisons * 2.0 ** (1 - n))


def paired_comparisons(
    rows: Sequence[Row], reference: str, within: float | None = None
) -> list[tuple[Row, list[PairedComparison]]]:
    """The reference against each other activation of each row; all of these comparisons are corrected together.

    Args:
        within: percent of the other's mean, for claims that no difference is larger.
    """
    found = [(row, _differences(row, reference)) for row in rows]
    listed = [one for _, several in found for one in several]
    # seeds at which both are equal say nothing, and the test leaves them out; what is too few for any p is not tried
    tried = sum(smallest_p(one.nonzero, 1) < ALPHA for one in listed)
    smallest = [smallest_p(one.nonzero, max(1, tried)) for one in listed]
    testable = [place for place, p in enumerate(smallest) if p < ALPHA]
    corrected = dict(zip(testable, holm([signed_rank_p(listed[place].values) for place in testable]), strict=True))
    bounds = iter(_bounds(row, one.other, within) for row, several in found for one in several)
    compared = iter(
        PairedComparison(
            reference=reference,
            other=one.other,
            seeds=one.seeds,
            failed=one.failed,
            difference=_or_nan(pseudomedian(one.values)),
            mean=statistics.fmean(one.finite) if one.finite else math.nan,
            interval=_interval(one, ALPHA),
            together=_interval(one, ALPHA / len(listed)),
            better=sum(value > 0 for value in one.values),
            p=corrected.get(place),
            smallest_p=smallest[place],
            within=within,
            equivalent=_is_equivalent(one, next(bounds), len(listed)),
            collapsed=one.collapsed,
        )
        for place, one in enumerate(listed)
    )
    return [(row, [next(compared) for _ in several]) for row, several in found]


def _differences(row: Row, reference: str) -> list[_Differences]:
    if reference not in row.cells:
        return []
    sign = 1.0 if row.metric.higher_is_better else -1.0
    mine, found = row.cells[reference], []
    for other, theirs in row.cells.items():
        seeds = tuple(sorted({*mine.values, *mine.failed} & {*theirs.values, *theirs.failed}))
        if other == reference or not seeds:
            continue
        failed = tuple(sum(seed in cell.failed for seed in seeds) for cell in (mine, theirs))
        collapsed = tuple(len(row.collapsed(name).intersection(seeds)) for name in (reference, other))
        values = [_difference(sign, mine.values.get(seed), theirs.values.get(seed)) for seed in seeds]
        if any(seed in mine.values and seed in theirs.values for seed in seeds):
            counts = (failed[0], failed[1]), (collapsed[0], collapsed[1])
            found.append(_Differences(other, seeds, *counts, tuple(values)))
    return found


def _difference(sign: float, mine: float | None, theirs: float | None) -> float:
    if mine is None or theirs is None:
        return 0.0 if mine is theirs else math.copysign(math.inf, -1.0 if mine is None else 1.0)
    return sign * _rounded(mine - theirs, max(abs(mine), abs(theirs)))


def _rounded(difference: float, size: float) -> float:
    """Round a difference to 7 significant digits of the values, so that differences of as many images are equal.

    As floats, or stored with six decimals, they differ in their last digits, which the ranks would take for real.
    """
    return round(difference, _DIGITS - 1 - math.floor(math.log10(size))) if size else difference


def signed_rank_p(differences: Sequence[float]) -> float:
    """Return the p of Wilcoxon's two-sided signed-rank test, exact for any number of differences, with ties or without.

    Equal differences share their mean rank (Pratt and Gibbons, Concepts of Nonparametric Theory, 1981); zeros are left
    out, and infinite differences rank highest. SciPy's test is exact for ties only up to 13 differences: 14 wins of 14
    had a larger p than 12 of 12.
    """
    from scipy.stats import rankdata

    values = numpy.array([value for value in differences if value != 0])
    if not len(values):
        return 1.0
    doubled = numpy.rint(2 * rankdata(numpy.abs(values))).astype(int)  # mean ranks are multiples of one half
    at_most = numpy.cumsum(_rank_sums(tuple(sorted(doubled.tolist()))))
    smaller = min(doubled[values > 0].sum(), doubled[values < 0].sum())
    return min(1.0, 2 * float(at_most[smaller]))


@lru_cache(maxsize=1024)
def _rank_sums(ranks: tuple[int, ...]) -> NDArray[numpy.float64]:
    """Return the probability of each sum of the ranks that get a positive sign, from 0 on, for random signs."""
    sums = numpy.ones(1)
    for rank in ranks:
        sums = (numpy.pad(sums, (0, rank)) + numpy.pad(sums, (rank, 0))) / 2
    return sums


def pseudomedian(differences: Sequence[float]) -> float:
    """Hodges and Lehmann's estimate: the median of all means of two differences, each with itself among them."""
    return float(numpy.median(_walsh_averages(differences)))


def _walsh_averages(differences: Sequence[float]) -> list[float]:
    values = numpy.array(differences)
    first, second = numpy.triu_indices(len(values))
    with numpy.errstate(invalid="ignore"):
        means = (values[first] + values[second]) / 2
    return sorted(numpy.where(numpy.isnan(means), 0.0, means).tolist())  # both infinities: in the middle


def signed_rank_interval(differences: Sequence[float], alpha: float) -> tuple[float, float] | None:
    """The shifts that the exact two-sided signed-rank test of a level does not reject; None if it rejects none."""
    averages = _walsh_averages(differences)
    left_out = rejected_sums(len(differences), alpha)
    if left_out == 0:
        return None
    return float(averages[left_out - 1]), float(averages[len(averages) - left_out])


def rejected_sums(n: int, alpha: float) -> int:
    """How many of the smallest sums of ranks, from 0 on, the exact two-sided signed-rank test of n pairs rejects."""
    at_most = numpy.cumsum(_rank_sums(tuple(range(1, n + 1))))
    return int(numpy.searchsorted(at_most, alpha / 2, side="right"))


def _interval(found: _Differences, alpha: float) -> tuple[float, float] | None:
    """Of the estimate at a level, or of the mean where the seeds could not even carry one of 95 %."""
    carries = len(found.values) >= FEWEST_SEEDS
    interval = signed_rank_interval(found.values, alpha) if carries else _t_interval(found.finite, alpha)
    if interval is None or not all(map(math.isfinite, interval)) or (not carries and any(found.failed)):
        return None
    return interval


def _t_interval(differences: Sequence[float], alpha: float) -> tuple[float, float] | None:
    from scipy.stats import t

    n = len(differences)
    if n < 3:
        return None
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    half = float(t.ppf(1 - alpha / 2, n - 1)) * error
    return mean - half, mean + half


def _bounds(row: Row, other: str, within: float | None) -> float:
    """The largest difference that does not matter, in the metric's units; NaN where nobody said."""
    return math.nan if within is None else within / 100 * abs(row.cells[other].mean)


def _is_equivalent(found: _Differences, bound: float, comparisons: int) -> bool:
    if math.isnan(bound) or any(found.failed):
        return False
    interval = signed_rank_interval(found.values, 2 * ALPHA / comparisons)
    return interval is not None and max(map(abs, interval)) < bound


def _or_nan(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, by statsmodels."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]
