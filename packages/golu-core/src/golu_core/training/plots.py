"""curves.png: loss and primary metric over steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .ownership import MADE_BY, write_atomically


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a line that is damaged is left out."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and {"step", "split"} <= values.keys():
            found.append(values)
    return found


def save_curves(path: Path, metrics: list[dict[str, Any]], primary: str, title: str) -> None:
    """Draws training and test loss, and the primary metric of the test set, over optimizer steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, metric_axes = figure.subplots(1, 2)
    for split, style in (("train", "-"), ("test", "o-")):
        points = [(line["step"], line["loss"]) for line in metrics if line["split"] == split and "loss" in line]
        if points:
            loss_axes.plot(*zip(*points, strict=True), style, label=split, markersize=4)
            loss_axes.legend()
    loss_axes.set(xlabel="optimizer step", ylabel="loss")
    points = [(line["step"], line[primary]) for line in metrics if line["split"] == "test" and primary in line]
    if points:
        metric_axes.plot(*zip(*points, strict=True), "o-", markersize=4, color="tab:green")
        metric_axes.annotate(
            f"{points[-1][1]:.4g}", points[-1], textcoords="offset points", xytext=(-4, -14), ha="right"
        )
    metric_axes.set(xlabel="optimizer step", ylabel=f"test {primary}")
    for axes in (loss_axes, metric_axes):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    write_atomically(
        path, lambda partial: figure.savefig(partial, dpi=120, format="png", metadata={"Software": MADE_BY})
    )
