"""Whose code a study runs: what the command line names, and what only its file names with `--trust-study`."""

from __future__ import annotations

from collections.abc import Collection

from golu_core.training.config.named_activations import runs_no_code
from golu_core.training.messages.errors import RequestError

from .study import Study

TRUST = "--trust-study"


def refuse_code(study: Study, typed: Collection[str], trains: bool) -> None:
    """Refuses a study that would run code which nobody has agreed to.

    Args:
        study: The study that will be planned.
        typed: the activations and recipes that the command line names, in the study's spelling.
        trains: whether its runs are trained. A plan needs the fields of its recipes, and the code of no activation.

    Raises:
        RequestError: only the study's file names a recipe or an activation that is code.
    """
    recipes = [text for experiment in study.experiment for text in (*experiment.recipes, experiment.after or "")]
    code = [text for text in recipes if ":" in text]
    if trains:
        named = [experiment.activations or study.activations for experiment in study.experiment]
        code += [text for several in named for text in several if _is_code(text)]
    untold = [text for text in dict.fromkeys(code) if text not in typed]
    if untold:
        raise RequestError(
            f"the study names {', '.join(untold)}, whose code is not golu's: read it, and add {TRUST} to run it, "
            f"or name it on the command line by --recipes or --activations"
        )


def _is_code(text: str) -> bool:
    try:
        return not runs_no_code(text)
    except ValueError:  # it names nothing, and planning reports it
        return False
