"""golu-detect as a program, and flags that make its recipes on digits a matter of seconds."""

from command_line import Program

DETECT = Program("golu_detect")
FAST = [
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--log-every",
    "1",
    "--checkpoint-every",
    "1",
    "--schedule.warmup",
    "none",
]
