"""CelebA in the layouts that people have, and images of your own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from golu_core.training.messages.errors import RequestError
from golu_diffusion.celeba import find_celeba

NUMBERS = range(1, 11)
KINDS = {n: (0, 0, 0, 0, 1, 1, 2, 0, 1, 2)[n - 1] for n in NUMBERS}


def write_images(folder: Path, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True)
    for n in NUMBERS:
        Image.new("RGB", (6, 8), (20 * n, 0, 0)).save(folder / f"{n:06d}{suffix}")


def write_partition(path: Path, bom: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    comma = "," if path.suffix == ".csv" else " "
    lines = [f"{n:06d}.jpg{comma}{kind}" for n, kind in KINDS.items()]
    if path.suffix == ".csv":
        lines.insert(0, "image_id,partition")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig" if bom else "utf-8")


LAYOUTS = {
    "torchvision": ("celeba/img_align_celeba", "celeba/list_eval_partition.txt"),
    "in one folder": ("img_align_celeba", "list_eval_partition.txt"),
    "the official archives": ("Img/img_align_celeba", "Eval/list_eval_partition.txt"),
    "the official folder": ("CelebA/Img/img_align_celeba", "CelebA/Eval/list_eval_partition.txt"),
    "Kaggle": ("img_align_celeba/img_align_celeba", "list_eval_partition.csv"),
    "the PNG set": ("Img/img_align_celeba_png", "Eval/list_eval_partition.txt"),
}


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read(layout, bom, tmp_path):
    images, partition = LAYOUTS[layout]
    write_images(tmp_path / images, ".png" if layout == "the PNG set" else ".jpg")
    write_partition(tmp_path / partition, bom)
    found = find_celeba(tmp_path)
    assert [path.stem for path in found["train"]] == [f"{n:06d}" for n in NUMBERS if KINDS[n] == 0]
    assert [path.stem for path in found["test"]] == [f"{n:06d}" for n in NUMBERS if KINDS[n] == 1]
    assert all(path.exists() for paths in found.values() for path in paths)


def only_archive(root: Path) -> None:
    root.mkdir()
    (root / "img_align_celeba.zip").touch()


def no_partition(root: Path) -> None:
    write_images(root / "img_align_celeba")


def one_is_missing(root: Path) -> None:
    write_images(root / "img_align_celeba")
    write_partition(root / "list_eval_partition.txt")
    (root / "img_align_celeba" / "000001.jpg").unlink()


def a_strange_line(root: Path) -> None:
    write_images(root / "img_align_celeba")
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg\u202e train\n")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "there is no CelebA in"),
        (only_archive, "unpack img_align_celeba.zip first"),
        (no_partition, "has no partition file, but img_align_celeba"),
        (one_is_missing, "000001.jpg is missing, which list_eval_partition.txt names"),
        (a_strange_line, r"line 2: expected a file's name and 0, 1 or 2, got 000002.jpg\\u202e train"),
    ],
)
def test_what_is_missing_is_named(make, words, tmp_path):
    make(tmp_path / "celeba")
    with pytest.raises(RequestError, match=words):
        find_celeba(tmp_path / "celeba")


def test_a_test_folder_of_your_own(few_images, tmp_path, monkeypatch, capfd):
    from command_line import runner_in_this_process
    from golu_diffusion.cli import COMMAND_LINE

    run_here = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    (tmp_path / "tests").mkdir()
    for path in sorted(few_images.iterdir())[:5]:
        shutil.copy(path, tmp_path / "tests")
    (tmp_path / "tests" / "notes.txt").touch()
    own = ["--data.images", str(few_images), "--data.test-images", "tests", "--dry-run"]
    done = run_here("train", "ddpm-digits", *own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "70 training, 5 test images" in done.stdout
    assert "5 test images are also among the training images" in done.stderr
    assert "notes.txt" in done.stderr
    done = run_here("train", "ddpm-digits", "--data.test-images", "tests", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "--data.images" in done.stderr
