"""How the command lines of studies read and show their flags."""

from __future__ import annotations

from typing import Any

import tyro

CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""Flags that are on or off have one form; a flag without a default is left out, and never passed as `None`."""


def shown(metavar: str | None = None) -> Any:
    """Return tyro's mark of a flag without a default: `--help` shows `metavar`, and no `(default: None)`."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")
