"""Image classification as a golu-core task: its name, metrics, commands, and entry points."""

from __future__ import annotations

from golu_core.training import Command, Metric, Task

from .config import VisionConfig
from .recipes import RECIPES

TASK: Task[VisionConfig] = Task(
    name="vision",
    title="Image classification",
    package="golu_vision",
    recipes=RECIPES,
    metrics={
        "top1": Metric("top-1 (%)", 2, True),
        "top5": Metric("top-5 (%)", 2, True),
        "loss": Metric("loss", 5, False),
        "top1_average": Metric("top-1 of the average (%)", 2, True, secondary=True),
    },
    unit="images/s",
    outputs=("classes.json", "samples/worst.png"),
    train="golu_vision.train:train",
    evaluate="golu_vision.evaluate:evaluate_run",
    evaluation_flags="golu_vision.evaluate:VisionEvaluationFlags",
    commands={
        "export": Command(
            "export a finished run's model for ONNX Runtime, torch.export, or timm",
            "golu_vision.export:export_command",
            "RUN_DIR [flags]",
            "golu_core.training.export.exporting:ExportFlags",
        ),
        "predict": Command(
            "classify images with a finished run",
            "golu_vision.predict:predict_command",
            "RUN_DIR IMAGE|FOLDER|-... [flags]",
            "golu_vision.predict:PredictFlags",
        ),
    },
    order=1,
    has_holdout=True,
    analysis_model="golu_vision.analysis:analysis_model",
    timing_model="golu_vision.analysis:timing_model",
    own_data={"images": "golu_vision.auto_recipe:fit_images"},
)
