"""What is said of all data holds for all of them, or names how many were examined: whatever the odd ones' places."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from command_line import runner_in_this_process
from golu_core.training.data import examination, image_copies
from golu_core.training.data.examination import Header, color_of, header_of, of_examined
from golu_core.training.data.image_copies import equal_files, said_of_copies
from golu_core.training.data.images import read_image
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import task_of
from golu_detect.layouts import find_splits
from golu_lm import data as lm_data

GRAY, COLORED = (torch.full((3, 1, 1), 7, dtype=torch.uint8), torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None])


@pytest.fixture
def run_here(monkeypatch, capfd):
    def run(name: str, *flags: str, cwd: Path) -> SimpleNamespace:
        runner: Any = runner_in_this_process(CommandLine(task_of(name)), monkeypatch, capfd)
        found: SimpleNamespace = runner("train", name, *flags, "--dry-run", cwd=cwd)
        return found

    return run


# -------------------------------------------------------------------------------------------------------------- colors


def looked_for(count: int, colored: set[int], formats_with_color: set[int]) -> examination.Color:
    """`color_of` for images of which some are colored and some more are in a format that can be."""
    return color_of(
        count,
        lambda number: Header(8, 8, number in formats_with_color | colored),
        lambda number: COLORED if number in colored else GRAY,
    )


@pytest.mark.parametrize("count", [1, 12, 101, 450])
@pytest.mark.parametrize("format_of_the_rest", ["gray", "colored"])
def test_one_colored_image_at_any_place_is_never_denied(count, format_of_the_rest):
    rest = set(range(count)) if format_of_the_rest == "colored" else set()
    for place in range(count):
        color = looked_for(count, {place}, rest)
        assert not color.is_excluded
        assert color.found or (format_of_the_rest == "colored" and 100 <= color.examined < count)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("pattern", ["random", "between multiples of nine", "at the end"])
def test_colors_of_any_rate_are_never_denied(rate, pattern):
    for seed in range(30):
        count = random.Random(seed).randrange(100, 1500)
        wanted = max(1, round(rate * count))
        pool = list(range(count))
        if pattern == "random":
            random.Random(seed).shuffle(pool)
        elif pattern == "at the end":
            pool.reverse()
        else:
            pool = [n for n in pool if n % 9] + pool[::9]
        colored = set(pool[:wanted])
        color = looked_for(count, colored, set(range(count)))
        assert not color.is_excluded and (color.found or rate <= 0.1)


def test_gray_is_said_only_where_all_were_seen():
    assert looked_for(1000, set(), set()).is_excluded  # by their formats
    assert looked_for(1000, set(), set(range(0, 1000, 11))).is_excluded  # these few are decoded
    undecided = looked_for(1000, set(), set(range(1000)))
    assert not undecided.found and not undecided.is_excluded and undecided.examined == 200


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "bmp", "gif", "webp"])
def test_a_header_never_denies_color_that_the_pixels_have(mode, suffix, tmp_path):
    colors = numpy.random.default_rng(0).integers(0, 256, (9, 5, 3), dtype=numpy.uint8)
    picture = Image.fromarray(colors)
    picture = Image.new(mode, (5, 9), 5) if mode in ("I;16", "F") else picture.convert(mode)
    path = tmp_path / f"a.{suffix}"
    try:
        picture.save(path)
        pixels = read_image(path)
    except (OSError, ValueError, RequestError):
        pytest.skip(f"{suffix} has no {mode}")
    header = header_of(path, str(path))
    assert header == header_of(path.read_bytes(), "a") and (header.width, header.height) == (5, 9)
    assert header.may_have_color or not bool((pixels != pixels[:1]).any())


def write_pictures(folder: Path, count: int, colored: set[int], mode: str = "RGB") -> None:
    folder.mkdir()
    for number in range(count):
        picture = Image.new("L", (18, 18), number % 200)
        if number in colored:
            picture = Image.new("RGB", (18, 18), (number % 200, 10, 60))
        elif mode == "RGB":
            picture = picture.convert("RGB")
        picture.save(folder / f"{number:04d}.png", compress_level=0)


def test_pictures_are_drawn_in_gray_only_if_none_has_color(tmp_path, run_here):
    shown = {}
    write_pictures(tmp_path / "stride", 1000, {n for n in range(1000) if n % 10 in (1, 2, 3) and n % 9})
    write_pictures(tmp_path / "one", 150, {149}, mode="L")  # a test picture, and the last
    write_pictures(tmp_path / "gray", 150, set(), mode="L")
    write_pictures(tmp_path / "undecided", 250, set())
    for name in ("stride", "one", "gray", "undecided"):
        done = run_here("pictures", "--data.images", str(tmp_path / name), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        shown[name] = done.stdout + done.stderr
    for name, said in shown.items():
        assert ("without color" in said and "--data.channels 1" in said) == (name == "gray"), said
    assert "none of 200 images examined has color, of 250" in shown["undecided"]
    assert "median shorter side 18 pixels\n" in shown["stride"]


# -------------------------------------------------------------------------------------------------------------- copies


def write_files(folder: Path, contents: list[bytes]) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}.png" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def by_brute_force(paths: list[Path]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for number, path in enumerate(paths):
        groups.setdefault(path.read_bytes(), []).append(number)
    return sorted(group for group in groups.values() if len(group) > 1)


@pytest.mark.parametrize("seed", range(12))
def test_equal_files_are_those_of_brute_force(seed, tmp_path, monkeypatch):
    """Of few sizes, with contents that differ in a byte; where not all are opened, whole groups are missing."""
    pick = random.Random(seed)
    contents = [bytes([pick.randrange(4)]) * pick.choice([1, 2, 9000]) for _ in range(60)]
    contents += [b"x" * 9000 + bytes([pick.randrange(3)]) for _ in range(20)]  # alike in the middle
    paths = write_files(tmp_path / "a", contents)
    truth = by_brute_force(paths)
    assert equal_files(paths).groups == truth
    monkeypatch.setattr(image_copies, "_OPENED", 25)
    part = equal_files(paths)
    assert len(part.examined) < len(paths)
    assert part.groups == [group for group in truth if set(group) <= part.examined]
    assert all(set(group) <= part.examined or not set(group) & part.examined for group in truth)


@pytest.mark.parametrize("share", [1, 7, 300, 1200])
@pytest.mark.parametrize("opened", [50_000, 1000])
def test_as_many_copies_are_counted_as_there_are(share, opened, tmp_path, monkeypatch):
    """1,200 test images, of which some are among the training images: the number is right, or is `of N examined`."""
    monkeypatch.setattr(image_copies, "_OPENED", opened)
    train = write_files(tmp_path / "train", [b"%04d" % n + b"." * (n % 40) for n in range(1200)])
    test = write_files(tmp_path / "test", [b"%04d" % (n + 5000 * (n >= share)) + b"." * (n % 40) for n in range(1200)])
    said = said_of_copies([(path, 0) for path in train], [(path, 0) for path in test])
    truth = {1: "1 test image is", 7: "7 test images are", 300: "300 test images are", 1200: "1,200 test images are"}
    if opened == 50_000:
        assert len(said) == 1 and said[0].startswith(f"{truth[share]} also among the training images, such as ")
    elif said:
        found, looked_at = (int(n.replace(",", "")) for n in re.match(r"([\d,]+) of ([\d,]+) ", said[0]).groups())
        assert 0 < found <= share and looked_at < 1200 and "test images examined" in said[0]
        assert abs(found / looked_at - share / 1200) < 0.2


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_one_picture_in_two_classes_is_named(place, tmp_path):
    contents = [b"%04d" % n for n in range(40)]
    train = write_files(tmp_path / "train", [*contents, contents[place]])
    labeled = [(path, number // 20) for number, path in enumerate(train)]
    said = said_of_copies(labeled, [])
    assert said == (
        f"2 training images are in two or more classes with the same content, such as {train[place]} and {train[40]}",
    )
    assert said_of_copies([(path, 0) for path in train], []) == ()


def test_vision_counts_all_copies_and_names_both_classes(tmp_path, run_here):
    for split, label, offset in (("train", "a", 0), ("train", "b", 700), ("val", "a", 0), ("val", "b", 700)):
        folder = tmp_path / "data" / split / label
        folder.mkdir(parents=True)
        for number in range(offset, offset + 700):
            Image.new("RGB", (8, 8), (number % 256, number // 256, 9)).save(folder / f"{number:04d}.bmp")
    twin = Image.new("RGB", (8, 8), (5, 0, 9))
    twin.save(tmp_path / "data" / "train" / "b" / "twin.bmp")
    done = run_here("images", "--data.root", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1,400 test images are also among the training images" in done.stderr
    assert "2 training images are in two or more classes with the same content" in done.stderr


# ------------------------------------------------------------------------------------------------------ sizes and more


def test_a_sample_is_random_and_named():
    assert examination.examined(5, 5) == [0, 1, 2, 3, 4] and of_examined(5, 5) == ""
    some = examination.examined(1000, 100)
    assert len(set(some)) == 100 and some == examination.examined(1000, 100) and of_examined(100, 1000) != ""
    assert len({b - a for a, b in itertools.pairwise(some)}) > 5  # not evenly apart


@pytest.mark.parametrize("recipe", ["images", "pictures"])
def test_a_median_is_of_all_or_says_of_how_many(recipe, tmp_path, run_here, monkeypatch):
    folders = [tmp_path / "d"] if recipe == "pictures" else [tmp_path / "d" / label for label in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(30):
            Image.new("L", (20 + number, 70), number).save(folder / f"{number:02d}.png")
    flag = "--data.images" if recipe == "pictures" else "--data.root"
    import golu_diffusion.auto_recipe
    import golu_vision.auto_recipe

    done = run_here(recipe, flag, "d", cwd=tmp_path)
    assert re.search(r"median shorter side (3[2-6]) pixels\n", done.stdout), done
    for module in (golu_vision.auto_recipe, golu_diffusion.auto_recipe):
        monkeypatch.setattr(module, "HEADERS", 5)
    done = run_here(recipe, flag, "d", cwd=tmp_path)
    assert "pixels of 5 examined\n" in done.stdout


def test_a_folder_of_images_is_one_that_has_all(tmp_path):
    root = tmp_path / "own"
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", 40), ("val", 3)):
        (root / split).mkdir()
        for number in range(count):
            (root / split / f"{number:02d}.png").touch()
        images = [{"id": n, "file_name": f"{n:02d}.png", "height": 9, "width": 9} for n in range(count)]
        box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        content = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    (root / "00.png").touch()  # of another folder that could be meant
    for path in sorted((root / "train").iterdir()):
        assert find_splits(root, None)[0].folder == root / "train"
        path.unlink()
        with pytest.raises(RequestError, match=f"own/train lacks 1 of 40 images of .* such as {path.name}"):
            find_splits(root, None)
        path.touch()


@pytest.mark.parametrize("place", [0, 1, 999, 5000, 7777, 9999])
def test_a_strange_token_at_any_place_is_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr(lm_data, "_CHECKED_AT_ONCE", 100)
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    tokens = numpy.arange(10_000, dtype=numpy.uint16) % 50 + 1
    tokens.tofile(folder / "val.bin")
    tokens[place] = 60_000
    tokens.tofile(folder / "train.bin")
    flags = ["--data.name", "mine", "--data-dir", str(tmp_path / "data"), "--model.vocabulary", "64"]
    config = CommandLine(task_of("babygpt-pydocs")).config(["babygpt-pydocs", *flags])
    with pytest.raises(RequestError, match=f"token 60,000 at index {place:,}"):
        lm_data.load_data(config)


def test_zeros_of_the_beginning_are_not_said_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(lm_data, "_CHECKED_AT_ONCE", 100)
    tokens = numpy.ones(1000, dtype=numpy.uint16)
    tokens[1:100:2] = 0
    tokens.tofile(tmp_path / "train.bin")
    with pytest.raises(RequestError, match="every second token of the first 100 of "):
        lm_data.TokenFile(tmp_path / "train.bin", "uint16").check_width()
    tokens[1::2] = 0
    tokens[:90].tofile(tmp_path / "train.bin")
    with pytest.raises(RequestError, match=f"every second token of {re.escape(str(tmp_path))}"):
        lm_data.TokenFile(tmp_path / "train.bin", "uint16").check_width()
