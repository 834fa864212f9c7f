"""golu-vision as a program, and flags that make its `digits` a matter of seconds."""

import shutil
from pathlib import Path

from command_line import Program
from golu_vision.recipes import RECIPES

VISION = Program("golu_vision")
FAST = ["--batch-size", "16", "--log-every", "1", "--checkpoint-every", "2", "--schedule.warmup", "none"]
# a small network with the same activation; its images are small too
SMALL = {"relu": "cifar/resnet20", "gelu": "timm/test_vit", "swish": "timm/test_efficientnet"}
SIZES = {"relu": ("32", "36"), "gelu": ("160", "164"), "swish": ("32", "36")}


def shrink(name: str) -> list[str]:
    """Flags that make a recipe a matter of seconds."""
    recipe = RECIPES[name]
    size, resize = SIZES[recipe.model.default_activation]
    flags = ["--model.name", SMALL[recipe.model.default_activation], "--data.size", size, "--data.resize", resize]
    flags += ["--epochs", "2", "--batch-size", "16", "--micro-batch-size", "None", "--mixed-precision", "no"]
    flags += ["--max-steps", "None", "--batch-norm", "synchronized"]  # per process needs a size of micro-batches
    if recipe.schedule.kind == "milestones":
        flags += ["--schedule.milestones", "1", "--schedule.factors", "0.1"]
    if recipe.schedule.kind == "decay":
        flags += ["--schedule.every", "0.5"]
    if recipe.schedule.warmup is not None:
        flags += ["--schedule.warmup.epochs", "1.0"]
    if recipe.mix is not None:
        flags += ["--mix.group", "8"]
    if recipe.average is not None:
        flags += ["--average.every", "1", "--average.decay", "0.5", "--average.copy-epochs", "0"]
    return flags


def copy_few(digits: Path, root: Path) -> Path:
    """Copies 52 training and 23 test images of four of the digits' classes."""
    for split, count in (("train", 13), ("test", 6)):
        for label in "0123":
            target = root / split / label
            target.mkdir(parents=True)
            for path in sorted((digits / split / label).iterdir())[: count - (split == "test" and label == "3")]:
                shutil.copy(path, target)
    return root
