"""The paper's means through our statistics, against SciPy on the paper's own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from scipy.stats import friedmanchisquare, rankdata

from golu_core.studies.reporting.comparison import over_recipes
from golu_core.studies.reporting.metrics import paper_name
from golu_core.training.tasks.task import installed_tasks, recipes_of
from published import main, published_rows, sentences
from published_tables import COLUMNS, ROWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results.md"
LOWER_IS_BETTER = ("perplexity", "loss")


def test_every_line_of_the_paper_is_there_once():
    rows = published_rows()
    found = {(row.recipe, row.metric_name) for row in rows}
    primary = {key for key in ROWS if key[0] in {row.recipe for row in rows}}
    assert found <= set(ROWS) and {recipe for recipe, _ in ROWS} == {recipe for recipe, _ in found}
    assert len(found) == len({recipe for recipe, _ in primary})


def test_ranks_and_the_test_over_families_are_those_of_scipy():
    rows = published_rows()
    over = over_recipes(rows)
    assert over.activations == COLUMNS
    blocks: dict[str, list[numpy.ndarray]] = {}
    for row, ranks in zip(over.rows, over.ranks, strict=True):
        means = numpy.array([float(cell.split("±")[0]) for cell in ROWS[row.recipe, row.metric_name].split()])
        expected = rankdata(means if row.metric_name in LOWER_IS_BETTER else -means)
        assert (ranks == expected).all(), row.recipe
        blocks.setdefault(row.family, []).append(expected)
    by_family = numpy.array([rankdata(numpy.mean(ranks, axis=0).round(9)) for ranks in blocks.values()])
    assert len(blocks) == 14 and over.wins["golu"] == 16
    assert over.friedman is not None
    assert over.friedman.statistic == pytest.approx(friedmanchisquare(*by_family.T).statistic)
    assert list(over.mean_ranks.values()) == pytest.approx(by_family.mean(axis=0).tolist())


def test_what_is_printed(capsys):
    main()
    printed = capsys.readouterr().out
    rows = published_rows()
    assert all(sentence in printed for sentence in sentences(rows, over_recipes(rows)))
    assert "nothing can be tested" in printed and "### Nemenyi" in printed
    assert printed.strip().replace("### ", "#### ") in PAGE.read_text(), "run: python tools/published.py"


def test_the_page_has_the_means_of_the_runs():
    runs = json.loads((PAGE.parent / "results" / "evidence.json").read_text())["runs"]
    assert len(runs) == 300 and len({(recipe, activation, seed) for recipe, activation, seed, _ in runs}) == 300
    rows = [line for line in PAGE.read_text().splitlines() if "| mean |" in line]
    by_recipe = {line.split("|")[1].strip(" †"): line for line in rows}
    decimals = {"top1": 2, "perplexity": 3, "box_map": 2, "loss": 5}
    for recipe in {run[0] for run in runs}:
        metric = next(name for name in decimals if name in next(run[3] for run in runs if run[0] == recipe))
        means = [
            numpy.mean([metrics[metric] for name, own, _, metrics in runs if (name, own) == (recipe, activation)])
            for activation in COLUMNS
        ]
        cells = by_recipe[recipe].split("|")[4:9]
        assert [cell.strip(" *").split(" ±")[0] for cell in cells] == [f"{mean:.{decimals[metric]}f}" for mean in means]


def test_the_page_has_the_means_of_the_longer_runs():
    runs = json.loads((PAGE.parent / "results" / "ddpm-digits-30.json").read_text())["runs"]
    losses = {name: numpy.array([m["loss"] for _, own, _, m in runs if own == name]) for name in ("gelu", "golu")}
    cells = [f"{values.mean():.5f} ± {values.std(ddof=1) / len(values) ** 0.5:.5f}" for values in losses.values()]
    better = int((losses["golu"] < losses["gelu"]).sum())
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith("| ddpm-digits, 30 epochs |"))
    assert f"| {cells[0]} | {cells[1]} |" in row and f"| {better} of {len(losses['golu'])} |" in row


def test_the_page_has_the_means_at_the_codes_own_rates():
    """Each cell of its table is what the recipes hold, and the activation that it names is first, or next to GoLU."""
    lines = PAGE.read_text().partition("### At the code's own learning rates")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    recipes = {
        "Mask R-CNN, box mAP": ("detect", "maskrcnn-resnet50-fpn-coco", "box_map", 2),
        "Mask R-CNN, mask mAP": ("detect", "maskrcnn-resnet50-fpn-coco", "mask_map", 2),
        "DDPM, loss": ("diffusion", "ddpm-celeba", "loss", 5),
        "DeepLabV3, mIoU": ("detect", "deeplabv3-resnet50-coco", "miou", 2),
    }
    assert [row[0] for row in rows] == list(recipes)
    for title, _, golu, following, _, golu_there, first in rows:
        task, name, metric, decimals = recipes[title]
        paper, sign = recipes_of(installed_tasks()[task])[name].paper, -1 if metric == "loss" else 1
        (further,) = [at for at in paper.further if at.settings]
        for results, own, named, place in (
            (paper.results, golu, following, 1),
            (further.results, golu_there, first, 0),
        ):
            means = {paper_name(activation): value for activation, (value, _) in results[metric].items()}
            best = sorted(means, key=lambda activation: -sign * means[activation])[place]
            assert named == f"{best} {means[best]:.{decimals}f}" and own == f"{means['GoLU']:.{decimals}f}"
