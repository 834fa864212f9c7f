"""golu-detect as a program, and flags that make its recipes on digits a matter of seconds."""

import json
import shutil
from pathlib import Path

from command_line import Program
from golu_detect.recipes import RECIPES

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


def shrink(name: str) -> list[str]:
    """Flags that make a recipe a matter of seconds, on scenes of two sizes."""
    recipe = RECIPES[name]
    flags = [
        "--model.backbone",
        "small",
        "--data.classes",
        "file",
        "--epochs",
        "3",
        "--batch-size",
        "3" if recipe.segments else "5",
    ]
    flags += ["--micro-batch-size", "None", "--schedule.warmup", "steps", "--schedule.warmup.steps", "2"]
    flags += ["--schedule.warmup.no-within-epoch", "--group-size", "1"]
    if recipe.segments:
        flags += ["--augment.resize", "64", "96", "--augment.crop", "48", "--augment.eval-side", "64"]
        flags += ["--augment.fewest-pixels", "150"]
    else:
        flags += ["--model.shorter-side", "64", "96", "--model.longer-side", "112"]
    if recipe.schedule.kind == "milestones":
        flags += ["--schedule.milestones", "1", "--schedule.factors", "0.1"]
    return flags


def copy_few(scenes: Path, data_dir: Path) -> Path:
    """Copies 13 training and 7 test scenes of the sample, one of each without objects, and crowds."""
    root = data_dir / "digit-scenes"
    (root / "annotations").mkdir(parents=True)
    for split, numbers in (("train", [*range(8, 20), 30]), ("val", [0, 1, 2, 3, 15, 19, 31])):
        path = scenes / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        images = [content["images"][n] for n in numbers]
        kept = {image["id"] for image in images}
        content["images"] = images
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        (root / "annotations" / path.name).write_text(json.dumps(content))
        (root / f"{split}2017").mkdir()
        for image in images:
            shutil.copy(scenes / f"{split}2017" / image["file_name"], root / f"{split}2017")
    return data_dir
