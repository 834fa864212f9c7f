"""golu-diffusion as a program, and flags that make `ddpm-digits` a matter of seconds."""

from pathlib import Path

from command_line import Program
from golu_diffusion.recipes import RECIPES

DIFFUSION = Program("golu_diffusion")
MODEL = ["--model.width", "8", "--model.multipliers", "1", "2", "--model.groups", "4", "--noise.steps", "20"]
SHORT = [
    "--epochs",
    "2",
    "--samples",
    "4",
    "--sample-steps",
    "3",
    "--eval-noise-draws",
    "1",
    "--schedule.warmup.steps",
    "3",
]
TINY = [*MODEL, *SHORT, "--model.dropout", "0.1", "--batch-size", "16", "--log-every", "1", "--checkpoint-every", "2"]
FOLDER = Path("runs/diffusion/ddpm-digits/golu/seed0")


def shrink(name: str) -> list[str]:
    """Flags that make a recipe a matter of seconds."""
    flags = [*MODEL, "--model.attention", "0", "--epochs", "2", "--samples", "1", "--sample-steps", "2"]
    flags += ["--data.size", "16", "--batch-size", "16", "--mixed-precision", "no", "--eval-noise-draws", "1"]
    flags += ["--max-steps", "None"]
    if RECIPES[name].schedule.kind == "constant":  # long enough for a decay
        flags += ["--epochs", "4"]
    if RECIPES[name].schedule.warmup is not None:
        flags += ["--schedule.warmup.steps", "3"]
    return flags
