"""Images from file to batch: sources, augmentation, mixing, metrics."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from golu_core.training.config.fields import check_fields
from golu_core.training.data.images import decode
from golu_core.training.data.orders import BatchPlan, SampleKey
from golu_core.training.messages.errors import RequestError
from golu_vision.config import Crop, Data, Mix, TimmAugment, TorchvisionAugment
from golu_vision.data import ImageData, StoredImages, check_every_image, load_data
from golu_vision.evaluate import classification_metrics
from golu_vision.mixing import check_mixing, cutmix_box, mix_batch
from golu_vision.recipes import RECIPES
from golu_vision.transforms import normalized, training_transform


def keys(*samples, epoch=0):
    return [SampleKey(sample, epoch, position) for position, sample in enumerate(samples)]


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode="RGB", size=(24, 16)):
    """A smooth picture, which JPEG keeps well."""
    x = numpy.linspace(0, 255, size[0])[None, :].repeat(size[1], 0)
    rgb = numpy.stack([x, x[:, ::-1], x * 0 + 90], axis=-1).astype(numpy.uint8)
    return Image.fromarray(rgb).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("RGBA", "PNG")]
)
def test_every_kind_of_image_becomes_rgb(mode, kind):
    image = decode(encoded(picture(mode), kind), "x")
    assert image.shape == (3, 16, 24) and image.dtype == torch.uint8
    expected = torch.from_numpy(numpy.array(picture(mode).convert("RGB"))).permute(2, 0, 1).float()
    assert (image.float() - expected).abs().mean() < 12


def test_exif_rotation_is_applied():
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    assert decode(encoded(image, "JPEG", exif=exif), "x").shape == (3, 24, 16)


def test_a_truncated_jpeg_is_named():
    whole = encoded(picture(size=(200, 200)), "JPEG")
    with pytest.raises(RequestError, match=r"some/file\.jpg"):
        decode(whole[: len(whole) // 2], "some/file.jpg")
    with pytest.raises(RequestError, match="no image"):
        decode(b"no image at all", "no image")


@pytest.fixture
def stored():
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return lambda **options: StoredImages(images, torch.arange(40) % 10, **options)


def test_crops_are_shifts_and_flips_of_the_image(stored):
    """Every augmented image is one of the 9 x 9 x 2 that padding, cropping and flipping by torch give."""
    training = stored(seed=3, pad=4, flip=True)
    original = stored(seed=None)
    batch = training.__getitems__(keys(*range(40)))
    moved = 0
    for number, image in enumerate(batch.images):
        padded = F.pad(original.images[number], [4] * 4)
        candidates = [
            view
            for top in range(9)
            for left in range(9)
            for view in (padded[:, top : top + 32, left : left + 32],)
            for view in (view, view.flip(2))
        ]
        matches = [torch.equal(image, candidate) for candidate in candidates]
        assert any(matches)
        moved += not torch.equal(image, original.images[number])
    assert moved > 30


def test_augmentation_is_a_function_of_position(stored):
    training = stored(seed=3, pad=4, flip=True)
    together = training.__getitems__(keys(*range(16))).images
    again = training.__getitems__(keys(*range(16))).images
    apart = torch.cat([training.__getitems__([key]).images for key in keys(*range(16))])
    assert torch.equal(together, again) and torch.equal(together, apart)
    assert not torch.equal(together, training.__getitems__(keys(*range(16), epoch=1)).images)
    assert not torch.equal(together, stored(seed=4, pad=4, flip=True).__getitems__(keys(*range(16))).images)
    far = [SampleKey(0, 0, (1 << 16) - 1), SampleKey(0, 0, 1 << 16)]
    across = training.__getitems__(far).images
    assert torch.equal(across[1:], training.__getitems__(far[1:]).images)
    assert torch.equal(across[:1], training.__getitems__(far[:1]).images)


@pytest.mark.parametrize(
    "augment",
    [
        Crop(pad=3),
        TorchvisionAugment(policy="autoaugment"),
        TimmAugment(rand_augment="rand-m9-mstd0.5-inc1", erase=0.5),
    ],
)
def test_per_image_augmentation_is_a_function_of_position(augment, few_digits, tmp_path):
    data = replace(RECIPES["digits"].data, root=few_digits, in_memory=False)
    config = replace(RECIPES["digits"], data=data, augment=augment, data_dir=tmp_path)
    train = load_data(config).train
    first = train.__getitems__(keys(1, 2, 3)).images
    torch.rand(7)
    assert torch.equal(first, train.__getitems__(keys(1, 2, 3)).images)
    assert not torch.equal(first, train.__getitems__(keys(1, 2, 3, epoch=1)).images)
    assert first.dtype == (torch.float32 if isinstance(augment, TimmAugment) else torch.uint8)
    assert first.shape == (3, 3, 32, 32)


def test_order_of_augmentation_is_that_of_the_reference_scripts():
    """torchvision's ClassificationPresetTrain: crop, flip, policy. timm's: crop, flip, policy, tensor, erasing last."""
    policy = training_transform(Data(), TorchvisionAugment(policy="autoaugment"))
    names = [type(step).__name__ for step in policy.transforms]
    assert names == ["RandomResizedCrop", "RandomHorizontalFlip", "AutoAugment"]
    recipe = RECIPES["tinyvit-21m-imagenet"]
    to_pillow, pipeline = training_transform(recipe.data, recipe.augment).transforms
    assert type(to_pillow).__name__ == "ToPILImage"
    steps = [type(step).__name__ for step in pipeline.transforms]
    order = ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment", "Normalize", "RandomErasing"]
    assert [name for name in steps if name in order] == order
    assert "ColorJitter" not in steps


def test_normalization_equals_torchvisions():
    from torchvision.transforms.v2 import functional as tv

    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    data = Data()
    expected = tv.normalize(images.float() / 255, list(data.mean), list(data.std))
    torch.testing.assert_close(normalized(images, data, torch.device("cpu")).contiguous(), expected)


def test_metrics_count_each_image_once():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 10, generator=generator)
    labels = torch.randint(0, 10, (50,), generator=generator)
    counted = torch.rand(50, generator=generator) < 0.7
    count, loss, first, five = classification_metrics(logits, labels, counted).tolist()
    kept, right = logits[counted], labels[counted]
    assert count == counted.sum()
    assert loss == pytest.approx(F.cross_entropy(kept, right, reduction="sum").item(), rel=1e-6)
    assert first == (kept.argmax(1) == right).sum()
    ranks = (kept > kept.gather(1, right[:, None])).sum(1)
    assert five == (ranks < 5).sum()


def test_mixing_is_the_same_for_any_split_of_the_batch():
    images = torch.rand(64, 3, 16, 16)
    targets = F.one_hot(torch.arange(64) % 10, 10).float()
    positions = torch.arange(128, 192)
    mix = Mix(mixup=0.8, cutmix=1.0, group=16)
    whole = mix_batch(images, targets, positions, mix, seed=1, epoch=2)
    parts = [mix_batch(images[s], targets[s], positions[s], mix, 1, 2) for s in (slice(0, 24), slice(24, 64))]
    for number in range(2):
        assert torch.equal(whole[number], torch.cat([part[number] for part in parts]))
    assert not torch.equal(whole[0], mix_batch(images, targets, positions, mix, seed=1, epoch=3)[0])


@pytest.mark.parametrize("mix", [Mix(mixup=0.8, group=8), Mix(cutmix=1.0, group=8)])
def test_targets_are_mixed_as_the_pixels_are(mix):
    """Images of constant brightness: the target's weight of a partner is the partner's share of the pixels."""
    brightness = torch.arange(32.0)
    images = brightness[:, None, None, None].expand(-1, 3, 20, 20)
    targets = torch.eye(32)
    mixed, soft = mix_batch(images, targets, torch.arange(32), mix, 0, 0)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(32))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), soft @ brightness, rtol=1e-4, atol=1e-4)
    partners = (soft > 0).sum(dim=1)
    assert partners.max() == 2


def test_cutmix_box_has_about_the_asked_area():
    rng = numpy.random.default_rng(0)
    inside = [cutmix_box(0.75, 200, 200, rng) for _ in range(500)]
    whole = [(b - t) * (r - left) / 40_000 for t, b, left, r in inside if t > 0 and left > 0 and b < 200 and r < 200]
    assert whole and all(area == pytest.approx(0.25, abs=0.01) for area in whole)


def test_a_batch_that_cannot_be_mixed_is_refused():
    with pytest.raises(RequestError, match="must be above 0"):
        check_fields(Mix())
    with pytest.raises(RequestError, match="blocks of 8"):
        check_mixing(Mix(mixup=0.2), BatchPlan(12, 1, 1, 12))


def test_own_folder_and_its_facts(few_digits, tmp_path):
    config = replace(RECIPES["digits"], data=replace(RECIPES["digits"].data, root=few_digits))
    data = load_data(config)
    assert data.classes == ("0", "1", "2", "3")
    assert (len(data.train), len(data.test)) == (52, 23)
    assert data.remarks[0] == "digits has 52 train images, the recipe's own data have 1,442"
    assert not data.facts["as_published"]
    assert list(check_every_image(data, 16, 0))[-1] == 75


def test_a_hub_data_set_from_a_local_copy(few_digits, tmp_path):
    import datasets

    splits = datasets.load_dataset("imagefolder", data_dir=str(few_digits), cache_dir=str(tmp_path / "cache"))
    splits.save_to_disk(tmp_path / "copy")
    recipe = RECIPES["digits"]
    folder = load_data(replace(recipe, data=replace(recipe.data, root=few_digits)))
    hub = load_data(replace(recipe, data=replace(recipe.data, hub=str(tmp_path / "copy"))))
    assert hub.classes == folder.classes and len(hub.train) == len(folder.train)
    assert torch.equal(hub.test.__getitems__(keys(0, 22)).images, folder.test.__getitems__(keys(0, 22)).images)
    with pytest.raises(RequestError, match="datasets cannot load"):
        load_data(replace(recipe, data=replace(recipe.data, hub=str(tmp_path / "nothing"))))


# splits of a saved data set, what is said of it, and whether it is taken
HUB_SPLITS: dict[str, tuple[list[str], str | None]] = {
    "test alone": (["test"], None),
    "validation and test": (["validation", "test"], "split validation; test is not used"),
    "val, test and more": (["test", "extra", "val"], "split val; test, extra is not used"),
}


def saved_images(
    folder: Path, splits: Sequence[str], change: Callable[[str, dict[str, Any]], Any] | None = None
) -> Path:
    import datasets

    made = {}
    for split in splits:
        content = {"image": [Image.new("RGB", (8, 8), (40 * n, 0, 0)) for n in range(4)], "label": [0, 1, 0, 1]}
        names = (change and change(split, content)) or ["cat", "dog"]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        made[split] = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict(made).save_to_disk(folder)
    return folder


def load_hub(folder: Path) -> ImageData:
    recipe = RECIPES["digits"]
    return load_data(replace(recipe, data=replace(recipe.data, hub=str(folder))))


@pytest.mark.parametrize("case", HUB_SPLITS)
def test_which_split_of_a_hub_data_set_is_the_test_is_said(case, tmp_path):
    splits, said = HUB_SPLITS[case]
    data = load_hub(saved_images(tmp_path / "saved", ["train", *splits]))
    named = [remark for remark in data.remarks if "the test images are those of" in remark]
    assert len(named) == (said is not None)
    assert said is None or named[0].endswith(said)


# what is changed in one split of a saved data set, and the message
HUB_CLASSES: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "other classes in the test": ("test", lambda content: ["dog", "cat"], "has other classes in its test images"),
    "a test without classes": ("test", lambda content: content.update(label=[-1] * 4), "test images without a class"),
    "a class missing": ("train", lambda content: content.update(label=[0, 1, None, 1]), "the first is number 2"),
}


@pytest.mark.parametrize("case", HUB_CLASSES)
def test_classes_of_a_hub_data_set_are_checked(case, tmp_path):
    changed, change, message = HUB_CLASSES[case]
    folder = saved_images(
        tmp_path / "saved", ["train", "test"], lambda split, content: change(content) if split == changed else None
    )
    with pytest.raises(RequestError, match=message):
        load_hub(folder)


def write_idx(folder: Path, compressed: bool = False) -> numpy.ndarray:
    """Write MNIST's four files with a few random images, and return the test images."""
    folder.mkdir(parents=True)
    rng = numpy.random.default_rng(0)
    for split, count in (("train", 12), ("t10k", 5)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=numpy.uint8)
        labels = (numpy.arange(count) % 10).astype(numpy.uint8)
        files = {
            "images-idx3": struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes(),
            "labels-idx1": struct.pack(">2i", 2049, count) + labels.tobytes(),
        }
        for name, content in files.items():
            path = folder / f"{split}-{name}-ubyte{'.gz' * compressed}"
            path.write_bytes(gzip.compress(content) if compressed else content)
    return pixels


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("recipe", ["mlp-mnist", "mlp-fashion", "resnet20-fashion"])
def test_idx_files_are_found_wherever_they_are_usual_and_equal_what_torchvision_reads(recipe, compressed, tmp_path):
    config = RECIPES[recipe]
    kind = {"mnist": "MNIST", "fashion": "FashionMNIST"}[config.data.source]
    for number, place in enumerate((".", "raw", f"{kind}/raw")):
        root = tmp_path / str(number)
        pixels = write_idx(root / config.data.name / place, compressed)
        data = load_data(replace(config, data_dir=root))
        assert len(data.train) == 12 and len(data.test) == 5 and len(data.classes) == 10
        image = data.test.__getitems__(keys(0)).images[0]
        assert all(torch.equal(channel, torch.from_numpy(pixels[0])) for channel in image)
    own = load_data(replace(config, data=replace(config.data, root=root / config.data.name)))
    assert own.fingerprint.text == data.fingerprint.text
    if not compressed:
        import torchvision

        theirs = getattr(torchvision.datasets, kind)(str(root / config.data.name), train=True)
        assert torch.equal(data.train.images[:, 0, *[slice(p, p + 28) for p in [data.train.pad] * 2]], theirs.data)
        assert data.train.labels.tolist() == theirs.targets.tolist()
        assert config.data.source == "mnist" or data.classes == tuple(theirs.classes)
    with pytest.raises(RequestError, match=r"MNIST is not in .*--data\.download"):
        load_data(replace(config, data_dir=tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "cut off or damaged"),
        (lambda content: content + b"1", "cut off or damaged"),
        (lambda content: b"", "not an IDX file"),
        (lambda content: b"PK" + content[2:], "not an IDX file"),
        (lambda content: content[:3] + bytes([200]) + content[4:], "not an IDX file"),
        (lambda content: gzip.compress(content)[:-20], "is damaged"),
        (lambda content: gzip.compress(content)[:15] + b"no" + gzip.compress(content)[17:], "is damaged"),
        (lambda content: struct.pack(">2i", 2049, 3) + b"123", "do not belong together"),
        (None, "has no train-images"),
    ],
)
@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_damaged_idx_files_are_refused_by_name(name, damage, message, tmp_path):
    write_idx(tmp_path / "mnist")
    path = tmp_path / "mnist" / name
    if damage is None:
        path.unlink()
        message = rf"has no {name.partition('idx')[0]}idx\*-ubyte"
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RequestError, match=message):
        load_data(replace(RECIPES["mlp-mnist"], data_dir=tmp_path))


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_all_there():
    data = load_data(replace(RECIPES["mlp-fashion"], data_dir=FASHION.parent))
    assert data.facts["as_published"] and data.facts["train"] == 60_000 and data.facts["test"] == 10_000
    assert data.train.labels.bincount().tolist() == [6000] * 10  # as Xiao et al. describe it
    mean, deviation = (data.train.images[:, 0].float() / 255).mean(), (data.train.images[:, 0].float() / 255).std()
    assert RECIPES["resnet20-fashion"].data.mean[0] == pytest.approx(float(mean), abs=5e-4)
    assert RECIPES["resnet20-fashion"].data.std[0] == pytest.approx(float(deviation), abs=5e-4)


def test_cifar10_in_torchvisions_layout(tmp_path, monkeypatch):
    """Batches in CIFAR-10's own pickle format, read by torchvision; its checksums are of the real files."""
    import pickle

    import torchvision

    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = numpy.random.default_rng(0)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for name in names:
        batch = {"data": rng.integers(0, 256, (4, 3072), dtype=numpy.uint8), "labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(n) for n in range(10)]}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load_data(replace(RECIPES["resnet20-cifar10"], data_dir=tmp_path))
    assert len(data.train) == 20 and len(data.test) == 4
    first = pickle.loads((folder / "test_batch").read_bytes())["data"][0].reshape(3, 32, 32)
    assert torch.equal(data.test.__getitems__(keys(0)).images[0], torch.from_numpy(first))
    enlarged = load_data(replace(RECIPES["vit-ti16-cifar10"], data_dir=tmp_path))
    assert enlarged.train.__getitems__(keys(0)).images.shape == (1, 3, 224, 224)
