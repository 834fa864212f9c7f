"""The interface of denoising diffusion models to golu-core and its tools."""

from __future__ import annotations

from golu_core.training import Command, Metric, Task

from .config import DiffusionConfig
from .recipes import RECIPES

TASK: Task[DiffusionConfig] = Task(
    name="diffusion",
    title="Diffusion",
    package="golu_diffusion",
    recipes=RECIPES,
    metrics={
        "loss": Metric("loss", 5, False),
        "loss_standard_error": Metric("standard error of the loss", 5, False),
        "fid": Metric("FID", 2, False, secondary=True),
    },
    unit="images/s",
    outputs=("samples/epoch-*.png",),
    train="golu_diffusion.train:train",
    evaluate="golu_diffusion.evaluate:evaluate_run",
    evaluation_flags="golu_diffusion.evaluate:DiffusionEvaluationFlags",
    commands={
        "export": Command(
            "export a finished run's model for ONNX Runtime or torch.export",
            "golu_diffusion.export:export_command",
            "RUN_DIR [flags]",
            "golu_core.training.export.exporting:ExportFlags",
        ),
        "sample": Command(
            "draw images from a finished run",
            "golu_diffusion.sample:sample_command",
            "RUN_DIR [flags]",
            "golu_diffusion.sample:SampleFlags",
        ),
        "interpolate": Command(
            "interpolate between two images",
            "golu_diffusion.sample:interpolate_command",
            "RUN_DIR IMAGE IMAGE [flags]",
            "golu_diffusion.sample:InterpolateFlags",
        ),
    },
    order=4,
    has_holdout=True,
    analysis_model="golu_diffusion.analysis:analysis_model",
    timing_model="golu_diffusion.analysis:timing_model",
    own_data={"pictures": "golu_diffusion.auto_recipe:fit_pictures"},
)
