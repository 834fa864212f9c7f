"""The interface of segmentation and detection to golu-core and its tools."""

from __future__ import annotations

from golu_core.training import Command, Metric, Task

from .config import DetectConfig
from .recipes import RECIPES

_COCO_METRICS = {
    f"{kind}_{name}": Metric(f"{kind} {label} (%)", 2, True)
    for kind in ("box", "mask")
    for name, label in {
        "map50": "mAP at IoU 0.5",
        "map75": "mAP at IoU 0.75",
        **{f"map_{size}": f"mAP of {size} objects" for size in ("small", "medium", "large")},
        "ar1": "AR of 1 detection",
        "ar10": "AR of 10 detections",
        "ar": "AR of 100 detections",
        **{f"ar_{size}": f"AR of {size} objects" for size in ("small", "medium", "large")},
    }.items()
}
"""COCO's metrics in addition to the two mAPs that runs are compared by, in the order of COCOeval."""

TASK: Task[DetectConfig] = Task(
    name="detect",
    title="Segmentation and detection",
    package="golu_detect",
    recipes=RECIPES,
    metrics={
        "miou": Metric("mIoU (%)", 2, True),
        "box_map": Metric("box mAP (%)", 2, True),
        "mask_map": Metric("mask mAP (%)", 2, True, secondary=True),
        "pixel_accuracy": Metric("pixel accuracy (%)", 2, True),
        **_COCO_METRICS,
        "loss": Metric("loss", 5, False),
    },
    unit="images/s",
    outputs=("classes.json", "detections.json", "samples/predictions.png"),
    train="golu_detect.train:train",
    evaluate="golu_detect.evaluate:evaluate_run",
    evaluation_flags="golu_detect.evaluate:DetectEvaluationFlags",
    commands={
        "export": Command(
            "export a finished run's model for ONNX Runtime, torch.export, or torchvision",
            "golu_detect.export:export_command",
            "RUN_DIR [flags]",
            "golu_core.training.export.exporting:ExportFlags",
        ),
        "predict": Command(
            "find objects in images with a finished run",
            "golu_detect.predict:predict_command",
            "RUN_DIR IMAGE|FOLDER|-... [flags]",
            "golu_detect.predict:PredictFlags",
        ),
        "sample-data": Command(
            "write scenes of digits in COCO's format",
            "golu_detect.samples:sample_data_command",
            "DIR",
            "golu_detect.samples:SampleDataFlags",
        ),
    },
    order=3,
    has_holdout=True,
    timing_model="golu_detect.analysis:timing_model",
    own_data=dict.fromkeys(("objects", "instances", "segments"), "golu_detect.auto_recipe:fit_scenes"),
)
