"""golu-detect as a person uses it, and as a person gets it wrong; its metrics against pycocotools by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from command_line import runner_in_this_process
from detect_program import DETECT, FAST
from golu_detect.cli import COMMAND_LINE
from golu_detect.evaluate import segmentation_metrics
from golu_detect.recipes import RECIPES


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def folder_of(recipe):
    return Path("runs/detect") / recipe / "golu/seed0"


@pytest.fixture(scope="module")
def finished(few_scenes, tmp_path_factory):
    """A Mask R-CNN that has learned a little, so that it finds something."""
    cwd = tmp_path_factory.mktemp("finished")
    flags = ["--data-dir", str(few_scenes), *FAST, "--epochs", "14", "--checkpoint-every", "50"]
    done = DETECT.run("train", "maskrcnn-digits", *flags, "--optim.lr", "3e-3", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_finished_run_has_all_its_files(finished):
    cwd, done = finished
    folder = cwd / folder_of("maskrcnn-digits")
    assert "1 training images" not in done.stderr and "train images, the recipe's own data have 760" in done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert (result["task"], result["steps"], result["primary_metric"]["name"]) == ("detect", 42, "box_map")
    assert result["activations"]["left"] == ["relu called in roi_heads.box_head (2 times)"]
    assert result["data"]["train"] == 12 and result["data"]["left_out"] == 1
    assert {"box_map", "box_map50", "box_ar", "mask_map", "mask_map50"} <= set(result["metrics"])
    assert result["metrics"]["box_map"] > 0
    assert (folder / "samples" / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "curves.png").exists()
    assert json.loads((folder / "classes.json").read_text())["count"] == 11


def test_the_numbers_are_those_of_pycocotools_run_by_hand(finished, few_scenes, capsys):
    cwd, _ = finished
    folder = cwd / folder_of("maskrcnn-digits")
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    truth = COCO(str(few_scenes / "digit-scenes" / "annotations" / "instances_val2017.json"))
    detections = json.loads((folder / "detections.json").read_text())
    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    names += ("ar1", "ar10", "ar", "ar_small", "ar_medium", "ar_large")
    for kind, prefix in (("bbox", "box"), ("segm", "mask")):
        # beside a box, pycocotools would take the box's area for that of a mask
        found = [{k: v for k, v in detection.items() if k != "bbox" or kind == "bbox"} for detection in detections]
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        for name, value in zip(names, evaluation.stats, strict=True):
            if value < 0:
                assert f"{prefix}_{name}" not in metrics
            else:
                assert metrics[f"{prefix}_{name}"] == pytest.approx(100 * value, abs=1e-6)


def test_evaluate_prints_the_metrics_of_the_result(finished, run_here):
    cwd, _ = finished
    folder = folder_of("maskrcnn-digits")
    metrics = json.loads((cwd / folder / "result.json").read_text())["metrics"]
    done = run_here("evaluate", str(folder), cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split() for line in done.stdout.splitlines())
    assert set(printed) == set(metrics)
    for name, value in metrics.items():
        assert float(printed[name]) == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_two_processes_evaluate_alike(finished):
    cwd, _ = finished
    one, two = (DETECT.run("evaluate", str(folder_of("maskrcnn-digits")), cwd=cwd, processes=n) for n in (1, 2))
    assert two.returncode == 0, two.stderr
    assert one.stdout == two.stdout


def test_predict_draws_and_writes(finished, few_scenes, run_here):
    cwd, _ = finished
    images = sorted(map(str, (few_scenes / "digit-scenes" / "val2017").iterdir()))[:2]
    flags = ["--out", "seen", "--threshold", "0.05"]
    done = run_here("predict", str(folder_of("maskrcnn-digits")), *images, *flags, cwd=cwd)
    assert done.returncode == 0, done.stderr
    for path in images:
        assert Image.open(cwd / "seen" / f"{Path(path).stem}.png").size == (288, 288)
        content = json.loads((cwd / "seen" / f"{Path(path).stem}.json").read_text())
        for entry in content["detections"]:
            assert set(entry) == {"category_id", "bbox", "score", "segmentation", "name"}
            assert entry["name"] in "0123456789" and entry["score"] >= 0.05


@pytest.mark.parametrize("recipe", ["deeplabv3-digits", "retinanet-digits"])
def test_the_other_networks_train_evaluate_and_predict(recipe, few_scenes, tmp_path, run_here):
    flags = ["--data-dir", str(few_scenes), *FAST, "--max-steps", "2"]
    done = run_here("train", recipe, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = folder_of(recipe)
    metrics = json.loads((tmp_path / folder / "result.json").read_text())["metrics"]
    assert set(metrics) >= ({"miou", "pixel_accuracy", "loss"} if "deeplab" in recipe else {"box_map", "box_ar"})
    image = str(next((few_scenes / "digit-scenes" / "val2017").iterdir()))
    done = run_here("predict", str(folder), image, "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    further = [f"{Path(image).stem}-classes.png"] if "deeplab" in recipe else ["images.json", "results.json"]
    expected = [f"{Path(image).stem}.json", f"{Path(image).stem}.png", *further]
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == sorted(expected)


def test_mean_iou_by_hand():
    matrix = torch.tensor([[50, 10, 0, 0], [5, 20, 0, 0], [0, 0, 0, 0], [15, 0, 0, 0]], dtype=torch.float64)
    expected = numpy.mean([50 / 80, 20 / 35, 0 / 15])
    found = segmentation_metrics(matrix)
    assert found["miou"] == pytest.approx(100 * expected)
    assert found["pixel_accuracy"] == pytest.approx(70)


def test_own_files_in_cocos_format(few_scenes, tmp_path, run_here):
    root = few_scenes / "digit-scenes"
    places = ["--data.train-images", str(root / "train2017"), "--data.test-images", str(root / "val2017")]
    for split, name in (("train", "train"), ("test", "val")):
        places += [f"--data.{split}-annotations", str(root / "annotations" / f"instances_{name}2017.json")]
    done = run_here("train", "retinanet-digits", *places, "--dry-run", "--check-data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all 19 images" in done.stdout and not list(tmp_path.iterdir())
    done = run_here("train", "fasterrcnn-resnet50-fpn-coco", *places, cwd=tmp_path)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert "in COCO it is" in done.stderr and "pass --data.classes file" in done.stderr


def test_sample_data(tmp_path, run_here):
    done = run_here("sample-data", "scenes", cwd=tmp_path)
    assert done.returncode == 0
    assert len(list((tmp_path / "scenes" / "train2017").iterdir())) == 800


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_described_without_data(recipe, tmp_path, run_here):
    done = run_here("train", recipe, "--dry-run", "--mixed-precision", "no", cwd=tmp_path)
    is_there = recipe.endswith("digits")
    assert done.returncode == (0 if is_there else 2), done.stderr
    assert ("data         missing" in done.stdout) != is_there
    assert not list(tmp_path.iterdir())


WRONG = [
    (["train", "fasterrcnn"], ["unknown recipe"]),
    (["train", "maskrcnn-resnet50-fpn-coco"], ["there is no data folder data/coco", "instances_train2017.json"]),
    (["train", "fasterrcnn-digits", "--epochs", "0"], ["--epochs must be at least 1"]),
    (["train", "fasterrcnn-digits", "--backbone", "nowhere"], ["needs --model.backbone resnet50"]),
    (["train", "fasterrcnn-digits", "--model.trainable-stages", "6"], ["--model.trainable-stages must be at most 5"]),
    (["train", "fasterrcnn-digits", "--batch-size", "8", "--group-size", "3"], ["does not divide"]),
    (["train", "fasterrcnn-resnet50-fpn-coco", "--data.train-annotations", "absent.json"], ["absent.json"]),
    (["predict", "nowhere"], ["no run folder nowhere"]),
    (["predict", "nowhere", "absent.png"], ["no run folder nowhere"]),
    (["predict", "."], ["at least one image"]),
    (["predict", ".", "absent.png"], ["config.json"]),
    (["sample-data"], ["Missing from golu-detect sample-data"]),
    (["evaluate", "nowhere"], ["no run folder nowhere"]),
]


@pytest.mark.parametrize(("arguments", "messages"), WRONG, ids=lambda value: " ".join(value)[:50])
def test_a_wrong_request_is_refused(arguments, messages, tmp_path, run_here):
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*")), done.stderr
