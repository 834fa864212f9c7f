"""Activations in one figure are told apart, also by those who see fewer colors."""

from __future__ import annotations

import itertools

import numpy
import pytest

from golu_core.activation import ACTIVATIONS
from golu_core.studies.reporting.looks import _COLORS, color, look, looks_of, told_apart

# linear RGB of what is seen, at full severity (Machado, Oliveira, and Fernandes, IEEE TVCG 15, 2009)
SEEN = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "all colors": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
XYZ = numpy.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
WHITE = numpy.array([0.95047, 1.0, 1.08883])  # D65


def lab(code: str, seen: str) -> numpy.ndarray:
    """CIE L*a*b* of a color as it is seen."""
    channels = numpy.array([int(code[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = numpy.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ numpy.clip(numpy.array(SEEN[seen]) @ linear, 0, 1) / WHITE
    x, y, z = numpy.where(ratio > 0.008856, numpy.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return numpy.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN)
def test_no_two_colors_look_alike(seen):
    for one, other in itertools.combinations(_COLORS, 2):
        assert numpy.linalg.norm(lab(one, seen) - lab(other, seen)) > 10, (one, other)


@pytest.mark.parametrize("count", [2, 5, 7, 12, len(ACTIVATIONS)])
@pytest.mark.parametrize("seed", range(5))
def test_each_activation_of_a_report_has_its_own_look(count, seed):
    names = (
        numpy.random.default_rng(seed).permutation([*ACTIVATIONS, "./mine.py:Snake", "torch.nn.CELU"])[:count].tolist()
    )
    found = looks_of(names)
    assert len({(one.color, one.marker) for one in found.values()}) == count
    assert len({one.color for one in found.values()}) == min(count, len(_COLORS))
    assert count > 12 or len({(one.color, one.dash) for one in found.values()}) == count
    assert found == looks_of(reversed(names))


def test_the_papers_activations_always_look_the_same():
    papers = {name: look(name) for name in ("relu", "gelu", "swish", "mish", "golu")}
    assert {name: looks_of([*ACTIVATIONS])[name] for name in papers} == papers


def test_a_figure_has_the_looks_of_its_report():
    clash = next(name for name in ACTIVATIONS if name != "relu" and color(name) == color("relu"))
    with told_apart(["relu", clash]):
        assert color(clash) != color("relu")
    assert color(clash) == color("relu")
