"""Image files that people have, against an independent reader: Pillow's own conversions, or a refusal by name."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, ImageOps

from golu_core.training.data import images
from golu_core.training.data.image_copies import equal_files
from golu_core.training.data.image_lists import group_name, image_files, share_by_groups
from golu_core.training.data.images import decode
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import printable
from golu_core.training.storage.user_folders import left_out

SIDE = 24


def ramp(high: int = 255) -> numpy.ndarray:
    """(SIDE, 2 * SIDE) from 0 to `high`."""
    return numpy.linspace(0, high, 2 * SIDE)[None, :].repeat(SIDE, 0)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb() -> Image.Image:
    columns = ramp()
    return Image.fromarray(numpy.stack([columns, columns[:, ::-1], columns * 0 + 90], -1).astype(numpy.uint8))


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(rgb(), kind, exif=exif)


def reference(content: bytes, background: str = "white") -> numpy.ndarray:
    """What Pillow makes of a file: turned, its transparent pixels on a ground, as RGB."""
    with Image.open(io.BytesIO(content)) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.has_transparency_data:
            layers = picture.convert("RGBA")
            ground = Image.new("RGB", layers.size, background)
            ground.paste(layers, mask=layers.getchannel("A"))
            return numpy.array(ground)
        return numpy.array(picture.convert("RGB"))


READ = {
    **{f"{kind}, {mode}": encoded(rgb().convert(mode), kind) for kind, modes in {
        "JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "L", "P", "1", "RGBA", "LA"), "WEBP": ("RGB", "RGBA"),
        "GIF": ("P", "L"), "BMP": ("RGB", "L", "P"), "TIFF": ("RGB", "L", "P", "CMYK"), "PPM": ("RGB", "L", "1"),
    }.items() for mode in modes},
    **{f"{kind}, orientation {n}": turned(kind, n) for kind in ("JPEG", "WEBP", "PNG", "TIFF") for n in range(1, 9)},
    "progressive JPEG": encoded(rgb(), "JPEG", progressive=True),
    "interlaced colors, JPEG 4:4:4": encoded(rgb(), "JPEG", subsampling=0),
    "TIFF, LZW": encoded(rgb(), "TIFF", compression="tiff_lzw"),
    "lossless WebP": encoded(rgb(), "WEBP", lossless=True),
    "transparent palette": encoded(rgb().convert("P"), "PNG", transparency=3),
    "transparent gray": encoded(rgb().convert("L"), "PNG", transparency=0),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_file_is_what_pillow_makes_of_it(case):
    found = decode(READ[case], case)
    expected = torch.from_numpy(reference(READ[case])).permute(2, 0, 1)
    assert found.dtype == torch.uint8 and found.shape == expected.shape
    tolerance = 6 if "JPEG" in case else 1  # libjpeg-turbo and Pillow's own build sample colors up differently
    assert (found.int() - expected.int()).abs().float().mean() < tolerance


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_hidden_colors_of_transparent_pixels_are_not_seen(kind, background):
    picture = rgb().convert("RGBA")
    alpha = Image.fromarray((ramp() > 127).astype(numpy.uint8) * 255)
    picture.putalpha(alpha)
    found = decode(encoded(picture, kind, **({"lossless": True} if kind == "WEBP" else {})), "x", background=background)
    left = found[:, :, : SIDE - 2]
    assert (left == (255 if background == "white" else 0)).all()
    assert torch.equal(found[:, :, SIDE + 2 :], torch.from_numpy(numpy.array(rgb())).permute(2, 0, 1)[:, :, SIDE + 2 :])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_by_their_range(kind):
    content = encoded(Image.fromarray(ramp(65535).round().astype(numpy.uint16)), kind)
    expected = torch.from_numpy(ramp(255))
    assert (decode(content, "x")[0] - expected).abs().max() <= 1


def test_a_tiff_that_states_its_range_is_scaled_by_it():
    twelve = Image.fromarray(ramp(4095).round().astype(numpy.uint16))
    content = encoded(twelve, "TIFF", tiffinfo={281: 4095})
    assert (decode(content, "x")[0] - torch.from_numpy(ramp(255))).abs().max() <= 1


def animation(kind: str) -> bytes:
    frames = [rgb(), rgb().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_that_is_said_once(kind, capsys):
    images._said.clear()
    content = animation(kind)
    first = decode(content, "film.x")
    decode(content, "film.x")
    assert first.shape == (3, SIDE, 2 * SIDE)
    assert (first.float() - torch.from_numpy(numpy.array(rgb())).permute(2, 0, 1)).abs().mean() < 8
    assert capsys.readouterr().err.count("the first of such a file is used") == 1


def png_bomb(width: int, height: int) -> bytes:
    """A PNG whose header says more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header says another size than it has."""
    content = bytearray(encoded(rgb(), "JPEG"))
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(content)


REFUSED = {
    "32-bit samples": (encoded(Image.fromarray(ramp(70000).astype(numpy.int32)), "TIFF"), "samples of 32 bits"),
    "floating point": (encoded(Image.fromarray(ramp(1).astype(numpy.float32)), "TIFF"), "floating point"),
    "12 bits in 16": (encoded(Image.fromarray(ramp(4095).astype(numpy.uint16)), "TIFF"), "none above 4095"),
    "no image": (b"<html>404</html>", "no known image format"),
    "empty": (b"", "no known image format"),
    "a huge PNG": (png_bomb(20000, 20000), "more than 178,956,970 pixels"),
    "a huge JPEG": (jpeg_of_size(20000, 20000), "20,000 x 20,000 pixels"),
    "half a PNG": (READ["PNG, RGB"][: len(READ["PNG, RGB"]) // 2], "cannot be decoded"),
    "half a JPEG": (READ["JPEG, RGB"][: len(READ["JPEG, RGB"]) // 2], "cannot be decoded"),
    "half a WebP": (READ["WEBP, RGB"][: len(READ["WEBP, RGB"]) // 2], "cannot be decoded"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(case):
    content, words = REFUSED[case]
    with pytest.raises(RequestError, match=words) as refusal:
        decode(content, "folder/na\nme\u202e.png")
    message = str(refusal.value)
    assert message.startswith("the image folder/na\\nme\\u202e.png ")
    assert " object at 0x" not in message and "BytesIO" not in message


@pytest.mark.slow
def test_no_flipped_byte_takes_the_process_down():
    """Each damaged file is decoded, or refused; torchvision's PNG decoder dies of some of these."""
    code = f"""
import random, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from golu_core.training.messages.errors import RequestError
from golu_core.training.data.images import decode
from test_images import READ
draws = random.Random(0)
read = refused = 0
for case, content in sorted(READ.items()):
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(draws.choice((1, 1, 3, 10))):
            damaged[draws.randrange(len(damaged))] ^= 1 << draws.randrange(8)
        if draws.random() < 0.2:
            damaged = damaged[: draws.randrange(len(damaged))]
        try:
            found = decode(bytes(damaged), case)
            assert found.dtype.itemsize == 1 and found.shape[0] == 3
            read += 1
        except RequestError:
            refused += 1
print(read, refused)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    read, refused = map(int, done.stdout.split()[-2:])
    assert read > 300 and refused > 300


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "cats" / "inner").mkdir(parents=True)
    for name in ("a.png", "B.JPG", "c.webp", "inner/d.jpeg", "inner/e.jfif"):
        (tmp_path / "cats" / name).write_bytes(b"x")
    return tmp_path / "cats"


def names(folder: Path) -> tuple[list[str], list[str]]:
    found, others = image_files(folder)
    return [p.relative_to(folder).as_posix() for p in found], [p.relative_to(folder).as_posix() for p in others]


OWN = ["B.JPG", "a.png", "c.webp", "inner/d.jpeg", "inner/e.jfif"]


def test_images_are_found_at_any_depth(folder):
    assert names(folder) == (OWN, [])


@pytest.mark.parametrize(
    "junk",
    ["._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/a.png", ".ipynb_checkpoints/a-checkpoint.png", ".cache/x.jpg"],
)
def test_what_systems_and_editors_leave_is_no_image(folder, junk):
    (folder / junk).parent.mkdir(exist_ok=True)
    (folder / junk).write_bytes(b"x")
    assert names(folder) == (OWN, [])


def test_other_files_are_counted_and_named(folder):
    for name in ("notes.txt", "labels.csv", "more.txt", "README"):
        (folder / name).write_bytes(b"x")
    found, others = image_files(folder)
    assert len(found) == 5
    kinds = "2 .txt, 1 without a suffix, 1 .csv"
    named = "README, labels.csv, more.txt"
    assert left_out(others) == f"4 files that are not read as images ({kinds}), such as {named}"


def test_folders_named_like_images_and_links_are_followed_once(folder, tmp_path):
    (folder / "x.png").mkdir()
    (folder / "x.png" / "y.png").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.png").write_bytes(b"x")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked-again").symlink_to(tmp_path / "elsewhere")
    (folder / "inner" / "loop").symlink_to(folder)
    assert names(folder)[0] == sorted([*OWN, "x.png/y.png", "linked/z.png"])


def test_names_that_are_not_utf8_or_have_newlines_are_found_and_shown(folder):
    strange = os.fsencode(str(folder)) + b"/caf\xe9\n.png"
    with open(strange, "wb") as file:
        file.write(b"x")
    found, _ = image_files(folder)
    (odd,) = [path for path in found if path.name.startswith("caf")]
    assert printable(odd.name) == "caf\\udce9\\n.png"
    printable(odd).encode("utf-8")
    with pytest.raises(RequestError):
        images.read_image(odd)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("cat.jpg", "cat"),
        ("Cat (2).jpg", "cat"),
        ("cat copy.jpg", "cat"),
        ("cat_flip.png", "cat"),
        ("cat_aug_12.png", "cat"),
        ("cat_jpg.rf.0a1b2c.jpg", "cat_jpg"),
        ("clip_frame0012.jpg", "clip"),
        ("0012.png", "0012"),
        ("IMG_1234.jpg", "img_1234"),
    ],
)
def test_near_duplicates_have_one_group(name, group):
    assert group_name(Path(name)) == group


def test_groups_stay_together_and_the_share_is_about_what_was_asked_for():
    paths = [Path(f"cat{n}{more}.jpg") for n in range(40) for more in ("", "_flip", " (1)")]
    kept, tested = share_by_groups(paths, 0.2)
    assert sorted([*kept, *tested]) == sorted(paths)
    assert not {group_name(p) for p in kept} & {group_name(p) for p in tested}
    assert 18 <= len(tested) <= 30
    assert share_by_groups(list(reversed(paths)), 0.2)[1] == list(reversed(tested))


def test_equal_files_are_found_by_content(tmp_path):
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"owt")):
        (tmp_path / name).write_bytes(content)
    found = equal_files([tmp_path / name for name in "abcd"])
    assert found.groups == [[0, 2]] and found.examined == {0, 1, 2, 3}
