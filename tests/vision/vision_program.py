"""golu-vision as a program, and flags that make its `digits` a matter of seconds."""

from command_line import Program

VISION = Program("golu_vision")
FAST = ["--batch-size", "16", "--log-every", "1", "--checkpoint-every", "2", "--schedule.warmup", "none"]
