"""The runs that a study plans, of which some may have no result: a comparison without them may be another."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .collect import Collection, LeftOut
from .metrics import in_table_order, paper_name


@dataclass(frozen=True)
class Planned:
    """A run of a study.

    Attributes:
        folder: Where the study puts it.
        recipe, activation, seed: As its result names them.
        checksum: `config_sha256` of its configuration.
    """

    folder: Path
    recipe: str
    activation: str
    seed: int
    checksum: str


def with_planned_runs(collection: Collection, planned: Sequence[Planned]) -> Collection:
    """Return the same collection, in which planned runs that neither finished nor failed are named.

    A run is known by what its result says, or by its folder where the checksum is not known before training.
    """
    counted = [*collection.runs, *collection.diverged]
    done = {
        (run.result.recipe, run.result.activation, run.result.seed, run.result.config_sha256) for run in collection.runs
    }
    folders = {os.path.realpath(run.folder) for run in counted}
    missing = [
        run
        for run in planned
        if (run.recipe, run.activation, run.seed, run.checksum) not in done
        and os.path.realpath(run.folder) not in folders
    ]
    named = {os.path.realpath(left.folder) for left in collection.left_out}
    not_begun = [
        LeftOut(Path(os.path.realpath(run.folder)), "planned by the study, and not begun")
        for run in missing
        if os.path.realpath(run.folder) not in named
    ]
    left_out = [*collection.left_out, *not_begun]
    return dataclasses.replace(collection, left_out=left_out, sentences=_sentences(planned, missing))


def _sentences(planned: Sequence[Planned], missing: Sequence[Planned]) -> list[str]:
    if not missing:
        return [f"All {len(planned)} planned runs have ended."]
    of_each, lacking = Counter(run.activation for run in planned), Counter(run.activation for run in missing)
    listed = ", ".join(f"{paper_name(name)} {lacking[name]} of {of_each[name]}" for name in in_table_order(of_each))
    verb = "has" if len(missing) == 1 else "have"
    return [f"{len(missing)} of {len(planned)} planned runs {verb} no result, which may change every claim: {listed}."]
