"""The statistics against values worked out by hand, and against SciPy called directly."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, rankdata, ttest_rel, wilcoxon

from golu_core.studies.power import seeds_needed
from golu_core.studies.reporting.answer import answer
from golu_core.studies.reporting.collect import RunResult
from golu_core.studies.reporting.comparison import FEWEST_FAMILIES, bootstrap_interval, over_recipes, rank_intervals
from golu_core.studies.reporting.figures import forest, plain_style
from golu_core.studies.reporting.paired import (
    PairedComparison,
    holm,
    paired_comparisons,
    pseudomedian,
    signed_rank_interval,
    signed_rank_p,
)
from golu_core.studies.reporting.summary import Cell, Row, rows_of
from golu_core.training.runs.results import PrimaryMetric, Result, SwappedActivations, Throughput
from runs_on_disk import ENVIRONMENT
from simulate_reports import FAMILIES, claims_of, simulated_rows

# Demsar (2006), table 6: AUC of C4.5 with its parameter m and/or cf chosen, on fourteen data sets
C45 = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957]
C45_M = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978]
C45_CF = [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946]
C45_M_CF = [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970]


def run_of(recipe: str, activation: str, seed: int, value: float, task: str = "own", higher: bool = True) -> RunResult:
    """A run in memory, of a task that no package has."""
    result = Result(
        task=task, recipe=recipe, dataset=f"data of {recipe}", model="m", activation=activation, seed=seed,
        primary_metric=PrimaryMetric("score", value, higher), metrics={"score": value}, best={}, parameters=1,
        steps=10, train_seconds=1.0, eval_seconds=1.0, throughput=Throughput("images/s", 1.0), world_size=1, data={},
        environment=ENVIRONMENT, config_sha256="", activations=SwappedActivations(1, []),
    )  # fmt: skip
    return RunResult(result, Path(recipe, activation, str(seed)), None)


def rows_from(table: dict[str, list[float]], higher: bool = True) -> list[Row]:
    """A recipe for each place of the lists, an activation for each list, one seed."""
    runs = [
        run_of(f"recipe{place:02d}", activation, 0, value, higher=higher)
        for activation, values in table.items()
        for place, value in enumerate(values)
    ]
    return rows_of(runs)


def row_from(table: dict[str, list[float]], higher: bool = True) -> Row:
    """One recipe, seeds by place."""
    runs = [
        run_of("r", a, seed, value, higher=higher) for a, values in table.items() for seed, value in enumerate(values)
    ]
    (row,) = rows_of(runs)
    return row


def compared(row: Row, reference: str) -> list[PairedComparison]:
    """The comparisons of a report of one row."""
    ((_, found),) = paired_comparisons([row], reference)
    return found


# ---------------------------------------------------------------------------------------------------------- cells


def test_mean_error_and_deviation_by_hand():
    cell = Cell({0: 2.0, 1: 4.0, 2: 9.0}, ())
    assert cell.mean == 5.0
    assert cell.std == pytest.approx(math.sqrt(13))  # squares 9, 1, 16 over n - 1 = 2
    assert cell.standard_error == pytest.approx(math.sqrt(13 / 3))
    assert math.isnan(Cell({0: 2.0}, ()).std)
    assert math.isnan(Cell({}, (0,)).mean)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_cells_agree_with_numpy(values):
    cell = Cell(dict(enumerate(values)), ())
    assert cell.mean == pytest.approx(numpy.mean(values), abs=1e-6)
    assert cell.std == pytest.approx(numpy.std(values, ddof=1), abs=1e-6)
    assert min(values) - 1e-9 <= cell.mean <= max(values) + 1e-9


# ------------------------------------------------------------------------------------------------------- over seeds


def test_three_seeds_claim_nothing_however_clear_they_are():
    row = row_from({"relu": [1.0, 2.0, 3.0], "golu": [101.0, 102.001, 103.0]})
    (pair,) = compared(row, "golu")
    assert pair.difference == pytest.approx(100, abs=0.01)
    assert pair.better == 3
    assert pair.p is None
    assert pair.smallest_p == 0.25
    assert pair.verdict == "too few seeds"


def test_the_interval_is_that_of_the_paired_t_test():
    mine, other = [5.0, 7.0, 6.5, 8.0], [4.0, 6.5, 6.6, 6.0]
    (pair,) = compared(row_from({"relu": other, "golu": mine}), "golu")
    expected = ttest_rel(mine, other).confidence_interval(0.95)
    assert pair.interval == pytest.approx((expected.low, expected.high))


def test_six_seeds_by_hand():
    """All six differences positive: 2 of the 64 patterns of signs are as extreme."""
    row = row_from({"relu": [0.0] * 6, "golu": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    (pair,) = compared(row, "golu")
    assert pair.p == pytest.approx(2 / 64)
    assert pair.verdict == "better"
    assert compared(row, "relu")[0].verdict == "worse"


@pytest.mark.parametrize(("seeds", "others", "tested"), [(5, 1, False), (6, 1, True), (7, 4, False), (8, 4, True)])
def test_as_many_seeds_as_the_comparisons_need(seeds, others, tested):
    names = ["relu", "gelu", "swish", "mish"][:others]
    table = {name: [float(seed) for seed in range(seeds)] for name in names}
    row = row_from({**table, "golu": [100.0 + seed * 1.5 for seed in range(seeds)]})
    pairs = compared(row, "golu")
    assert [pair.verdict for pair in pairs] == ["better" if tested else "too few seeds"] * others
    if tested:  # all differences are positive, so that each p is the smallest there is
        assert [pair.p for pair in pairs] == pytest.approx([pair.smallest_p for pair in pairs])


def test_wilcoxon_and_holm_over_several_activations():
    random = numpy.random.default_rng(3)
    table = {name: random.normal(place, 1, 10).tolist() for place, name in enumerate(("relu", "gelu", "mish", "golu"))}
    pairs = compared(row_from(table), "golu")
    raw = [wilcoxon(numpy.subtract(table["golu"], table[pair.other])).pvalue for pair in pairs]
    assert [pair.p for pair in pairs] == pytest.approx(holm(raw))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2 / 32),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2 / 32),
        ([1.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2 / 64),
        ([-1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 4 / 64),
        ([0.0, 0.0], 1.0),
    ],
)
def test_zeros_and_ties_make_no_difference_clearer(differences, p):
    assert signed_rank_p(differences) == pytest.approx(p)


def test_equal_seeds_do_not_count_as_seeds():
    row = row_from({"relu": [1.0] * 6, "golu": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    (pair,) = compared(row, "golu")
    assert pair.smallest_p == 2 / 32
    assert pair.verdict == "too few seeds"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x 0.01, 2 x 0.03, and never below the last
    assert holm([]) == []


def test_only_common_seeds_are_paired():
    runs = [run_of("r", "relu", seed, float(seed)) for seed in (0, 1, 2)]
    runs += [run_of("r", "golu", seed, seed + 1.0) for seed in (1, 2, 3)]
    (row,) = rows_of(runs)
    (pair,) = compared(row, "golu")
    assert pair.seeds == (1, 2)
    assert pair.difference == 1.0
    assert pair.interval is None


def test_lower_is_better():
    (pair,) = compared(row_from({"relu": [5.0, 5.0, 5.0], "golu": [4.0, 4.0, 4.5]}, higher=False), "golu")
    assert pair.mean == pytest.approx(2.5 / 3)
    assert pair.difference == pytest.approx(0.875)  # of 1, 1, 0.5: means 1, 1, 1, 0.75, 0.75, 0.5
    assert pair.better == 3


def test_equal_values_show_no_difference():
    (pair,) = compared(row_from({"relu": [1.0] * 8, "golu": [1.0] * 8}), "golu")
    assert pair.p is None
    assert pair.smallest_p == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.floats(0.1, 1e6))
def test_no_p_value_where_the_seeds_cannot_carry_one(seeds, difference):
    row = row_from({"relu": [0.0] * seeds, "golu": [difference + place for place in range(seeds)]})
    (pair,) = compared(row, "golu")
    assert pair.p is None
    assert "better" not in pair.verdict
    assert pair.smallest_p > 0.05


# ------------------------------------------------------------------------------- one estimate, its interval, its test


@pytest.mark.parametrize("n", [6, 7, 9, 12])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_interval_has_the_shifts_that_scipys_test_does_not_reject(n, alpha):
    differences = numpy.random.default_rng(n).normal(1, 2, n)
    interval = signed_rank_interval(differences.tolist(), alpha)
    if 2 * 0.5**n > alpha:
        assert interval is None
        return
    low, high = interval
    for shift, rejected in ((low - 1e-6, True), (low + 1e-6, False), (high - 1e-6, False), (high + 1e-6, True)):
        assert (wilcoxon(differences - shift, method="exact").pvalue <= alpha) == rejected, shift


@pytest.mark.parametrize("seed", range(12))
def test_p_is_that_of_all_sign_patterns(seed):
    """With ties and zeros; SciPy is exact with them only up to 13 pairs, and slow."""
    random = numpy.random.default_rng(seed)
    differences = random.integers(-3, 5, size=random.integers(1, 13)).astype(float)
    nonzero = differences[differences != 0]
    ranks = rankdata(numpy.abs(nonzero))
    sums = numpy.array([numpy.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(ranks))])
    found = ranks[nonzero > 0].sum()
    expected = min(1.0, 2 * min((sums <= found).mean(), (sums >= found).mean()))
    assert signed_rank_p(differences.tolist()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [1, 5, 20, 50])
def test_p_without_ties_is_scipys(n):
    differences = numpy.random.default_rng(n).normal(0.3, 1, n)
    expected = wilcoxon(differences, method="exact").pvalue
    assert signed_rank_p(differences.tolist()) == pytest.approx(expected, rel=1e-9)


def test_more_wins_are_never_a_larger_p():
    """14 wins of 14 with a tie had 1.2e-3 by the normal approximation, and 12 of 12 had 4.9e-4."""
    found = [signed_rank_p([1.0, 1.0, *range(2, n)]) for n in range(6, 40)]
    assert found == sorted(found, reverse=True) and found[8] == 2.0**-13


def test_equal_differences_are_ties_however_they_are_stored():
    """One image of 360 is 0.2777…%: as floats the differences of one image differ, as stored with six decimals, too."""
    images = {"relu": [350, 351, 349, 352, 350, 348, 351, 350], "golu": [351, 352, 350, 351, 352, 351, 352, 351]}
    exact = {name: [100 * count / 360 for count in counts] for name, counts in images.items()}
    stored = {name: [round(value, 6) for value in values] for name, values in exact.items()}
    counts = numpy.subtract(images["golu"], images["relu"]).astype(float).tolist()
    for table in (exact, stored):
        (pair,) = compared(row_from(table), "golu")
        assert pair.p == signed_rank_p(counts)


def test_the_estimate_is_the_median_of_all_means_of_two():
    differences = numpy.random.default_rng(0).normal(0, 1, 9).tolist()
    pairs = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(differences, 2)]
    assert pseudomedian(differences) == pytest.approx(statistics.median(pairs))


def test_a_collapsed_seed_does_not_turn_a_claim():
    """GoLU is worse on 11 of 12 seeds; at the twelfth the other one collapses, and the mean is GoLU's."""
    table = {
        "relu": [70.0 + 0.1 * seed for seed in range(11)] + [10.0],
        "golu": [69.0 + 0.09 * seed for seed in range(12)],
    }
    (pair,) = compared(row_from(table), "golu")
    assert pair.mean > 0 > pair.difference and pair.better == 1 and pair.p < 0.05
    assert pair.verdict == "no claim: mean and median disagree"
    assert pair.interval[1] < 0


def test_a_failed_seed_is_the_largest_loss_and_is_told():
    table = {"relu": [1.0] * 10, "golu": [2.0 + 0.01 * seed for seed in range(9)] + [math.nan]}
    (pair,) = compared(row_from(table), "golu")
    assert pair.failed == (1, 0) and pair.better == 9 and len(pair.seeds) == 10
    assert pair.p == pytest.approx(wilcoxon([*(1.0 + 0.01 * seed for seed in range(9)), -99.0]).pvalue)
    assert pair.verdict.endswith("; 1 and 0 of 10 seeds failed")
    (pair,) = compared(row_from({"relu": [1.0] * 10, "golu": [9.0, *[math.nan] * 9]}), "golu")
    assert pair.verdict.startswith("worse; 9 and 0 of 10") and math.isnan(pair.difference) and pair.interval is None


def test_claims_are_corrected_over_the_report():
    """Six seeds carry a claim about one pair, and not about one of eight."""
    table = {"relu": [0.0] * 6, "golu": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    row = row_from(table)
    assert compared(row, "golu")[0].verdict == "better"
    several = paired_comparisons([row] * 8, "golu")
    assert {pair.verdict for _, pairs in several for pair in pairs} == {"too few seeds"}
    few = row_from({"relu": [0.0] * 3, "golu": [1.0] * 3})  # which no correction could save, and which costs nothing
    assert paired_comparisons([row, *[few] * 8], "golu")[0][1][0].verdict == "better"
    assert paired_comparisons([row] * 2, "golu")[0][1][0].together is None
    assert compared(row, "golu")[0].together == compared(row, "golu")[0].interval == (1.0, 6.0)


@pytest.mark.parametrize(("reports", "most"), [(5, 1), pytest.param(200, 15, marks=pytest.mark.slow)])
def test_a_report_of_data_without_differences_claims_nothing(reports, most):
    """At most one report in twenty claims anything; 4 of these 200 do, and 109 have a plain interval without 0."""
    random = numpy.random.default_rng(7)
    claims = 0
    for _ in range(reports):
        rows = [
            row_from({name: random.normal(0, 1, 10).tolist() for name in ("relu", "gelu", "golu")}) for _ in range(8)
        ]
        found = paired_comparisons(rows, "golu")
        claims += any(pair.verdict in ("better", "worse") for _, pairs in found for pair in pairs)
    assert claims <= most  # more than these has a chance of 2 and 4 %, if one in twenty claims something


def test_a_report_opens_with_its_answer():
    random = numpy.random.default_rng(3)
    noise = random.normal(0, 1, 8)
    table = {"relu": noise.tolist(), "gelu": (noise + random.normal(0, 1, 8)).tolist(), "golu": (noise + 3).tolist()}
    rows = [row_from({name: [90 + value for value in values] for name, values in table.items()})]
    paired = paired_comparisons(rows, "golu")
    seeds, intervals, recipes = answer(paired, ["No claim over recipes: too few."], "golu")
    assert seeds.startswith("Over seeds, of 2 comparisons that are corrected together, GoLU is better in 2 (")
    assert "against ReLU" in seeds and seeds.endswith("and worse in 0.")
    assert intervals.startswith("Of 2 intervals of 95 %, each by itself, 2 exclude 0, where 5 % would by chance;")
    assert recipes == "No claim over recipes: too few."
    second = [
        dataclasses.replace(row, is_primary=False, metric=dataclasses.replace(row.metric, label="x (%)"))
        for row in rows
    ]
    seeds, _, _ = answer(paired_comparisons([*rows, *second], "golu"), [""], "golu")
    assert seeds.count(" against ReLU in x (%)") == 1 and seeds.count(" against ReLU") == 2
    few = paired_comparisons([row_from({"relu": [1.0, 2.0], "golu": [2.0, 4.0]})], "golu")
    seeds, intervals, _ = answer(few, [""], "golu")
    assert seeds == "Over seeds no claim: the one comparison of GoLU has too few seeds for one."
    assert intervals == "No comparison has the seeds for an interval."
    assert answer([], [""], "golu")[0].startswith("Nothing is compared over seeds")
    without = paired_comparisons([row_from({"relu": [1.0] * 6, "gelu": [2.0] * 6})], "golu")
    assert "no run is of GoLU; choose one of ReLU, GELU by --reference" in answer(without, [""], "golu")[0]


def test_what_is_no_larger_is_claimed_where_the_seeds_show_it():
    """Two one-sided signed-rank tests by SciPy, against the interval."""
    random = numpy.random.default_rng(5)
    close = random.normal(0.02, 0.1, 12)
    for within, shown in ((0.05, False), (1.0, True)):
        row = row_from({"relu": [100.0] * 12, "golu": (100 + close).tolist()})
        pair = paired_comparisons([row], "golu", within)[0][1][0]
        one_sided = [wilcoxon(close + sign * within, alternative=side).pvalue for sign, side in SIDES]
        assert pair.equivalent is shown is bool(max(one_sided) < 0.05)
        assert pair.verdict == (f"no difference above {within:g} %" if shown else "no difference shown")
    several = paired_comparisons([row] * 40, "golu", 0.2)  # corrected for forty
    assert paired_comparisons([row], "golu", 0.2)[0][1][0].equivalent
    assert [pair.equivalent for _, pairs in several for pair in pairs] == [
        max(wilcoxon(close + sign * 0.2, alternative=side).pvalue for sign, side in SIDES) < 0.05 / 40
    ] * 40
    failing = row_from({"relu": [100.0] * 12, "golu": [*(100 + close[:11]).tolist(), math.nan]})
    assert not paired_comparisons([failing], "golu", 5.0)[0][1][0].equivalent
    assert not paired_comparisons([row], "golu")[0][1][0].equivalent


def test_a_difference_and_its_bound_are_claimed_together():
    """A real difference that is smaller than what matters is both; and equal seeds are no lack of seeds."""
    random = numpy.random.default_rng(6)
    small = random.normal(0.05, 0.01, 12)
    for sign, word in ((1, "better"), (-1, "worse")):
        row = row_from({"relu": [100.0] * 12, "golu": (100 + sign * small).tolist()})
        (pair,) = paired_comparisons([row], "golu", 0.6)[0][1]
        assert pair.verdict == f"{word}, by less than 0.6 %"
        assert f"{word} in 1 (r against ReLU)" in (said := answer([(row, [pair])], [""], "golu")[0])
        assert "in 1 no difference is above 0.6 %" in said
        assert paired_comparisons([row], "golu")[0][1][0].verdict == word
    equal = row_from({"relu": [100.0] * 12, "golu": [100.1, 99.9, 100.1, *[100.0] * 9]})
    (pair,) = paired_comparisons([equal], "golu", 0.6)[0][1]
    assert pair.p is None and pair.verdict == "no difference above 0.6 %"
    assert "too few seeds" not in answer([(equal, [pair])], [""], "golu")[0]
    assert paired_comparisons([equal], "golu")[0][1][0].verdict == "too few seeds"


SIDES = ((1, "greater"), (-1, "less"))


@pytest.mark.parametrize(("effect", "comparisons"), [(1.5, 1), (1.0, 1), (1.0, 8)])
def test_seeds_that_are_needed_show_the_difference(effect, comparisons):
    """By simulation of the test that is made; 600 studies tell 0.8 within 0.05."""
    n = seeds_needed(1.0, effect, comparisons)
    random = numpy.random.default_rng(11)
    level = 0.05 / comparisons
    shown = numpy.mean([wilcoxon(random.normal(effect, 1, n)).pvalue < level for _ in range(600)])
    assert 0.74 <= shown <= 0.92
    assert seeds_needed(0.0, 1.0, comparisons) == next(n for n in range(99) if comparisons * 2.0 ** (1 - n) < 0.05)
    assert seeds_needed(1.0, 1e-4, 1) is None
    assert seeds_needed(2.0, effect, comparisons) > n


def test_the_figure_of_effects_has_each_interval_once():
    values = {"relu": [100.0] * 7, "gelu": [50.0] * 7, "golu": [101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0]}
    rows = [row_from(values)] * 2
    paired = paired_comparisons(rows, "golu")
    with plain_style():
        figure = forest(paired, "golu")
    lines = [line.get_xdata() for line in figure.figure.axes[0].lines if len(line.get_xdata()) == 2]
    spans = sorted(tuple(map(float, span)) for span in lines if span[0] != span[1])
    pair = next(pair for _, pairs in paired for pair in pairs if pair.other == "relu")
    assert spans[0] == pytest.approx(pair.interval) and len(spans) == 4  # of 100, so that percent are units


def test_means_of_zero_end_no_report():
    rows = rows_from({"relu": [-1.0, 2.0] * 4, "gelu": [0.0, 3.0] * 4, "golu": [1.0, 4.0] * 4})
    over = over_recipes(rows)
    assert over.friedman is not None and over.friedman.rejects
    zeros = rows_from({"relu": [0.0] * 6, "gelu": [0.0] * 6, "golu": [0.0] * 5 + [1.0]})
    assert over_recipes(zeros).friedman is not None


def test_bootstrap_interval():
    values = numpy.random.default_rng(0).normal(10, 1, 50).tolist()
    low, high = bootstrap_interval(values)
    error = statistics.stdev(values) / math.sqrt(50)
    assert low == pytest.approx(statistics.fmean(values) - 1.96 * error, abs=0.1 * error + 0.03)
    assert high == pytest.approx(statistics.fmean(values) + 1.96 * error, abs=0.1 * error + 0.03)
    assert bootstrap_interval(values) == bootstrap_interval(values[::-1])
    assert bootstrap_interval([1.0] * 9) == (1.0, 1.0)
    assert bootstrap_interval([1.0, 2.0, 3.0]) is None


# ----------------------------------------------------------------------------------------------------- over recipes


def test_demsars_example():
    """Mean ranks 3.143, 2.000, 2.893, 1.964, chi-squared 9.28 and CD 1.25, as printed in sections 3.2.2 and 3.2.3."""
    over = over_recipes(rows_from({"relu": C45, "gelu": C45_M, "swish": C45_CF, "golu": C45_M_CF}))
    assert [over.mean_ranks[name] for name in ("relu", "gelu", "swish", "golu")] == pytest.approx(
        [3.143, 2.000, 2.893, 1.964], abs=5e-4
    )
    # Demsar's formula does not correct for ties, SciPy's does
    n, k = over.ranks.shape
    uncorrected = 12 * n / (k * (k + 1)) * (sum(r**2 for r in over.mean_ranks.values()) - k * (k + 1) ** 2 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.005)
    assert over.friedman.statistic == pytest.approx(friedmanchisquare(C45, C45_M, C45_CF, C45_M_CF).statistic)
    assert over.friedman.critical_difference == pytest.approx(1.25, abs=0.005)
    assert over.friedman.p == pytest.approx(friedmanchisquare(C45, C45_M, C45_CF, C45_M_CF).pvalue, abs=0.01)
    assert over.friedman.rejects


def test_the_permutation_p_is_exact_where_all_can_be_listed():
    """Three activations always in the same order in six recipes: 6 of the 6^6 arrangements agree so perfectly."""
    over = over_recipes(rows_from({"relu": [1.0] * 6, "gelu": [2.0] * 6, "golu": [3.0] * 6}))
    assert over.friedman.statistic == pytest.approx(12)
    assert over.friedman.p <= 2e-4 + 6 / 6**6
    assert float(over.friedman.nemenyi.loc["relu", "golu"]) < 0.05
    assert float(over.friedman.nemenyi.loc["relu", "gelu"]) > 0.05
    assert over.friedman.wilcoxon_holm is None  # three pairs over six recipes could give 3 x 2 / 64 at best


def test_chance_is_not_called_a_difference():
    random = numpy.random.default_rng(5)
    rejected = 0
    for _ in range(40):
        table = {name: random.normal(size=8).tolist() for name in ("relu", "gelu", "golu")}
        rejected += over_recipes(rows_from(table)).friedman.rejects
    assert rejected <= 6  # 5 % of 40 is 2


def test_wilcoxon_over_recipes_is_scipys():
    random = numpy.random.default_rng(1)
    table = {name: (10 + place + random.normal(size=9)).tolist() for place, name in enumerate(("relu", "gelu", "golu"))}
    over = over_recipes(rows_from(table))
    values = numpy.array(list(table.values()))
    relative = values / values.mean(axis=0)
    raw = [wilcoxon(relative[i], relative[j]).pvalue for i, j in itertools.combinations(range(3), 2)]
    found = over.friedman.wilcoxon_holm
    pairs = [found.iloc[i, j] for i, j in itertools.combinations(range(3), 2)]
    assert pairs == pytest.approx(holm(raw))


@pytest.mark.parametrize("recipes", [1, 3, FEWEST_FAMILIES - 1])
def test_too_few_recipes(recipes):
    over = over_recipes(rows_from({"relu": [1.0] * recipes, "gelu": [2.0] * recipes, "golu": [3.0] * recipes}))
    assert over.friedman is None
    assert f"{recipes} recipe" in over.reason
    assert "too few" in over.reason
    assert rank_intervals(over) == {}
    assert over.mean_ranks["golu"] == 1.0


def test_two_activations_are_too_few_for_friedman():
    over = over_recipes(rows_from({"relu": [1.0] * 8, "golu": [2.0] * 8}))
    assert "2 activations are too few" in over.reason


def test_ties_share_their_ranks():
    over = over_recipes(rows_from({"relu": [1.0], "gelu": [2.0], "golu": [2.0]}))
    assert over.ranks.tolist() == [[3.0, 1.5, 1.5]]
    assert over.wins == {"relu": 0, "gelu": 1, "golu": 1}


def test_a_recipe_that_lacks_activations_takes_no_part():
    rows = rows_from({"relu": [1.0, 1.0, 1.0], "gelu": [2.0, 2.0], "golu": [3.0, 3.0, 3.0, 3.0]})
    over = over_recipes(rows)
    assert over.activations == ("relu", "golu") or len(over.rows) == 2
    assert {row.recipe for row, _ in over.left_out} >= {"recipe03"}
    assert len(over.rows) + len(over.left_out) == 4


def test_failures_are_the_worst_ranks():
    """However good the seeds are that are left; and all of them failing is worse still."""
    rows = rows_from({"relu": [1.0, 2.0], "golu": [2.0, math.nan]})
    assert over_recipes(rows).ranks.tolist() == [[2.0, 1.0], [1.0, 2.0]]
    survivors = row_from({"relu": [1.0] * 10, "mish": [math.nan] * 10, "golu": [9.0, *[math.nan] * 9]})
    over = over_recipes([survivors])
    assert dict(zip(over.activations, over.ranks[0], strict=True)) == {"relu": 1, "golu": 2, "mish": 3}
    assert survivors.best == {"relu"}
    assert row_from({"relu": [1.0, math.nan], "golu": [2.0, math.nan]}).best == {"golu"}


def test_one_seed_does_not_compete_with_ten():
    runs = [run_of("r", name, seed, 1.0 + place) for seed in range(10) for place, name in enumerate(("relu", "gelu"))]
    (row,) = rows_of([*runs, run_of("r", "golu", 0, 9.0)])
    assert row.best == {"gelu"} and row.activations == ["relu", "gelu"]
    assert over_recipes([row]).activations == ("relu", "gelu")
    (row,) = rows_of([*runs, *(run_of("r", "golu", seed, 9.0) for seed in range(5))])
    assert row.best == {"golu"}


tables = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.floats(0.1, 100), min_size=k, max_size=k), min_size=1, max_size=5)
)


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms())
def test_ranks_are_scipys_and_do_not_depend_on_order(values, random):
    names = ["relu", "gelu", "swish", "mish", "golu"][: len(values[0])]
    runs = [run_of(f"r{i}", name, 0, row[j]) for i, row in enumerate(values) for j, name in enumerate(names)]
    shuffled = list(runs)
    random.shuffle(shuffled)
    over, other = over_recipes(rows_of(runs)), over_recipes(rows_of(shuffled))
    expected = [rankdata([-value for value in row]).tolist() for row in values]
    by_recipe = dict(zip((row.recipe for row in over.rows), over.ranks.tolist(), strict=True))
    assert [by_recipe[f"r{i}"] for i in range(len(values))] == expected
    assert (over.ranks == other.ranks).all()
    assert [row.recipe for row in over.rows] == [row.recipe for row in other.rows]
    assert over.ranks.sum() == pytest.approx(len(values) * sum(range(1, len(names) + 1)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1.0, 100.0), min_size=4, max_size=4), st.floats(0.1, 10.0), st.floats(-50, 50))
def test_ranks_do_not_depend_on_the_unit(values, scale, shift):
    names = ["relu", "gelu", "mish", "golu"]
    moved = [value * scale + shift for value in values]
    if len(set(moved)) == len(set(values)):
        one = over_recipes(rows_from({n: [v] for n, v in zip(names, values, strict=True)}))
        two = over_recipes(rows_from({n: [v] for n, v in zip(names, moved, strict=True)}))
        assert one.ranks.tolist() == two.ranks.tolist()


def test_a_family_of_recipes_is_one_block():
    """Four alike recipes of one family weigh as much as one recipe, in ranks, tests and their least number."""
    values = {"relu": [1.0] * 4 + [3.0] * 5, "gelu": [2.0] * 4 + [2.0] * 5, "golu": [3.0] * 4 + [1.0] * 5}
    rows = rows_from(values)
    joined = [dataclasses.replace(row, family="f" if place < 4 else row.recipe) for place, row in enumerate(rows)]
    over = over_recipes(joined)
    once = over_recipes(rows[3:])
    assert over.mean_ranks == once.mean_ranks and over.friedman.statistic == once.friedman.statistic
    assert over.friedman.p == once.friedman.p and len(over.rows) == 9 and over.counted == "9 recipes of 6 families"
    assert over.ranks.shape == (9, 3) and over.wins == over_recipes(rows).wins
    few = over_recipes(joined[:8])
    assert few.friedman is None and few.reason.startswith("8 recipes of 5 families are too few")
    mixed = over_recipes([dataclasses.replace(row, family="f") for row in rows])
    assert mixed.family_ranks.tolist() == [[1.0, 2.0, 3.0]]  # means of ranks 17 / 9, 2 and 19 / 9, ranked again


@pytest.mark.slow
def test_correlated_recipes_do_not_make_a_difference():
    """Of 200 reports a test at 5 % rejects more than 20 with a chance below 0.2 %; with single recipes 40."""
    random = numpy.random.default_rng(1)
    said = [claims_of(simulated_rows(random, 16, 3, FAMILIES)) for _ in range(200)]
    assert sum(one["difference over recipes"] for one in said) <= 20
    assert sum(one["… if each recipe were a block"] for one in said) > 20


def test_a_row_stands_for_its_recipe_once():
    def row(variant: str, overrides: Any, value: float) -> Row:
        (made,) = rows_of([run_of("r", "relu", 0, 1.0), run_of("r", "golu", 0, value)])
        return dataclasses.replace(made, variant=variant, overrides=overrides)

    plain, other = row("lr=0.1", (), 2.0), row("lr=0.2", (("lr", 0.1, 0.2),), 0.5)
    over = over_recipes([other, plain])
    assert over.ranks.tolist() == [[2.0, 1.0]]
    assert [left.variant for left, _ in over.left_out] == ["lr=0.2"]


# ---------------------------------------------------------------------------------------------------- collapsed seeds


def vision_row(table: dict[str, list[float]], classes: int = 10) -> Row:
    runs = [
        run_of("r", a, seed, value, task="vision") for a, values in table.items() for seed, value in enumerate(values)
    ]
    for run in runs:
        run.result.data["classes"] = classes
    (row,) = rows_of(runs)
    return dataclasses.replace(row, metric_name="top1")


def test_collapsed_seeds_stand_next_to_the_claim():
    """GoLU is better at 10 of 12 seeds, and at the other two no better than guessing, which no estimate shows."""
    golu = [97.0 + 0.01 * seed for seed in range(12)]
    table = {"relu": [96.0 + 0.003 * seed for seed in range(12)], "golu": [9.0, *golu[1:11], math.nan]}
    row = vision_row(table)
    assert row.collapse_bound == pytest.approx((statistics.median([9.0, *golu[1:11]]) + 10) / 2)
    (pair,) = compared(row, "golu")
    assert pair.collapsed == (2, 0) and pair.failed == (1, 0)
    assert pair.verdict.endswith("; 1 and 0 of 12 seeds failed; 2 and 0 of 12 seeds collapsed")
    (pair,) = compared(vision_row({"relu": [80.0] * 12, "golu": [9.0, *golu[1:]]}), "golu")
    assert pair.verdict == "better in the typical seed; 1 and 0 of 12 seeds collapsed"
    (pair,) = compared(vision_row({**table, "golu": golu}), "golu")
    assert pair.verdict == "better" and pair.collapsed == (0, 0)


@pytest.mark.parametrize(("classes", "value", "collapsed"), [(10, 54.0, False), (10, 53.0, True), (2, 73.0, True)])
def test_half_way_to_chance_is_the_border(classes, value, collapsed):
    row = vision_row({"relu": [97.0] * 3, "golu": [97.0, 97.0, value]}, classes)
    assert row.collapsed("golu") == ({2} if collapsed else set()) and not row.collapsed("relu")


def test_where_less_is_better_the_border_is_twice_the_median():
    runs = [
        run_of("r", "golu", seed, value, task="lm", higher=False) for seed, value in enumerate((4.0, 4.0, 7.9, 8.1))
    ]
    (row,) = rows_of(runs)
    assert row.collapse_bound == 2 * statistics.median((4.0, 4.0, 7.9, 8.1)) and row.collapsed("golu") == set()
    runs[3] = run_of("r", "golu", 3, 12.0, task="lm", higher=False)
    (row,) = rows_of(runs)
    assert row.collapsed("golu") == {3}


def test_a_metric_that_nobody_knows_has_failures_only():
    row = row_from({"golu": [100.0, 1.0, math.nan]})
    assert row.collapse_bound is None and row.collapsed("golu") == {2}


@pytest.mark.parametrize("effect", [1e-3, 0.5, 1.0, 40.0])
@pytest.mark.parametrize("higher", [True, False])
def test_a_claim_follows_the_sign_of_the_estimate(effect, higher):
    """However small the effect is, and whichever direction is better."""
    relu = [50.0 + seed for seed in range(8)]
    golu = [value + effect * (1 + 0.01 * seed) for seed, value in enumerate(relu)]
    (pair,) = compared(row_from({"relu": relu, "golu": golu}, higher), "golu")
    assert pair.verdict == ("better" if higher else "worse") and math.copysign(1, pair.difference) == (
        1 if higher else -1
    )
    (pair,) = compared(row_from({"relu": golu, "golu": relu}, higher), "golu")
    assert pair.verdict == ("worse" if higher else "better")
