"""curves.png: loss and primary metric over steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...regular_files import regular_bytes
from ..storage.ownership import write_atomically

_STARTS = {"given": "unchanged, with", "swapped": "untrained, with"}
_LEARNED = ("alpha", "beta", "gamma")
_PLACES = ("step", "epoch", "split", "seconds")
_TENSORS = ("loaded", "made_new", "left_over")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, without damaged lines."""
    found = []
    for line in regular_bytes(path).decode("utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and {"step", "split"} <= values.keys():
            found.append(values)
    return found


def start_in_result(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts about initial weights for result.json, from a run's metrics; empty if it had none.

    Returns:
        `start`: counts of tensors, and the test metrics before training, as given and after the swap of activations.
    """
    lines = {line["split"]: line for line in metrics if line["split"] in _STARTS}
    if not lines:
        return {}
    bare = {
        split: {name: value for name, value in line.items() if name not in (*_PLACES, *_TENSORS)}
        for split, line in lines.items()
    }
    tensors = {name: lines["given"].get(name) for name in _TENSORS}
    return {"start": {"tensors": tensors, **bare}}


def save_curves(path: Path, metrics: list[dict[str, Any]], primary: str, title: str) -> None:
    """Draw training and test loss, the primary test metric, and learned activation parameters over steps."""
    from .drawing import new_figure, save_png

    learned = [line for line in metrics if line["split"] == "test" and f"{_LEARNED[0]}_mean" in line]
    figure = new_figure(13.5 if learned else 9, 3.6)
    axes = figure.subplots(1, 3 if learned else 2)
    _draw_losses(axes[0], metrics)
    _draw_metric(axes[1], metrics, primary)
    if learned:
        _draw_learned(axes[2], learned)
    for panel in axes:
        panel.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    write_atomically(path, lambda partial: save_png(figure, partial))


def _draw_losses(axes: Any, metrics: list[dict[str, Any]]) -> None:
    for split, style in (("train", "-"), ("test", "o-")):
        points = [(line["step"], line["loss"]) for line in metrics if line["split"] == split and "loss" in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=split, markersize=4)
            axes.legend()
    axes.set(xlabel="optimizer step", ylabel="loss")


def _draw_metric(axes: Any, metrics: list[dict[str, Any]], primary: str) -> None:
    """Draw the metric at each evaluation, and before training if the run had initial weights."""
    points = [(line["step"], line[primary]) for line in metrics if line["split"] == "test" and primary in line]
    if points:
        axes.plot(*zip(*points, strict=True), "o-", markersize=4, color="tab:green")
        axes.annotate(f"{points[-1][1]:.4g}", points[-1], textcoords="offset points", xytext=(-4, -14), ha="right")
    for line in metrics:
        if line["split"] in _STARTS and primary in line:
            label = f"{_STARTS[line['split']]} {line['activation']}: {line[primary]:.4g}"
            style = {"given": "tab:gray", "swapped": "tab:orange"}[line["split"]]
            axes.axhline(line[primary], color=style, linestyle="--", linewidth=1)
            axes.plot([0], [line[primary]], "s", color=style, label=label, markersize=5)
            axes.legend(fontsize=8)
    axes.set(xlabel="optimizer step", ylabel=f"test {primary}")


def _draw_learned(axes: Any, lines: list[dict[str, Any]]) -> None:
    """Draw the mean and range of each parameter over the network's activations."""
    steps = [line["step"] for line in lines]
    for name in _LEARNED:
        (mean,) = axes.plot(steps, [line[f"{name}_mean"] for line in lines], "o-", markersize=4, label=name)
        bounds = [[line[f"{name}_{end}"] for line in lines] for end in ("least", "most")]
        axes.fill_between(steps, *bounds, color=mean.get_color(), alpha=0.15, linewidth=0)
    axes.legend()
    axes.set(xlabel="optimizer step", ylabel="learned: mean and range")
