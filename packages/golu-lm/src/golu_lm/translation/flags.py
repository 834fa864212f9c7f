"""Flags of `golu-lm evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from golu_core.training import BatchEvaluationFlags, NonNegativeFloat

from .config import Beams


@dataclass(frozen=True)
class TranslationEvaluationFlags(BatchEvaluationFlags):
    """Where and how a finished run is evaluated."""

    source: Path | None = None
    """Sentences of your own, a line each, instead of the run's test split; with `--reference`."""
    reference: Path | None = None
    """Their translations, a line each."""
    beam: Beams | None = None
    """Translations that are followed at once; by default as in the run."""
    length_penalty: NonNegativeFloat | None = None
    """Power of the length by which log-probabilities are divided; by default as in the run."""
