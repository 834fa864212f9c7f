"""Makes docs/data.md of the tables that the tests of odd files run through, so that it stays true.

python tools/data_table.py > docs/data.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Your own data: what is read, and what is refused

Everything here is run by a test. What cannot be read right is refused before training, in one message that names the
file; `--dry-run --check-data` reads every sample. Made by `python tools/data_table.py`.
"""
IMAGES = """
## Images

All tasks read images the same way. JPEG goes through libjpeg-turbo, everything else through Pillow. Images are turned
as their EXIF data say, but not in golu-detect, where annotations are on the pixels as they are stored
(`--data.apply-exif` for others). Transparent pixels are put on white (`--data.background black`). Of an animation the
first frame is taken, which is said once. Samples of 16 bits are scaled by the range that the file states. At most
178,956,970 pixels are decoded.

Folders are searched at any depth; links are followed once. Hidden files, `Thumbs.db`, `__MACOSX` and the like are
passed over; other files are counted and named.

Read, and compared with Pillow: {read}.

| refused | message |
|---|---|
{refused}
"""
VISION = """
## Class folders (golu-vision)

`--data.root FOLDER` with `train/<class>/` and one of {tests} (the first that is there).
Class folders without a split: `--data.test-share 0.1` keeps a share of each class for the test, files with related
names (`cat.jpg`, `cat_flip.jpg`, `cat (2).jpg`) on one side. Two warnings count images with the same content: test
images that are also among the training images, and training images in two or more classes. Where more than 50,000 files
share their size with another one, only some sizes are compared, and the warning says `of N examined`.

| refused | message |
|---|---|
{refused}

A data set of the hub (`--data.hub`), or a folder that `save_to_disk` wrote, needs train and one of validation, valid,
val and test; the first of these that is there is the test.

| splits | what is said |
|---|---|
{hub}

| refused | message |
|---|---|
{hub_refused}
"""
DIFFUSION = """
## Images without classes (golu-diffusion)

`--data.images FOLDER`, with every tenth image for the test, or `--data.test-images FOLDER`. `--data.channels 1`
trains and draws in gray; a note suggests it if the images have no color, or if none of those examined has. CelebA is
found in these places in DATA_DIR/celeba:

| copy | images and partition |
|---|---|
{layouts}
"""
DETECT = """
## Boxes and masks (golu-detect)

`--data.root FOLDER` in one of these layouts: {layouts};
or one COCO file for all images with `--data.test-share 0.1`. Pass `--data.classes file`, unless ids and names of
the categories are COCO's own; others are refused without it. Boxes of YOLO and PASCAL VOC are not taken for masks.

YOLO's boxes, polygons and oriented boxes are read; the box of an oriented one is the upright one around it. Where
`data.yaml` has `kpt_shape`, boxes are read and keypoints are left out, with a note. Lines with a confidence or a track
are refused: they are predictions.

Before a run writes anything, and in `--dry-run`, all annotations are checked, and the size in the header of each image
file (of more than 10,000 in a split, a random 10,000). `--check-data` decodes every image.

In COCO files these are understood: {kept}.
Annotations are renumbered, so that ids may be missing, equal or 0.

| refused | message |
|---|---|
{refused}
{layouts_refused}

Without `--data.classes file`, where COCO's ids are expected:

| refused | message |
|---|---|
{not_coco}
"""
TEXT = """
## Text (golu-lm)

`--data.text PATH`, or `golu-lm prepare PATH`: plain text in UTF-8, or a column (`--data.column`, `--column`) of a file
that ends in {suffixes}. What gzip, bzip2, xz or zstd have packed is
unpacked while it is read. Line ends ({lines}) are read as Python
reads them. `<|endoftext|>` in a text file ends a document (`--data.no-split-on-endoftext` takes it for text).

A folder is read in the order of the names in it, from files that end in {plain} or as above,
all of one format. Files, or folders in it, that are named `train` and one of {tests} (the
first that is there) are the splits; otherwise the end of plain text, or rows of tables chosen at random, become the
test split. Tested: {folders}.

Token files without `meta.json` are uint16 as nanoGPT's, or as `--data.dtype` says; what looks like another width is
refused.

| refused | message |
|---|---|
{refused}

`--init-from` takes a Hugging Face GPT-2 with its sizes; a shorter `--model.context` stays. Refused:

| source | message |
|---|---|
{sources}
"""
PAIRS = """
## Pairs of sentences (golu-translate)

`golu-translate prepare PATH --pair en-de` reads a folder with `train.en` and `train.de` (line by line), `train.tsv` (a
sentence, one tab, its translation) or `train.tmx`, packed or not, or one TSV or TMX file. Only a newline ends a line.
Files that are named `valid` (or `validation`, `val`, `dev`) and `test` are these splits; where one is missing, one pair
in a hundred is kept for it by the checksum of its source, so that a sentence that stands in the text twice is in one
split. Training pairs with an empty side, or longer than `--max-subwords`, are left out and counted.

Tested: {read}.

| refused | message |
|---|---|
{refused}
"""


def rows(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines of a table."""
    return "\n".join(f"| {name} | … {words.replace('|', '/')} … |" for name, words in pairs)


def page() -> str:
    """The whole page."""
    for name in ("core", "vision", "lm", "translate", "detect", "diffusion"):
        sys.path.append(str(ROOT / "tests" / name))
    names = ("celeba", "data", "folders", "images", "layouts", "own_files", "own_text", "pairs")
    celeba, hub, folders, images, layouts, own_files, own_text, pairs = (
        import_module(f"test_{name}") for name in names
    )

    from golu_lm.own_files import PLAIN, TABLES, TEST_SPLITS
    from golu_vision.folders import TEST_FOLDERS

    return HEAD + "".join(
        [
            IMAGES.format(
                read="; ".join(images.READ),
                refused=rows((name, words) for name, (_, words) in images.REFUSED.items()),
            ),
            VISION.format(
                tests=", ".join(f"`{name}/`" for name in TEST_FOLDERS),
                refused=rows((name, "; ".join(words)) for name, (_, words) in folders.REFUSED.items()),
                hub=rows((name, words) for name, (_, words) in hub.HUB_SPLITS.items() if words),
                hub_refused=rows((name, words) for name, (_, _, words) in hub.HUB_CLASSES.items()),
            ),
            DIFFUSION.format(
                layouts="\n".join(f"| {name} | `{a}`, `{b}` |" for name, (a, b) in celeba.LAYOUTS.items())
            ),
            DETECT.format(
                layouts="; ".join(layouts.LAYOUTS),
                kept="; ".join(own_files.KEPT),
                refused=rows((name, words) for name, (_, words) in own_files.REFUSED.items()),
                layouts_refused=rows((name, words) for name, (_, words) in layouts.WRONG.items()),
                not_coco=rows((name, words) for name, (_, _, words) in own_files.COCO_CATEGORIES.items() if words),
            ),
            TEXT.format(
                suffixes=", ".join(f"`{suffix}`" for suffix in TABLES),
                plain=", ".join(f"`{suffix}`" for suffix in PLAIN),
                tests=", ".join(f"`{name}`" for name in TEST_SPLITS),
                folders="; ".join(own_text.FOLDERS),
                refused=rows(
                    (name, words) for name, (_, words) in (*own_text.REFUSED.items(), *own_text.WRONG_FOLDERS.items())
                ),
                lines=", ".join(own_text.LINES),
                sources=rows(
                    (", ".join(f"{k} {v}" for k, v in changes.items()), words) for changes, words in own_text.SOURCES
                ),
            ),
            PAIRS.format(
                read="; ".join(pairs.READABLE),
                refused=rows((name, words.replace(".*", "… ")) for name, (_, words) in pairs.MALFORMED.items()),
            ),
        ]
    )


if __name__ == "__main__":
    print(page(), end="")
