"""Stands in for `accelerate launch`: understands a run's command and leaves what a run leaves, at once.

    python stand_in.py [launcher's flags] -m golu_vision train RECIPE [flags]

BEHAVIOR in the environment is JSON, by activation: `{"mish": "fail"}`. What it does is written down in STARTS.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.run_files import run_folder, write_config
from golu_core.training.storage.locks import claim
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import installed_tasks
from runs_on_disk import write_run


def main() -> None:
    words = sys.argv[1:]
    module = words[words.index("-m") + 1]
    task = module.removeprefix("golu_")
    config = CommandLine(installed_tasks()[task]).config(words[words.index("train") + 1 :])
    folder = run_folder(config, task)
    with open(os.environ["STARTS"], "a") as file:
        start = {"folder": str(folder), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "time": time.time()}
        file.write(json.dumps({**start, "words": words, "continued": folder.exists()}) + "\n")
    try:
        lock = claim(folder, patience_s=0.5)
    except RequestError as error:
        print(f"golu-vision: {error}")
        print("Traceback: the launcher's own")
        sys.exit(1)
    behavior = json.loads(os.environ.get("BEHAVIOR", "{}")).get(config.activation)
    if behavior == "fail":
        print("golu-vision: the loss of step 7 is nan")
        print("Traceback: the launcher's own")
        sys.exit(1)
    if behavior == "killed":
        print("step 7", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if behavior == "sleep" and not folder.exists():
        folder.mkdir(parents=True)
        write_config(folder, config)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        time.sleep(60)
    time.sleep(2.0 if behavior == "slow" else 0.3)
    overrides = {"epochs": config.epochs, "holdout": config.holdout, "output_dir": config.output_dir}
    if folder.exists():
        (folder / "config.json").unlink()
        folder.rmdir()
    write_run(config.output_dir, task, config.recipe, config.activation, config.seed, {"top1": 90.0}, **overrides)
    lock.release()


if __name__ == "__main__":
    main()
