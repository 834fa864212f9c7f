"""Annotations, targets and order against pycocotools and torchvision's reference rules; what is malformed is named."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy
import pytest
import torch
from PIL import Image as Pillow
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torchvision import tv_tensors
from torchvision.transforms.functional import InterpolationMode, resize

from golu_core.training.data.orders import BatchPlan, EpochOrder, SampleKey, TrainBatches
from golu_core.training.messages.errors import RequestError
from golu_detect.annotations import Image, read_annotations
from golu_detect.coco import IGNORED, covered_images, instance_target, segmentation_target, trainable_images
from golu_detect.config import SegmentationAugment
from golu_detect.data import check_every_image, load_data
from golu_detect.orders import AspectRatioOrder
from golu_detect.recipes import RECIPES
from golu_detect.scenes import evaluation_transform, training_transform
from golu_detect.segmentations import object_mask

CONFIG = RECIPES["maskrcnn-digits"]
PICTURE = Image(1, "a.png", 20, 30)


def square(left, top, size, **more):
    polygon = [left, top, left + size, top, left + size, top + size, left, top + size]
    box = [left, top, size, size]
    return {"category_id": 1, "segmentation": [polygon], "bbox": box, "area": size * size, "iscrowd": 0, **more}


def ring():
    mask = numpy.zeros((20, 30), dtype=numpy.uint8, order="F")
    mask[4:16, 4:16] = 1
    mask[8:12, 8:12] = 0
    encoded = rle.encode(mask)
    return {"size": [20, 30], "counts": encoded["counts"].decode()}


HARD = {
    "one": [square(2, 3, 8)],
    "overlap": [square(2, 3, 8), square(6, 6, 9, category_id=2)],
    "hole": [square(0, 0, 5, segmentation=ring(), category_id=2)],
    "run lengths": [square(0, 0, 5, segmentation={"size": [20, 30], "counts": [45, 100, 455]})],
    "crowd": [square(1, 1, 6), square(3, 3, 9, iscrowd=1, segmentation=ring())],
    "outside": [square(24, 14, 12)],
    "two polygons": [
        square(1, 1, 4, segmentation=[square(1, 1, 4)["segmentation"][0], square(3, 3, 6)["segmentation"][0]])
    ],
    "unknown class": [square(2, 3, 8, category_id=99)],
    "empty": [],
}


@pytest.mark.parametrize("case", HARD)
def test_segmentation_targets_equal_masks_made_by_pycocotools(case, tmp_path):
    objects = [{**entry, "id": n + 1, "image_id": 1} for n, entry in enumerate(HARD[case])]
    truth = COCO()
    truth.dataset = {"images": [PICTURE._asdict()], "annotations": objects, "categories": [{"id": 1}, {"id": 2}]}
    truth.createIndex()
    labels = {1: 5, 2: 7}
    expected = numpy.zeros((20, 30), dtype=numpy.int64)
    covers = numpy.zeros((20, 30), dtype=numpy.int64)
    for entry in objects:
        if entry["category_id"] in labels:
            mask = truth.annToMask(entry)
            expected[mask > 0] = labels[entry["category_id"]]
            covers += mask
    expected[covers > 1] = IGNORED
    assert numpy.array_equal(segmentation_target(objects, PICTURE, labels).numpy(), expected)


def test_instance_targets_leave_out_crowds_and_what_has_no_area_in_the_image():
    objects = [square(2, 3, 8), square(1, 1, 5, iscrowd=1), square(26, 16, 9), square(30, 2, 3)]
    target = instance_target(objects, PICTURE, {1: 1}, with_masks=True)
    assert target["boxes"].tolist() == [[2, 3, 10, 11], [26, 16, 30, 20]]
    assert target["labels"].tolist() == [1, 1] and target["masks"].shape == (2, 20, 30)
    nothing = instance_target([], PICTURE, {1: 1}, with_masks=True)
    assert nothing["boxes"].shape == (0, 4) and nothing["masks"].shape == (0, 20, 30)


@pytest.mark.parametrize("segmentation", [None, [], [[1, 2]], {"size": [9, 9], "counts": [81]}, {"counts": "x"}, 5])
def test_a_malformed_segmentation_is_named(segmentation):
    with pytest.raises(RequestError, match="annotation 7 has"):
        object_mask({"id": 7, "segmentation": segmentation}, PICTURE.height, PICTURE.width)


def write(path, images, annotations, categories=((1, "one"), (2, "two"))):
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in categories],
    }
    path.write_text(json.dumps(content))
    return path


def test_filtering_is_that_of_torchvisions_reference(tmp_path):
    images = [{"id": n, "file_name": f"{n}.png", "height": 200, "width": 200} for n in range(6)]
    boxes = {0: [], 1: [square(1, 1, 1)], 2: [square(1, 1, 2)], 3: [square(1, 1, 0)], 4: [square(1, 1, 40, iscrowd=1)]}
    boxes[5] = [square(1, 1, 25), square(30, 30, 25, category_id=2)]
    entries = [{**o, "image_id": n, "id": 10 * n + k} for n, row in boxes.items() for k, o in enumerate(row)]
    found = read_annotations(write(tmp_path / "a.json", images, entries))
    assert found.degenerate == 1
    assert [image.id for image in trainable_images(found)] == [2, 4, 5]
    assert [image.id for image in covered_images(found, {1: 1, 2: 2}, 1000)] == [4, 5]
    assert [image.id for image in covered_images(found, {2: 2}, 624)] == [5]
    assert not covered_images(found, {2: 2}, 625)


WRONG = {
    "no JSON": (lambda c: "{", "cannot be read as JSON"),
    "a list": (lambda c: "[]", "it lacks images, annotations, categories"),
    "no categories": (lambda c: json.dumps({k: v for k, v in c.items() if k != "categories"}), "it lacks categories"),
    "negative": (lambda c: edited(c, bbox=[3, 3, -4, 5]), "annotation 21 has a box of negative size"),
    "outside": (lambda c: edited(c, bbox=[300, 3, 4, 5]), "has a box outside its image of 96 x 96"),
    "three numbers": (lambda c: edited(c, bbox=[3, 3, 4]), "not four numbers"),
    "category": (lambda c: edited(c, category_id=4), "has category 4, which is not in the file"),
    "image": (lambda c: edited(c, image_id=5), "belongs to image 5, which is not in the file"),
    "no box": (lambda c: edited(c, bbox=None, drop="bbox"), "has no bbox"),
    "nothing": (lambda c: json.dumps({**c, "annotations": []}), "has no objects to learn from"),
}


def edited(content, drop=None, **changes):
    first = {k: v for k, v in {**content["annotations"][0], **changes}.items() if k != drop}
    return json.dumps({**content, "annotations": [first, *content["annotations"][1:]]})


@pytest.fixture
def copied(few_scenes, tmp_path):
    shutil.copytree(few_scenes, tmp_path / "data")
    return tmp_path / "data", dataclasses.replace(CONFIG, data_dir=tmp_path / "data")


@pytest.mark.parametrize("fault", WRONG)
def test_a_faulty_annotation_file_is_named(fault, copied):
    root, config = copied
    spoil, message = WRONG[fault]
    path = root / "digit-scenes" / "annotations" / "instances_train2017.json"
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(RequestError, match=message) as error:
        load_data(config)
    assert "instances_train2017.json" in str(error.value)


def test_data_are_what_they_should_be(copied):
    _, config = copied
    data = load_data(config)
    assert (len(data.train), len(data.test), data.classes) == (12, 7, 11)
    assert data.facts["left_out"] == 1
    assert data.names[10] == "9"
    assert check_every_image(data, 0) == 19
    batch = data.train.__getitems__([SampleKey(0, 0, 0), SampleKey(1, 0, 1)])
    assert batch.images[0].dtype == torch.uint8 and batch.images[0].shape == (3, 96, 96)
    assert len(batch.targets[1]["boxes"]) == len(batch.targets[1]["masks"]) > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "cannot be read"), ("torn", "cannot be decoded"), ("small", "but its annotation has")],
)
def test_a_faulty_image_is_named(name, message, copied):
    root, config = copied
    path = sorted((root / "digit-scenes" / "val2017").iterdir())[2]
    if name == "missing":
        path.unlink()
    elif name == "torn":
        path.write_bytes(path.read_bytes()[:200])
    else:
        Pillow.new("RGB", (50, 40)).save(path)
    with pytest.raises(RequestError, match=message) as error:
        check_every_image(load_data(config), 0)
    assert path.name in str(error.value)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "RGBA", "stored", "turned"])
def test_images_that_are_not_rgb_are_read(mode, copied):
    """EXIF data turn an image only where a person says so: COCO is annotated on pixels as they are stored."""
    root, config = copied
    path = sorted((root / "digit-scenes" / "val2017").iterdir())[0]
    pixels = numpy.linspace(0, 255, 96 * 96).reshape(96, 96).astype(numpy.uint8)
    kind = "JPEG" if mode in ("CMYK", "stored", "turned") else "PNG"
    if mode == "I;16":
        picture = Pillow.fromarray(pixels.astype(numpy.uint16) * 257)
    else:
        picture = Pillow.fromarray(pixels).convert("RGB" if mode in ("stored", "turned") else mode)
    exif = Pillow.Exif()
    if mode in ("stored", "turned"):
        exif[0x0112] = 6
    if mode == "turned":
        own = {
            f"{split}_images": root / "digit-scenes" / f"{split}2017".replace("test", "val")
            for split in ("train", "test")
        }
        notes = root / "digit-scenes" / "annotations"
        own |= {
            "train_annotations": notes / "instances_train2017.json",
            "test_annotations": notes / "instances_val2017.json",
        }
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, apply_exif=True, **own))
    picture.save(path, format=kind, **({"exif": exif, "quality": 95} if kind == "JPEG" else {}))
    data = load_data(config)
    read = next(data.test.scene(n)[0] for n, image in enumerate(data.test.images) if image.file_name == path.name)
    expected = numpy.rot90(pixels, -1) if mode == "turned" else pixels
    assert read.dtype == torch.uint8
    assert (read.float().mean(0) - torch.tensor(expected.copy()).float()).abs().mean() < 3


# --------------------------------------------------------------------------------------------------------------- order


def test_groups_have_similar_aspect_ratios_on_any_number_of_processes():
    bins = tuple(n % 3 for n in range(50))
    order = AspectRatioOrder(EpochOrder(50, 12, seed=4, drop_last=True), bins, group_size=4)
    for epoch in (0, 1):
        batches = list(order.global_batches(epoch, 0))
        assert len(batches) == 4 and all(len(batch) == 12 for batch in batches)
        groups = [batch[k : k + 4] for batch in batches for k in (0, 4, 8)]
        assert all(len({bins[image] for image in group}) == 1 for group in groups)
        assert len({image for group in groups for image in group}) >= 44
        assert list(order.global_batches(epoch, 2)) == batches[2:]
    assert list(order.global_batches(0, 0)) != list(order.global_batches(1, 0))
    one = [key for part in TrainBatches(order, BatchPlan(12, 1, 1, 12), 0) for key in part]
    ranks = [iter(TrainBatches(order, BatchPlan(12, 3, 1, 4), rank)) for rank in range(3)]
    assert [key for _ in range(4) for rank in ranks for key in next(rank)] == one


def scene_of(height: int, width: int, seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = torch.randint(1, 256, (3, height, width), generator=random, dtype=torch.uint8)
    mask = torch.randint(0, 21, (height, width), generator=random, dtype=torch.uint8)
    return {"image": tv_tensors.Image(image), "segmentation": tv_tensors.Mask(mask)}


@pytest.mark.parametrize("seed", range(40))
def test_classes_are_scaled_as_torchvisions_reference_scales_them(seed):
    """The reference scales Pillow images; torchvision's transform of tensors is half a pixel off."""
    height, width, side = torch.randint(20, 300, (3,), generator=torch.Generator().manual_seed(seed)).tolist()
    scene = scene_of(height, width, seed)
    done = evaluation_transform(SegmentationAugment(eval_side=side))(scene)
    theirs = resize(Pillow.fromarray(scene["segmentation"].numpy()), side, interpolation=InterpolationMode.NEAREST)
    assert numpy.array_equal(done["segmentation"].numpy(), numpy.asarray(theirs))
    assert done["image"].shape[-2:] == done["segmentation"].shape


@pytest.mark.parametrize(("height", "width"), [(20, 30), (30, 20), (20, 90), (90, 20), (64, 64), (90, 80)])
def test_crops_of_small_images_are_padded_below_and_on_the_right(height, width):
    augment = SegmentationAugment(flip=False, resize=(min(height, width),) * 2, crop=64)
    done = training_transform(augment)(scene_of(height, width, 0))
    assert done["image"].shape == (3, 64, 64) and done["segmentation"].shape == (64, 64)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[:height, :width] = True
    assert torch.equal(done["image"].amin(0) > 0, inside)
    assert torch.equal(done["segmentation"] != IGNORED, inside)


def test_augmentation_follows_epoch_and_position_alone(copied):
    _, config = copied
    segment = dataclasses.replace(RECIPES["deeplabv3-digits"], data_dir=config.data_dir)
    data = load_data(segment)
    one, two, other = (data.train.__getitems__([SampleKey(3, 0, p)]) for p in (5, 5, 6))
    assert torch.equal(one.images[0], two.images[0])
    assert not torch.equal(one.images[0], other.images[0])
    assert one.images[0].shape == (3, 64, 64) and one.targets[0]["segmentation"].shape == (64, 64)
    padded = dataclasses.replace(segment, augment=dataclasses.replace(segment.augment, resize=(40, 44)))
    batch = load_data(padded).train.__getitems__([SampleKey(3, 0, 0)])
    outside = batch.targets[0]["segmentation"] == IGNORED
    assert outside.any() and (batch.images[0][:, outside] == 0).all(dim=0).float().mean() > 0.9
