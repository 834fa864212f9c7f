"""COCO files as people have them: the meaning is kept, or the file is refused by the annotation's own id."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image as Pillow
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from golu_core.training.messages.errors import RequestError
from golu_detect.annotations import read_annotations
from golu_detect.coco_metrics import category_shares, coco_metrics
from golu_detect.config import Data
from golu_detect.data import check_every_image, load_data
from golu_detect.recipes import RECIPES
from golu_detect.segmentations import object_mask, segmentation_problem

HEIGHT, WIDTH = 40, 50
Content = dict[str, Any]


def box(left: float, top: float, width: float, height: float) -> list[float]:
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def content(shift: int = 0) -> Content:
    """Three images with two objects each."""
    annotations = []
    for image in (1, 2, 3):
        for k, category in enumerate((1, 2)):
            corner = 4 + 3 * image + shift, 3 + 15 * k
            size = 10 + image, 9 + 2 * k
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [*corner, *size],
                    "area": size[0] * size[1],
                    "iscrowd": 0,
                    "segmentation": [box(*corner, *size)],
                }
            )
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (1, 2, 3)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    }


def data_set(folder: Path, change: Callable[[Content], object], split: str = "test", recipe: str = "maskrcnn-digits"):
    """A config on files of the user's own, one split changed."""
    paths = {}
    for name in ("train", "test"):
        made = content()
        if name == split:
            change(made)
        (folder / name).mkdir()
        for n in (1, 2, 3):
            Pillow.new("RGB", (WIDTH, HEIGHT), (40 * n, 0, 0)).save(folder / name / f"{n}.png")
        paths[f"{name}_images"] = folder / name
        paths[f"{name}_annotations"] = folder / f"{name}.json"
        paths[f"{name}_annotations"].write_text(json.dumps(made))
    config = RECIPES[recipe]
    return dataclasses.replace(config, data=Data(classes="file", **paths))


def detections(of: Content) -> list[dict[str, Any]]:
    """Each object found exactly."""
    found = []
    for entry in of["annotations"]:
        mask = object_mask(entry, HEIGHT, WIDTH)
        encoded = rle.encode(numpy.asfortranarray(mask))
        found.append(
            {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "bbox": entry["bbox"],
                "score": 0.9,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()},
            }
        )
    return found


IDS: dict[str, Callable[[int, dict[str, Any]], Any]] = {
    "as they are": lambda n, entry: entry["id"],
    "from 0": lambda n, entry: n,
    "all 0": lambda n, entry: 0,
    "from 1 in each image": lambda n, entry: n % 2 + 1,
    "none": lambda n, entry: None,
    "half without": lambda n, entry: entry["id"] if n % 2 else None,
    "text": lambda n, entry: f"a-{n}",
    "huge": lambda n, entry: 2**60 + n,
}


@pytest.fixture(autouse=True, params=["faster-coco-eval", "pycocotools"])
def coco_api(request, monkeypatch):
    """Each test with both: the numbers are the same."""
    if request.param == "pycocotools":
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    else:
        pytest.importorskip("faster_coco_eval")


def shifted_detections() -> list[dict[str, Any]]:
    draws = numpy.random.default_rng(0)
    found = []
    for entry in detections(content()) * 6:
        moved = [float(v + draws.normal(0, 3)) for v in entry["bbox"][:2]]
        found.append({**entry, "bbox": [*moved, *entry["bbox"][2:]], "score": float(draws.random())})
    return found


class OneOfMany:
    """Stands for one of several processes: what the earlier ones found is known to the later ones."""

    def __init__(self, rank: int, count: int, known: list[Any]) -> None:
        self.rank, self.count, self.known = rank, count, known

    def all_gather(self, items: list[Any]) -> list[Any]:
        self.known.extend(items)
        return list(self.known)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_numbers_are_those_of_one_process(kind, count, tmp_path):
    data = load_data(data_set(tmp_path, lambda made: None))
    found = shifted_detections()
    known: list[Any] = []
    shared = [coco_metrics(data.test, found, kind, OneOfMany(rank, count, known)) for rank in range(count)]
    assert shared[-1] == coco_metrics(data.test, found, kind)
    assert sorted(category for category, _ in known) == sorted(data.test.annotations.categories)


def test_categories_are_shared_out_by_what_there_is_to_match(tmp_path):
    data = load_data(data_set(tmp_path, lambda made: None))
    categories = sorted(data.test.annotations.categories)
    found = [{"category_id": categories[0]}] * 100
    shares = category_shares(data.test, found, 2)
    assert shares == [categories[:1], categories[1:]]


def test_both_evaluations_give_the_same_numbers(tmp_path, monkeypatch):
    data = load_data(data_set(tmp_path, lambda made: None))
    found = shifted_detections()
    numbers = []
    for absent in (False, True):
        if absent:
            monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
        numbers.append([coco_metrics(data.test, found, kind) for kind in ("bbox", "segm")])
    for fast, plain in zip(*numbers, strict=True):
        assert fast == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("case", IDS)
def test_perfect_detections_score_100_whatever_the_ids_are(case, tmp_path):
    def number(made: Content) -> None:
        for n, entry in enumerate(made["annotations"]):
            found = IDS[case](n, entry)
            if found is None:
                del entry["id"]
            else:
                entry["id"] = found

    data = load_data(data_set(tmp_path, number))
    found = detections(content())
    for kind, prefix in (("bbox", "box"), ("segm", "mask")):
        metrics = coco_metrics(data.test, found, kind)
        assert metrics[f"{prefix}_map"] == pytest.approx(100)
        assert metrics[f"{prefix}_ar"] == pytest.approx(100)


def test_areas_of_masks_are_those_of_masks(tmp_path):
    """As pycocotools has it for results without boxes; beside a box it takes the box's area."""
    made = content()
    thin = copy.deepcopy(made)
    for entry in thin["annotations"]:
        left, top, width, height = entry["bbox"]
        entry["segmentation"] = [[left, top, left + width, top, left, top + height]]  # half of the box
        entry["area"] = width * height / 2
    data = load_data(data_set(tmp_path, lambda file: file.update(thin)))
    found = detections(thin)
    extra = {**found[0], "bbox": [0, 0, WIDTH, HEIGHT], "score": 0.95, "image_id": 3}
    metrics = coco_metrics(data.test, [*found, extra], "segm")
    truth = COCO()
    truth.dataset = {**thin, "info": {}}
    truth.createIndex()
    plain = [{k: v for k, v in entry.items() if k != "bbox"} for entry in [*found, extra]]
    evaluation = COCOeval(truth, truth.loadRes(plain), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert metrics["mask_map_small"] == pytest.approx(100 * evaluation.stats[3])
    assert metrics["mask_map"] == pytest.approx(100 * evaluation.stats[0])


def test_no_number_is_left_out_when_nothing_is_found(tmp_path):
    data = load_data(data_set(tmp_path, lambda made: None))
    found = coco_metrics(data.test, detections(content()), "bbox")
    nothing = coco_metrics(data.test, [], "bbox")
    assert set(nothing) == set(found) and "box_map_small" in nothing
    assert set(nothing.values()) == {0.0}


def first(made: Content) -> dict[str, Any]:
    found: dict[str, Any] = made["annotations"][2]
    return found


def setting(**values: Any) -> Callable[[Content], None]:
    return lambda made: first(made).update(values)


def without(*names: str) -> Callable[[Content], None]:
    def change(made: Content) -> None:
        for name in names:
            del first(made)[name]

    return change


KEPT: dict[str, Callable[[Content], object]] = {
    "no area": without("area"),
    "area null": setting(area=None),
    "no iscrowd": without("iscrowd"),
    "iscrowd null": setting(iscrowd=None),
    "ids in quotes": lambda made: [
        entry.update(image_id=str(entry["image_id"]), category_id=str(entry["category_id"]))
        for entry in made["annotations"]
    ],
    "image ids in quotes": lambda made: [image.update(id=str(image["id"])) for image in made["images"]],
    "sizes in quotes": lambda made: [image.update(height=str(HEIGHT)) for image in made["images"]],
    "backslashes": lambda made: [image.update(file_name=".\\" + image["file_name"]) for image in made["images"]],
    "an image without objects": lambda made: made["images"].append({**made["images"][0], "id": 9}),
    "run lengths": setting(segmentation={"size": [HEIGHT, WIDTH], "counts": [45, 100, HEIGHT * WIDTH - 145]}),
    "other fields": setting(attributes={"occluded": True}, score=None),
}


@pytest.mark.parametrize("recipe", ["maskrcnn-digits", "deeplabv3-digits", "fasterrcnn-digits"])
@pytest.mark.parametrize("case", KEPT)
def test_what_is_meant_is_kept(case, recipe, tmp_path):
    config = data_set(tmp_path, KEPT[case], recipe=recipe)
    if recipe == "deeplabv3-digits":
        config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, fewest_pixels=0))
    data = load_data(config)
    assert check_every_image(data, 0) == 3 + len(data.test)
    plain = {i: [entry["bbox"] for entry in content()["annotations"] if entry["image_id"] == i] for i in (1, 2, 3)}
    for image in data.test.images:
        entries = data.test.annotations.objects.get(image.id, ())
        assert [entry["bbox"] for entry in entries] == plain.get(image.id, [])
        assert all(entry["area"] > 0 and entry["iscrowd"] == 0 for entry in entries)


NAN = float("nan")
REFUSED: dict[str, tuple[Callable[[Content], object], str]] = {
    "an annotation that is null": (
        lambda made: made.update(annotations=[None]),
        "annotation number 1 is not an object",
    ),
    "no annotations": (lambda made: made.pop("annotations"), "it lacks annotations"),
    "annotations empty": (lambda made: made.update(annotations=[]), "nothing to evaluate"),
    "two images of one id": (lambda made: made["images"][1].update(id=1), "two images with id 1, 1.png and 2.png"),
    "image id text": (lambda made: made["images"][1].update(id="a-b-c"), "image id 'a-b-c'"),
    "image without a size": (lambda made: made["images"][1].pop("height"), "an image without height"),
    "image of no size": (lambda made: made["images"][1].update(height=0), "image 2 has the size"),
    "two categories of one id": (lambda made: made["categories"][1].update(id=1), "two categories with id 1"),
    "category without name": (lambda made: made["categories"][1].pop("name"), "category without id or name"),
    "other category names": (lambda made: made["categories"][1].update(name="three"), "category 2 is two in"),
    "unknown image": (setting(image_id=77), "annotation 3 belongs to image 77"),
    "unknown category": (setting(category_id=77), "annotation 3 has category 77"),
    "area text": (setting(area="big"), "annotation 3 has an area"),
    "crowd 2": (setting(iscrowd=2), "annotation 3 has iscrowd 2"),
    "box of NaN": (setting(bbox=[1, 2, NAN, 4]), "annotation 3 has a box that is not four numbers"),
    "box of text": (setting(bbox="1 2 3 4"), "annotation 3 has a box that is not four numbers"),
    "box outside": (setting(bbox=[500, 1, 5, 5]), "annotation 3 has a box outside its image"),
    "no segmentation": (setting(segmentation=None), "annotation 3 has no segmentation"),
    "segmentation text": (setting(segmentation="x"), "annotation 3 has a segmentation that is not one"),
    "a polygon of NaN": (
        setting(segmentation=[[1, 1, NAN, 5, 9, 9]]),
        "annotation 3 has a polygon with the coordinate",
    ),
    "a polygon of 2 points": (setting(segmentation=[[1, 1, 9, 9]]), "annotation 3 has a polygon that is not a list"),
    "an odd polygon": (setting(segmentation=[[1, 1, 9, 9, 4, 4, 2]]), "annotation 3 has a polygon that is not a list"),
    "a flat polygon": (setting(segmentation=[1, 1, 9, 9, 4, 4]), "annotation 3 has a polygon that is not a list"),
    "a far polygon": (setting(segmentation=[[1, 1, 1e300, 5, 9, 9]]), "annotation 3 has a polygon with the coordinate"),
    "runs too short": (setting(segmentation={"size": [HEIGHT, WIDTH], "counts": [45, 100]}), "has run lengths of 145"),
    "runs too long": (setting(segmentation={"size": [HEIGHT, WIDTH], "counts": [9, 10**9]}), "has run lengths of"),
    "negative runs": (
        setting(segmentation={"size": [HEIGHT, WIDTH], "counts": [-1, 2001]}),
        "lengths that are not",
    ),
    "runs of another size": (setting(segmentation={"size": [9, 9], "counts": [81]}), "a segmentation of size [9, 9]"),
    "torn compressed runs": (setting(segmentation={"size": [HEIGHT, WIDTH], "counts": "o"}), "cannot be read"),
    "short compressed runs": (setting(segmentation={"size": [HEIGHT, WIDTH], "counts": "11"}), "has run lengths of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_impossible_is_refused_before_training(case, tmp_path):
    change, words = REFUSED[case]
    with pytest.raises(RequestError) as refusal:
        load_data(data_set(tmp_path, change))
    assert words in str(refusal.value)


@pytest.mark.parametrize("case", [name for name in REFUSED if "olygon" in name or "runs" in name])
def test_a_wrong_segmentation_of_training_is_named_before_training(case, tmp_path):
    change, words = REFUSED[case]
    with pytest.raises(RequestError) as refusal:
        load_data(data_set(tmp_path, change, split="train"))
    assert words in str(refusal.value)


@pytest.mark.parametrize("case", [*KEPT, "plain"])
def test_the_quick_and_the_patient_reader_agree(case, tmp_path):
    """A file as COCO's own are is read at once into arrays; others entry by entry, into the same arrays."""
    from golu_detect.annotations import _read_patiently
    from golu_detect.packed import packed_content

    made = content()
    KEPT.get(case, lambda made: None)(made)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))
    patient, found = _read_patiently(path.read_text(), path), read_annotations(path)
    assert (found.images, found.categories, found.degenerate) == (
        patient.images,
        patient.categories,
        patient.degenerate,
    )
    assert dict(found.objects) == dict(patient.objects)
    taken_at_once = packed_content(path.read_text()) is not None
    assert taken_at_once == (
        case in ("plain", "an image without objects", "run lengths", "other fields", "backslashes")
    )


@pytest.mark.parametrize("case", REFUSED)
def test_the_quick_reader_takes_nothing_that_is_refused(case, tmp_path):
    from golu_detect.packed import packed_content

    change, words = REFUSED[case]
    made = content()
    change(made)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))
    about_entries = any(part in words for part in ("box", "area", "crowd", "belongs", "has category", "two ", "id "))
    if about_entries and "names" not in case:
        assert packed_content(path.read_text()) is None


# id and name of the first category, and what is said where COCO's classes are asked for
COCO_CATEGORIES: dict[str, tuple[int, str, str | None]] = {
    "the background": (0, "one", "category id 0, and 0 is the background"),
    "a negative id": (-3, "one", "category id -3, 'one', and COCO has no such id"),
    "an id that COCO skips": (12, "street sign", "category id 12, 'street sign', and COCO has no such id"),
    "an id above COCO's": (91, "one", "category id 91, 'one', and COCO has no such id"),
    "another name": (1, "cat", "category 1 is 'cat', and in COCO it is 'person'"),
    "COCO's own": (1, "person", None),
    "COCO's own, capitalized": (1, "Person ", None),
}


@pytest.mark.parametrize("recipe", ["maskrcnn-digits", "deeplabv3-digits"])
@pytest.mark.parametrize("case", COCO_CATEGORIES)
def test_files_of_ones_own_are_not_taken_for_coco(case, recipe, tmp_path):
    """Ids 1, 2 and 3 of your own file are not person, bicycle and car."""
    number, name, refused = COCO_CATEGORIES[case]
    config = data_set(tmp_path, lambda made: None)
    config = dataclasses.replace(RECIPES[recipe], data=config.data)
    if recipe == "deeplabv3-digits":
        config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, fewest_pixels=0))
    for path in (config.data.train_annotations, config.data.test_annotations):
        made = json.loads(path.read_text())
        made["categories"] = [{"id": number, "name": name}, {"id": 2, "name": "bicycle"}]
        for entry in made["annotations"]:
            entry["category_id"] = 2 if entry["category_id"] == 2 else number
        path.write_text(json.dumps(made))
    assert set(load_data(config).names.values()) == {name, "bicycle"}
    theirs = dataclasses.replace(
        config, data=dataclasses.replace(config.data, classes="coco" if recipe == "maskrcnn-digits" else "voc")
    )
    if refused is None:
        assert load_data(theirs).classes == (91 if recipe == "maskrcnn-digits" else 21)
    else:
        with pytest.raises(RequestError, match=re.escape(refused) + ".*pass --data.classes file"):
            load_data(theirs)


def test_run_lengths_that_pycocotools_wrote_are_read(tmp_path):
    draws = numpy.random.default_rng(0)
    for _ in range(300):
        mask = numpy.asfortranarray((draws.random((HEIGHT, WIDTH)) < draws.random()).astype(numpy.uint8))
        encoded = rle.encode(mask)
        for counts in (encoded["counts"], encoded["counts"].decode()):
            assert segmentation_problem({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH) is None
        torn = encoded["counts"][:-1]
        if torn:
            assert segmentation_problem({"size": [HEIGHT, WIDTH], "counts": torn}, HEIGHT, WIDTH) is not None


def test_names_of_files_are_shown_without_what_a_terminal_obeys(tmp_path):
    path = tmp_path / "a\x1b[31m.json"
    path.write_text("[")
    with pytest.raises(RequestError) as refusal:
        read_annotations(path)
    assert "\x1b" not in str(refusal.value)
