"""Class folders as people have them: read right, or refused with what was seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from golu_core.training.messages.errors import RequestError
from golu_vision.folders import TEST_FOLDERS, find_class_folders


def fill(folder: Path, names: list[str], shade: int = 100) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("L", (8, 8), (shade + 7 * number) % 256).save(folder / name, format="PNG")


def fill_splits(root: Path, *splits: str, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> Path:
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            fill(root / split / name, [f"{split.replace('/', '-')}{n}.png" for n in range(count)], 80 * s + 25 * c)
    return root


def counts(root: Path, share: float | None = None) -> tuple[int, int, tuple[str, ...]]:
    found = find_class_folders(root, share)
    return len(found.train), len(found.test), found.classes


@pytest.mark.parametrize("name", TEST_FOLDERS)
def test_each_name_of_a_test_folder_is_taken(name, tmp_path):
    root = fill_splits(tmp_path, "train", name)
    assert counts(root) == (6, 6, ("cat", "dog"))
    assert find_class_folders(root, None).remarks == ()


def test_of_two_test_folders_the_one_that_is_taken_is_said(tmp_path):
    root = fill_splits(tmp_path, "train", "test", "valid")
    found = find_class_folders(root, None)
    assert all(path.parts[-3] == "valid" for path, _ in found.test)
    (said,) = found.remarks
    assert "the test images are those of" in said and "valid; test is not used" in said


@pytest.mark.parametrize("junk", [".ipynb_checkpoints", "__MACOSX", ".git"])
def test_folders_of_systems_and_editors_are_no_class(junk, tmp_path):
    root = fill_splits(tmp_path, "train", "val")
    fill(root / "train" / junk, ["x.png"])
    fill(root / "train" / "cat" / junk, ["train0-checkpoint.png"])
    assert counts(root) == (6, 6, ("cat", "dog"))


def test_files_that_are_left_out_are_said(tmp_path):
    root = fill_splits(tmp_path, "train", "val")
    (root / "train" / "cat" / "labels.txt").touch()
    (said,) = find_class_folders(root, None).remarks
    assert "1 file that is not read as images (1 .txt), such as labels.txt" in said


def test_test_images_that_are_trained_on_are_said(tmp_path):
    root = fill_splits(tmp_path, "train", "val")
    content = (root / "train" / "dog" / "train1.png").read_bytes()
    (root / "val" / "cat" / "copy.png").write_bytes(content)
    (said,) = find_class_folders(root, None).remarks
    assert "1 test image is also among the training images, such as" in said
    assert "copy.png" in said and "train1.png" in said


def one_class(root: Path) -> None:
    fill_splits(root, "train", "val", classes=("cat",))


def a_level_too_deep(root: Path) -> None:
    fill_splits(root, "train/animal", "val/animal")


def no_split(root: Path) -> None:
    fill_splits(root, ".")


def no_classes(root: Path) -> None:
    fill(root / "train", ["a.png"])
    fill(root / "val", ["b.png"])


def loose_images(root: Path) -> None:
    fill_splits(root, "train", "val")
    fill(root / "train", ["stray.png"])


def another_class_in_the_test(root: Path) -> None:
    fill_splits(root, "train", "val")
    fill(root / "val" / "horse", ["x.png"])


def no_images(root: Path) -> None:
    fill_splits(root, "train", "val")
    for path in (root / "train" / "cat").iterdir():
        path.rename(path.with_suffix(".txt"))


REFUSED = {
    "one class": (one_class, ["a single class folder, cat", "two are needed"]),
    "classes one level deeper": (
        a_level_too_deep,
        ["a single class folder, animal", "the folders cat, dog", "one level deeper"],
    ),
    "no split": (no_split, ["has no train or no val folder", "it has the folders cat, dog"]),
    "no class folders": (no_classes, ["train has no class folder"]),
    "images beside class folders": (loose_images, ["1 images beside its class folders, such as stray.png"]),
    "a class only in the test": (another_class_in_the_test, ["classes that", "lacks: horse"]),
    "a class without images": (no_images, ["train/cat has no image", "3 files that are not read as images (3 .txt)"]),
    "no folder": (lambda root: None, ["there is no data folder"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_set_is_refused_with_what_was_seen(case, tmp_path):
    make, words = REFUSED[case]
    root = tmp_path / "photos"
    make(root)
    with pytest.raises(RequestError) as refusal:
        find_class_folders(root, None)
    for word in words:
        assert word in str(refusal.value)


def test_a_share_for_the_test_keeps_related_files_together(tmp_path):
    for label in ("cat", "dog"):
        fill(tmp_path / label, [f"{label}{n}{more}.png" for n in range(20) for more in ("", "_flip")])
    found = find_class_folders(tmp_path, 0.2)
    train, test = ({path.stem.removesuffix("_flip") for path, _ in part} for part in (found.train, found.test))
    assert not train & test
    assert len(found.train) + len(found.test) == 80 and 10 <= len(found.test) <= 24
    assert {label for _, label in found.test} == {0, 1}
    assert any("are kept for the test" in said for said in found.remarks)
    assert found.names == find_class_folders(tmp_path, 0.2).names


def test_a_share_of_data_with_a_split_is_refused(tmp_path):
    fill_splits(tmp_path, "train", "val")
    with pytest.raises(RequestError, match="has the folder val"):
        find_class_folders(tmp_path, 0.1)
    fill(tmp_path / "small" / "cat", ["a.png"])
    fill(tmp_path / "small" / "dog", ["b.png"])
    with pytest.raises(RequestError, match="too few for a test share of"):
        find_class_folders(tmp_path / "small", 0.1)


def test_a_dry_run_on_a_wrong_folder_of_your_own_is_refused(tmp_path, monkeypatch, capfd):
    from command_line import runner_in_this_process
    from golu_vision.cli import COMMAND_LINE

    run_here = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    done = run_here("train", "resnet18-imagenet", "--data.root", "photos", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "there is no data folder photos" in done.stderr
    done = run_here("train", "resnet18-imagenet", "--data.test-share", "0.1", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "--data.root" in done.stderr
