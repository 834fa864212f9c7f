"""What a report opens with: sentences that say what may be claimed, and which runs failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .comparison import OverRecipes
from .metrics import in_table_order, paper_name
from .paired import ALPHA, PairedComparison
from .summary import Row
from .tables import p_value

Compared = Sequence[tuple[Row, Sequence[PairedComparison]]]

_NAMED = 6


def answer(paired: Compared, findings: Sequence[str], reference: str) -> list[str]:
    """Over seeds, of all intervals together, over recipes, and of failed runs if there are any: a sentence each.

    Args:
        paired: each row with the reference against each other activation.
        findings: over recipes, of which the first is taken.
        reference: the activation that is compared.
    """
    name = paper_name(reference)
    listed = [(row, pair) for row, pairs in paired for pair in pairs]
    if not listed:
        return [
            f"Nothing is compared over seeds: {_why_not(paired, reference)}.",
            findings[0],
            *_failures([row for row, _ in paired]),
        ]
    return [_over_seeds(listed, name), _of_intervals(listed), findings[0], *_failures([row for row, _ in paired])]


def _failures(rows: Sequence[Row]) -> list[str]:
    """How many runs of each activation failed, over all recipes; nothing where none did."""
    runs, failed = Counter[str](), Counter[str]()
    for row in rows:
        for name, cell in row.cells.items() if row.is_primary else ():
            runs[name] += cell.runs
            failed[name] += len(cell.failed)
    if not failed.total():
        return []
    listed = ", ".join(f"{paper_name(name)} {failed[name]} of {runs[name]}" for name in in_table_order(runs))
    return [f"Failed runs, each of which counts as a loss: {listed}."]


def _why_not(paired: Compared, reference: str) -> str:
    there = in_table_order(name for row, _ in paired for name in row.cells)
    if not there or reference in there:
        return f"{paper_name(reference)} and another activation have no seed in common"
    listed = ", ".join(paper_name(name) for name in there)
    return f"no run is of {paper_name(reference)}; choose one of {listed} by --reference"


def _over_seeds(listed: Sequence[tuple[Row, PairedComparison]], name: str) -> str:
    better, worse, tested, equal = ([], [], 0, 0)
    for row, pair in listed:
        tested += pair.p is not None
        equal += pair.equivalent
        if pair.verdict.startswith("better"):
            better.append(_comparison(row, pair))
        elif pair.verdict.startswith("worse"):
            worse.append(_comparison(row, pair))
    few = sum(pair.p is None and not pair.equivalent for _, pair in listed)
    if not tested and not equal:
        what = "the one comparison" if few == 1 else f"each of the {few} comparisons"
        return f"Over seeds no claim: {what} of {name} has too few seeds for one."
    claims = f"{name} is better in {_counted(better)} and worse in {_counted(worse)}"
    tested = tested or len(listed)
    rest = f"; in {equal} no difference is above {listed[0][1].within:g} %" if equal else ""
    rest += f"; {few} more have too few seeds" if few else ""
    together = "1 comparison" if tested == 1 else f"{tested} comparisons that are corrected together"
    return f"Over seeds, of {together}, {claims}{rest}."


def _comparison(row: Row, pair: PairedComparison) -> str:
    metric = "" if row.is_primary else f" in {row.metric.label}"
    return f"{row.name} against {paper_name(pair.other)}{metric}"


def _counted(places: Sequence[str]) -> str:
    if not places:
        return "0"
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return f"{len(places)} ({', '.join(places[:_NAMED])}{more})"


def _of_intervals(listed: Sequence[tuple[Row, PairedComparison]]) -> str:
    plain = [pair.interval for _, pair in listed if pair.interval is not None]
    together = [pair.together for _, pair in listed if pair.together is not None]
    failed = sum(sum(pair.failed) > 0 for _, pair in listed)
    excluding = [sum(low > 0 or high < 0 for low, high in intervals) for intervals in (plain, together)]
    failures = f" Failed runs count in {failed} comparisons." if failed else ""
    if not plain:
        return f"No comparison has the seeds for an interval.{failures}"
    return (
        f"Of {len(plain)} intervals of 95 %, each by itself, {excluding[0]} exclude 0, where 5 % would by chance; "
        f"of the {len(together)} that hold for all together {excluding[1]} do.{failures}"
    )


def findings_over_recipes(over: OverRecipes) -> list[str]:
    """What may be said over all recipes, in sentences."""
    if over.friedman is None:
        return [f"No claim over recipes: {over.reason}."]
    means = over.mean_ranks
    best = min(means, key=lambda name: means[name])
    sentence = f"Friedman's test over {over.counted}: p {p_value(over.friedman.p)}"
    if not over.friedman.rejects:
        return [f"{sentence}; it shows no difference between the activations."]
    sentences = [f"{sentence}; the activations differ. {paper_name(best)} has the best mean rank, {means[best]:.2f}."]
    for test, p_values in (
        ("Nemenyi's test", over.friedman.nemenyi),
        ("Wilcoxon's test with Holm's correction", over.friedman.wilcoxon_holm),
    ):
        if p_values is None:
            sentences.append(f"{test} cannot reach {ALPHA} for this many pairs over {over.counted}.")
            continue
        apart = [paper_name(name) for name in means if name != best and float(p_values[best][name]) < ALPHA]
        told = f"tells it apart from {', '.join(apart)}" if apart else "tells it apart from none"
        sentences.append(f"{test} {told}.")
    return sentences
