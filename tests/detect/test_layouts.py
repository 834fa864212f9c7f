"""Folders in the layouts that other programs write: each gives the same boxes, classes and polygons."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as Pillow

from golu_core.training.messages.errors import RequestError
from golu_detect.config import Data
from golu_detect.data import check_every_image, load_data
from golu_detect.layouts import DatasetSplit, find_splits
from golu_detect.recipes import RECIPES

WIDTH, HEIGHT = 60, 40
NAMES = ("cat", "dog")
# for each image of a split its objects: class, left, top, width, height
TRAIN = {"a": [(0, 5, 4, 20, 10), (1, 30, 12, 16, 20)], "b": [(1, 2, 2, 30, 30)], "c": []}
TEST = {"d": [(0, 10, 10, 20, 16)], "e": [(1, 20, 8, 12, 12), (0, 1, 1, 8, 8)]}
SPLITS = {"train": TRAIN, "test": TEST}


def write_images(folder: Path, names: list[str], suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Pillow.new("RGB", (WIDTH, HEIGHT), (40 * number, 90, 30)).save(folder / f"{name}{suffix}")


def coco(*splits: dict[str, list[tuple[int, ...]]]) -> dict[str, object]:
    images, annotations = [], []
    for split in splits:
        for name, objects in split.items():
            images.append({"id": len(images) + 1, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH})
            for label, x, y, w, h in objects:
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                entry = {
                    "id": len(annotations),
                    "image_id": len(images),
                    "category_id": label + 1,
                    "bbox": [x, y, w, h],
                }
                annotations.append({**entry, "segmentation": [polygon]})
    categories = [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def coco_2017(root: Path) -> None:
    for split, name in (("train", "train2017"), ("test", "val2017")):
        write_images(root / name, list(SPLITS[split]))
        write_json(root / "annotations" / f"instances_{name}.json", coco(SPLITS[split]))


def coco_in_one_image_folder(root: Path) -> None:
    write_images(root / "images", [*TRAIN, *TEST])
    write_json(root / "annotations" / "instances_train.json", coco(TRAIN))
    write_json(root / "annotations" / "instances_val.json", coco(TEST))


def roboflow(root: Path) -> None:
    for split, name in (("train", "train"), ("test", "valid")):
        write_images(root / name, list(SPLITS[split]))
        write_json(root / name / "_annotations.coco.json", coco(SPLITS[split]))


def yolo_line(label: int, x: int, y: int, w: int, h: int, polygon: bool) -> str:
    if polygon:
        corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        return f"{label} " + " ".join(f"{a / WIDTH:.8f} {b / HEIGHT:.8f}" for a, b in corners)
    return f"{label} {(x + w / 2) / WIDTH:.8f} {(y + h / 2) / HEIGHT:.8f} {w / WIDTH:.8f} {h / HEIGHT:.8f}"


def yolo(root: Path, *, polygon: bool = False, prefix: str = "", images_first: bool = True) -> None:
    for split, name in (("train", "train"), ("test", "val")):
        parts = ("images", name) if images_first else (name, "images")
        labels = ("labels", name) if images_first else (name, "labels")
        write_images(root.joinpath(*parts), list(SPLITS[split]))
        root.joinpath(*labels).mkdir(parents=True)
        for image, objects in SPLITS[split].items():
            if objects:  # an image without objects often has no file
                lines = [yolo_line(*entry, polygon) for entry in objects]
                (root.joinpath(*labels) / f"{image}.txt").write_text("\n".join(lines) + "\n")
    places = ("images/train", "images/val") if images_first else ("train/images", "val/images")
    names = "names: [cat, dog]" if polygon else "names:\n  0: cat\n  1: dog"
    (root / "data.yaml").write_text(f"train: {prefix}{places[0]}\nval: {prefix}{places[1]}\n{names}\n")


def voc(root: Path) -> None:
    for split, name in (("train", "train"), ("test", "val")):
        write_images(root / "JPEGImages", list(SPLITS[split]))
        (root / "Annotations").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(SPLITS[split]) + "\n")
        for image, objects in SPLITS[split].items():
            boxes = "".join(
                f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>"
                f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                for label, x, y, w, h in objects
            )
            size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{image}.png</filename>{size}{boxes}</annotation>"
            (root / "Annotations" / f"{image}.xml").write_text(text)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "COCO 2017": coco_2017,
    "COCO with one image folder": coco_in_one_image_folder,
    "Roboflow, COCO": roboflow,
    "YOLO, boxes": yolo,
    "YOLO, polygons": lambda root: yolo(root, polygon=True),
    "Roboflow, YOLO": lambda root: yolo(root, prefix="../", images_first=False),
    "PASCAL VOC": voc,
}


ONLY_BOXES = ("YOLO, boxes", "Roboflow, YOLO", "PASCAL VOC")


def objects_of(split: DatasetSplit) -> dict[str, list[tuple[str, ...]]]:
    """Class, box and area of each image's objects, rounded."""
    found = {}
    for image in split.annotations.images:
        entries = split.annotations.objects.get(image.id, ())
        assert (image.width, image.height) == (WIDTH, HEIGHT)
        assert (split.folder / image.file_name).is_file()
        found[Path(image.file_name).stem] = [
            (
                split.annotations.categories[entry["category_id"]],
                *(round(v, 2) for v in entry["bbox"]),
                round(entry["area"]),
            )
            for entry in entries
        ]
    return found


@pytest.mark.parametrize("recipe", ["maskrcnn-digits", "fasterrcnn-digits", "deeplabv3-digits"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_has_the_same_objects(layout, recipe, tmp_path):
    LAYOUTS[layout](tmp_path / "mine")
    for split, expected in zip(find_splits(tmp_path / "mine", None), (TRAIN, TEST), strict=True):
        assert objects_of(split) == {
            name: [(NAMES[label], x, y, w, h, w * h) for label, x, y, w, h in objects]
            for name, objects in expected.items()
        }
    config = RECIPES[recipe]
    config = dataclasses.replace(config, data=Data(root=tmp_path / "mine", classes="file"))
    if recipe == "deeplabv3-digits":
        config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, fewest_pixels=0))
    if recipe != "fasterrcnn-digits" and layout in ONLY_BOXES:
        with pytest.raises(RequestError, match="has no segmentation"):  # a box is not a mask
            load_data(config)
        return
    data = load_data(config)
    assert data.names == {1: "cat", 2: "dog"} and data.classes == 3
    assert config.data.title == "mine"
    assert check_every_image(data, 0) == 2 + 2


def single(root: Path, name: str = "annotations/instances_default.json", images: str = "images/default") -> None:
    many = {f"{n:02d}": TRAIN["a"] for n in range(20)}
    write_images(root / images, list(many))
    write_json(root / name, coco(many))


@pytest.mark.parametrize(
    ("name", "images"),
    [("annotations/instances_default.json", "images/default"), ("result.json", "images"), ("result.json", ".")],
)
def test_one_file_for_all_images_is_shared_out(name, images, tmp_path):
    single(tmp_path, name, images)
    with pytest.raises(RequestError, match=r"--data\.test-share 0\.1"):
        find_splits(tmp_path, None)
    train, test = find_splits(tmp_path, 0.2)
    names = [{image.file_name for image in split.annotations.images} for split in (train, test)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 20 and 2 <= len(names[1]) <= 6
    config = dataclasses.replace(RECIPES["maskrcnn-digits"], data=Data(root=tmp_path, classes="file", test_share=0.2))
    data = load_data(config)
    assert len(data.train) + len(data.test) == 20


def test_a_share_of_data_with_a_test_split_is_refused(tmp_path):
    roboflow(tmp_path)
    with pytest.raises(RequestError, match=r"leave out --data\.test-share"):
        find_splits(tmp_path, 0.1)


def broken(change: Callable[[Path], object], make: Callable[[Path], None] = yolo) -> Callable[[Path], None]:
    def both(root: Path) -> None:
        make(root)
        change(root)

    return both


def labels(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "labels" / "train" / "a.txt").write_text(text)


def described(text: str) -> Callable[[Path], None]:
    return broken(lambda root: (root / "data.yaml").write_text(text))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: root.mkdir(), "it has nothing in it"),
    "something else": (lambda root: (root / "videos").mkdir(parents=True), "it has videos"),
    "no folder": (lambda root: None, "there is no data folder"),
    "images elsewhere": (
        broken(lambda root: (root / "images").rename(root / "pictures"), coco_in_one_image_folder),
        "the image a.png of",
    ),
    "a class without a name": (broken(labels("7 0.5 0.5 0.1 0.1")), "a.txt, line 1: class 7 is not among the 2 names"),
    "pixels instead of shares": (broken(labels("0 30 20 10 10")), "must be shares of the image"),
    "three numbers": (broken(labels("\n0 0.5 0.5 0.1")), "a.txt, line 2: expected 4 numbers of a box, or 3 or more"),
    "words": (broken(labels("cat 0.5 0.5 0.1 0.1")), "a.txt, line 1: expected a class and numbers"),
    "NaN": (broken(labels("0 nan 0.5 0.1 0.1")), "must be shares of the image"),
    "no names": (described("train: images/train\nval: images/val\n"), "must have names"),
    "no test": (described("train: images/train\nnames: [a]\n"), "must name train and val"),
    "YAML that is none": (described("a: ["), "cannot be read"),
    "a place that is not there": (described("train: x\nval: y\nnames: [a]\n"), "names x, which is not in"),
    "a torn image": (
        broken(lambda root: (root / "images" / "train" / "a.png").write_bytes(b"x")),
        "it is of no known image format",
    ),
    "VOC without lists": (
        broken(lambda root: (root / "ImageSets" / "Main" / "train.txt").unlink(), voc),
        "must have train.txt and val.txt",
    ),
    "VOC without an annotation": (
        broken(lambda root: (root / "Annotations" / "a.xml").unlink(), voc),
        "a.xml is missing, which",
    ),
    "VOC that is no XML": (
        broken(lambda root: (root / "Annotations" / "a.xml").write_text("<a>"), voc),
        "a.xml cannot be read as XML",
    ),
    "VOC with a box of text": (
        broken(lambda root: (root / "Annotations" / "a.xml").write_text(
            (root / "Annotations" / "a.xml").read_text().replace("<xmin>6<", "<xmin>six<")), voc),
        "bndbox/xmin 'six', which is not a number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path):
    make, words = WRONG[case]
    make(tmp_path / "mine")
    with pytest.raises(RequestError) as refusal:
        find_splits(tmp_path / "mine", None)
    assert words in str(refusal.value)
