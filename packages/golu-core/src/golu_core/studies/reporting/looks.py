"""How each activation is drawn: by a color, and by a marker and a dash for those who do not tell the colors apart.

Colors are those of Okabe and Ito (Color Universal Design, 2008), of which no two look alike under protanopia or
deuteranopia, with gray in place of black, which a dark page would hide.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from .metrics import in_table_order


class Look(NamedTuple):
    """How an activation is drawn, in matplotlib's words."""

    color: str
    marker: str
    dash: str


_KNOWN = {
    "relu": Look("#0072b2", "o", "-"),
    "gelu": Look("#009e73", "s", "--"),
    "swish": Look("#cc79a7", "^", "-."),
    "mish": Look("#e69f00", "v", ":"),
    "golu": Look("#d55e00", "D", "-"),
    "elu": Look("#56b4e9", "P", "--"),
    "leaky_relu": Look("#7a7a7a", "X", "-."),
}
_COLORS = [known.color for known in _KNOWN.values()]
_MARKERS = [known.marker for known in _KNOWN.values()]
# all pairs of a color and a marker; neighbors differ in both
_OTHERS = [
    Look(_COLORS[n % 7], _MARKERS[(n + shift) % 7], ("-", "--", "-.", ":")[(n + shift) % 4])
    for shift in range(1, 7)
    for n in range(7)
]
_current: ContextVar[Mapping[str, Look]] = ContextVar("looks", default=_KNOWN)


def looks_of(activations: Iterable[str]) -> dict[str, Look]:
    """Return a look for each activation: no two share color and marker, nor color and dash while there are enough.

    The paper's activations always look the same; others begin their search at a place that follows from their name.
    """
    found: dict[str, Look] = {}
    names = in_table_order(dict.fromkeys(activations))
    for name in sorted(names, key=lambda name: name not in _KNOWN):
        found[name] = _KNOWN.get(name) or _free_look(name, found.values())
    return found


def _free_look(name: str, taken: Iterable[Look]) -> Look:
    start = sum(map(ord, name)) % len(_OTHERS)
    order = [*_OTHERS[start:], *_OTHERS[:start]]
    used = list(taken)
    colors, pairs = {look.color for look in used}, {(look.color, look.marker) for look in used}
    dashed = {(look.color, look.dash) for look in used}
    fresh = (look for look in order if look.color not in colors)
    other = [look for look in order if (look.color, look.marker) not in pairs]
    both = (look for look in other if (look.color, look.dash) not in dashed)
    return next(itertools.chain(fresh, both, other, order))


@contextmanager
def told_apart(activations: Iterable[str]) -> Iterator[None]:
    """Draw these activations with looks of which no two are alike."""
    token = _current.set(looks_of(activations))
    try:
        yield
    finally:
        _current.reset(token)


def look(activation: str) -> Look:
    """Return how an activation is drawn here."""
    return _current.get().get(activation) or looks_of([activation])[activation]


def color(activation: str) -> str:
    """Return the color of an activation here."""
    return look(activation).color
