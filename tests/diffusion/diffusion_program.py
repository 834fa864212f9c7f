"""golu-diffusion as a program, and flags that make `ddpm-digits` a matter of seconds."""

from pathlib import Path

from command_line import Program

DIFFUSION = Program("golu_diffusion")
MODEL = ["--model.width", "8", "--model.multipliers", "1", "2", "--model.groups", "4", "--noise.steps", "20"]
SHORT = ["--epochs", "2", "--samples", "4", "--sample-steps", "3", "--eval-draws", "1", "--schedule.warmup.steps", "3"]
TINY = [*MODEL, *SHORT, "--model.dropout", "0.1", "--batch-size", "16", "--log-every", "1", "--checkpoint-every", "2"]
FOLDER = Path("runs/diffusion/ddpm-digits/golu/seed0")
