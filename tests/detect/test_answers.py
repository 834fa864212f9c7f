"""`golu-detect predict` on folders, and `evaluate --details`: against evaluation, pycocotools and what is on disk."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from command_line import runner_in_this_process
from detect_program import DETECT, FAST, shrink
from golu_core.training.data.orders import SampleKey
from golu_core.training.runs.run_files import read_config
from golu_detect.cli import COMMAND_LINE
from golu_detect.config import DetectConfig
from golu_detect.data import load_data
from golu_detect.predict import _Network
from golu_detect.scenes import evaluation_transform


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def trained(recipe: str, data: Path, cwd: Path, *flags: str) -> Path:
    done = DETECT.run("train", recipe, "--data-dir", str(data), *flags, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs" / "detect" / recipe / "golu" / "seed0"


@pytest.fixture(scope="module")
def detector(few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a Mask R-CNN that has learned a little, so that it finds something."""
    flags = [*FAST, "--epochs", "14", "--checkpoint-every", "50", "--optim.lr", "3e-3"]
    return trained("maskrcnn-digits", few_scenes, tmp_path_factory.mktemp("detector"), *flags)


@pytest.fixture(scope="module")
def segmenter(few_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a DeepLabV3 that sees images of 96 pixels at 64."""
    return trained("deeplabv3-digits", few_scenes, tmp_path_factory.mktemp("segmenter"), *shrink("deeplabv3-digits"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def metrics_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "result.json").read_text())["metrics"]
    return found


def details_of(run: Path, run_here, cwd: Path) -> Path:
    done = run_here("evaluate", str(run), "--details", "out", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "details: out" in done.stdout and "the same as in result.json" in done.stderr
    for path in (cwd / "out").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
    return cwd / "out"


def matrix_of(path: Path) -> numpy.ndarray:
    return numpy.array([[float(v) for name, v in row.items() if name != "right class"] for row in table(path)])


def test_a_detectors_tables_are_what_its_metrics_are_made_of(detector, few_scenes, run_here, tmp_path):
    out, metrics = details_of(detector, run_here, tmp_path), metrics_of(detector)
    rows = table(out / "classes.csv")
    for column, name in (("box AP (%)", "box_map"), ("box AP50 (%)", "box_map50"), ("box AP75 (%)", "box_map75"),
                         ("box AR (%)", "box_ar"), ("mask AP (%)", "mask_map")):  # fmt: skip
        values = [float(row[column]) for row in rows if row[column]]
        assert sum(values) / len(values) == pytest.approx(metrics[name], rel=1e-4)
    truth = json.loads((few_scenes / "digit-scenes/annotations/instances_val2017.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    objects = [names[a["category_id"]] for a in truth["annotations"] if not a["iscrowd"]]
    matrix = matrix_of(out / "confusion.csv")
    for row, line in zip(rows, matrix, strict=False):
        assert int(row["objects"]) == objects.count(row["class"]) == line.sum()
    shown = [d for d in json.loads((detector / "detections.json").read_text()) if d["score"] >= 0.5]
    assert 0 < matrix[:, :-1].sum() <= len(shown)  # those in crowds count neither way
    wrong = matrix[:, :-1].sum() - numpy.trace(matrix)
    mistakes = table(out / "mistakes.csv") if (out / "mistakes.csv").exists() else []
    assert len(mistakes) == wrong
    scores = [float(row["score"]) for row in mistakes]
    assert scores == sorted(scores, reverse=True)
    weakest = [
        float(row["precision"]) for row in table(out / "precision-recall.csv") if row["class"] == rows[0]["class"]
    ]
    assert 100 * numpy.mean(weakest) == pytest.approx(float(rows[0]["box AP50 (%)"]), rel=1e-4)


def test_a_segmenters_tables_are_what_its_metrics_are_made_of(segmenter, run_here, tmp_path):
    out, metrics = details_of(segmenter, run_here, tmp_path), metrics_of(segmenter)
    values = [float(row["IoU (%)"]) for row in table(out / "classes.csv") if row["IoU (%)"]]
    assert sum(values) / len(values) == pytest.approx(metrics["miou"], rel=1e-4)
    matrix = matrix_of(out / "confusion.csv")
    assert 100 * numpy.trace(matrix) / matrix.sum() == pytest.approx(metrics["pixel_accuracy"], rel=1e-5)
    right = [float(row["right pixels (%)"]) for row in table(out / "mistakes.csv")]
    assert right == sorted(right) and len(right) == 7
    assert not (out / "precision-recall.csv").exists()


def test_predictions_are_evaluations(detector, few_scenes, run_here, tmp_path):
    """What is found in the folder of the test images is what the run's own evaluation found, to the last bit."""
    folder = few_scenes / "digit-scenes" / "val2017"
    done = run_here("predict", str(detector), str(folder), "--threshold", "0", "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO(str(tmp_path / "seen" / "images.json"))
        found = images.loadRes(str(tmp_path / "seen" / "results.json"))
    truth = json.loads((few_scenes / "digit-scenes/annotations/instances_val2017.json").read_text())
    files = {image["id"]: image["file_name"] for image in truth["images"]}
    names = {c["id"]: c["name"] for c in truth["categories"]}
    expected = sorted(
        (files[d["image_id"]], names[d["category_id"]], d["score"], d["bbox"], d["segmentation"]["counts"])
        for d in json.loads((detector / "detections.json").read_text())
    )
    ours = json.loads((tmp_path / "seen" / "results.json").read_text())
    assert len(found.anns) == len(ours) == len(expected) > 0
    assert expected == sorted(
        (Path(images.imgs[d["image_id"]]["file_name"]).name, images.cats[d["category_id"]]["name"], d["score"],
         d["bbox"], d["segmentation"]["counts"])
        for d in ours
    )  # fmt: skip
    again = run_here("predict", str(detector), str(folder), "--threshold", "0.9", "--out", "seen", cwd=tmp_path)
    assert again.returncode == 0, again.stderr  # what we wrote may be written anew
    assert len(json.loads((tmp_path / "seen" / "results.json").read_text())) < len(ours)


def test_a_segmenter_sees_what_evaluation_sees(segmenter, few_scenes, run_here, tmp_path):
    folder = few_scenes / "digit-scenes" / "val2017"
    done = run_here("predict", str(segmenter), str(folder), "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    network, test = _Network(segmenter), load_data(read_config(segmenter, DetectConfig)).test
    for number, image in enumerate(test.images):
        read = network.read(folder / image.file_name)
        batch = test.__getitems__([SampleKey(number, -1, number)])
        assert torch.equal(evaluation_transform(network.config.augment)(read), batch.images[0])
        assert min(batch.images[0].shape[-2:]) == 64 < min(read.shape[-2:])
        with Image.open(tmp_path / "seen" / f"{Path(image.file_name).stem}-classes.png") as labels:
            chosen = numpy.asarray(labels)
        assert chosen.shape == read.shape[-2:]
        values = json.loads((tmp_path / "seen" / f"{Path(image.file_name).stem}.json").read_text())["classes"]
        ids = {name: label for label, name in network.names.items()}
        for name, share in values.items():
            assert (chosen == ids[name]).mean() == pytest.approx(share, abs=1e-6)
    assert not (tmp_path / "seen" / "results.json").exists()


def test_an_unreadable_picture_does_not_stop_a_folder(detector, few_scenes, run_here, tmp_path):
    folder = tmp_path / "photos" / "inner"
    shutil.copytree(few_scenes / "digit-scenes" / "val2017", folder)
    victim = sorted(folder.iterdir())[1]
    victim.write_bytes(b"\x89PNG nothing")
    done = run_here("predict", str(detector), "photos", "--out", "seen", cwd=tmp_path)
    assert done.returncode == 1
    assert victim.name in done.stderr and "1 of 7 files could not be read; the others are predicted" in done.stderr
    assert len(list((tmp_path / "seen" / "inner").glob("*.png"))) == 6
    images = json.loads((tmp_path / "seen" / "images.json").read_text())["images"]
    assert len(images) == 6 and victim.name not in json.dumps(images)


def test_paths_from_standard_input(detector, few_scenes, run_here, tmp_path, monkeypatch):
    paths = sorted((few_scenes / "digit-scenes" / "val2017").iterdir())[:2]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{path}\n" for path in paths)))
    done = run_here("predict", str(detector), "-", "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (tmp_path / "seen").glob("*.png")} == {path.stem for path in paths}


def test_nothing_of_the_users_is_overwritten(detector, few_scenes, run_here, tmp_path):
    image = sorted((few_scenes / "digit-scenes" / "val2017").iterdir())[0]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(image, tmp_path / name / "one.png")
    done = run_here("predict", str(detector), "a/one.png", "b/one.png", "--out", "seen", cwd=tmp_path)
    assert done.returncode == 2 and "one.png would be written" in done.stderr
    done = run_here("predict", str(detector), "a/one.png", "--out", "a", cwd=tmp_path)
    assert done.returncode == 2 and "this program did not make it" in done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").write_text("[1]")
    done = run_here("predict", str(detector), "a/one.png", "--out", "mine", cwd=tmp_path)
    assert done.returncode == 2 and (tmp_path / "mine" / "results.json").read_text() == "[1]"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["results.json"]


def test_earlier_results_are_replaced_by_results_of_the_same_images_alone(detector, few_scenes, run_here, tmp_path):
    first, second = sorted((few_scenes / "digit-scenes" / "val2017").iterdir())[:2]
    predict = ("predict", str(detector))
    assert run_here(*predict, str(first), "--out", "seen", cwd=tmp_path).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "seen").iterdir()}
    done = run_here(*predict, str(second), "--out", "seen", cwd=tmp_path)
    assert done.returncode == 2 and f"seen holds results of {first}, which would be replaced" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "seen").iterdir()} == before
    assert run_here(*predict, str(first), "--out", "seen", cwd=tmp_path).returncode == 0
    done = run_here(*predict, str(first), str(second), "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "seen" / "images.json").read_text())["images"]) == 2


def test_pictures_that_are_called_like_the_results(detector, few_scenes, run_here, tmp_path):
    picture = sorted((few_scenes / "digit-scenes" / "val2017").iterdir())[0]
    (tmp_path / "photos").mkdir()
    for name in ("images.png", "results.png"):
        shutil.copy(picture, tmp_path / "photos" / name)
    done = run_here("predict", str(detector), "photos", "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {
        *(f"{name}.png{ending}" for name in ("images", "results") for ending in (".png", ".json")),
        *("images.json", "results.json"),
    }
    assert len(json.loads((tmp_path / "seen" / "images.json").read_text())["images"]) == 2


@pytest.mark.slow
def test_onnx_finds_what_predict_finds(detector, few_scenes, run_here, tmp_path):
    """From a picture's file to boxes and masks, by nothing but preprocessing.json, Pillow and onnxruntime."""
    import onnxruntime
    from pycocotools import mask as rle

    done = run_here("export", str(detector), "--out", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    preprocessing = json.loads((tmp_path / "onnx" / "preprocessing.json").read_text())
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    found = 0
    for picture in sorted((few_scenes / "digit-scenes" / "val2017").iterdir())[:3]:
        out = f"seen-{picture.stem}"
        done = run_here("predict", str(detector), str(picture), "--threshold", "0", "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        expected = json.loads((tmp_path / out / f"{picture.stem}.json").read_text())["detections"]
        pixels = numpy.asarray(Image.open(picture).convert(preprocessing["channels"]), numpy.float32) / 255
        outputs = dict(
            zip(preprocessing["outputs"], session.run(None, {"image": pixels.transpose(2, 0, 1)}), strict=True)
        )
        assert len(outputs["boxes"]) == len(expected)
        found += len(expected)
        for row, entry in enumerate(expected):
            left, top, right, bottom = outputs["boxes"][row]
            assert [left, top, right - left, bottom - top] == pytest.approx(entry["bbox"], abs=1e-2)
            assert preprocessing["classes"][str(outputs["labels"][row])] == entry["name"]
            assert outputs["scores"][row] == pytest.approx(entry["score"], abs=1e-4)
            same = (outputs["masks"][row, 0] > 0.5) == rle.decode(entry["segmentation"])
            assert same.mean() > 0.999
    assert found > 5
