"""The paper's published means through the statistics of `golu-core aggregate`: what they carry over recipes.

python tools/published.py
"""

from __future__ import annotations

import math

from golu_core.studies.reporting.answer import findings_over_recipes
from golu_core.studies.reporting.comparison import OverRecipes, over_recipes
from golu_core.studies.reporting.formats import markdown
from golu_core.studies.reporting.metrics import metric_of
from golu_core.studies.reporting.paired import smallest_p
from golu_core.studies.reporting.summary import Cell, Row, family_of
from golu_core.studies.reporting.tables import pairs_table, rank_table
from golu_core.training.tasks.task import installed_tasks, recipes_of

SEEDS = 3


def published_rows() -> list[Row]:
    """A row for each line of the paper's tables, by the metric that its recipe is compared by."""
    rows: dict[tuple[str, str], Row] = {}
    for task in installed_tasks().values():
        for name, recipe in recipes_of(task).items():
            paper = recipe.paper
            if paper is None or paper.metric not in paper.results or (paper.model, paper.dataset) in rows:
                continue
            cells = {
                activation: Cell({0: mean}, (), (mean, spread))
                for activation, (mean, spread) in paper.results[paper.metric].items()
            }
            metric = metric_of(task.name, paper.metric, task.metrics[paper.metric].higher_is_better)
            rows[paper.model, paper.dataset] = Row(
                task=task.name,
                recipe=name,
                model=paper.model,
                dataset=paper.dataset,
                family=family_of(paper.model, paper.dataset),
                variant="",
                overrides=(),
                metric=metric,
                metric_name=paper.metric,
                is_primary=True,
                cells=cells,
                default_activation=recipe.default_activation,
                runs=(),
                settings=None,
            )
    return list(rows.values())


def sentences(rows: list[Row], over: OverRecipes) -> list[str]:
    """What the published means carry, over seeds and over recipes."""
    comparisons = sum(len(row.cells) - 1 for row in rows)
    least = smallest_p(SEEDS, comparisons)
    over_seeds = (
        f"Over seeds: {comparisons} comparisons with GoLU of {SEEDS} seeds each, of which a signed-rank test gives at "
        f"least p = {min(1.0, least):g}: nothing can be tested."
    )
    return [over_seeds, *findings_over_recipes(over)]


def main() -> None:
    """Prints the table of ranks and the sentences."""
    rows = published_rows()
    over = over_recipes(rows)
    table = rank_table(over)
    assert table is not None and math.isfinite(over.ranks.sum())
    tests = over.friedman
    pairs = {} if tests is None else {"Nemenyi": tests.nemenyi, "Wilcoxon, Holm": tests.wilcoxon_holm}
    print("\n\n".join(sentences(rows, over)) + "\n")
    print(markdown(table))
    for name, found in pairs.items():
        if found is not None:
            print(markdown(pairs_table(f"{name}: p of pairs of activations", found, over.activations)))


if __name__ == "__main__":
    main()
