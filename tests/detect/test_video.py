"""`golu-detect predict` on videos: frames as FFmpeg decodes them, what is seen in them, and files that are none."""

from __future__ import annotations

import json
import shutil
import sys
from fractions import Fraction

import numpy
import pytest
import torch
from PIL import Image

from command_line import runner_in_this_process
from detect_program import DETECT, FAST
from golu_core.training.messages.errors import RequestError
from golu_detect.cli import COMMAND_LINE
from golu_detect.video import SUFFIXES, is_video, open_video, upright, write_video

av = pytest.importorskip("av")


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def runs(few_scenes, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("video-runs")
    for recipe in ("fasterrcnn-digits", "deeplabv3-digits"):
        done = DETECT.run("train", recipe, "--data-dir", str(few_scenes), *FAST, "--max-steps", "3", cwd=cwd)
        assert done.returncode == 0, done.stderr
    return cwd / "runs" / "detect"


def frames_of(count: int, height: int = 96, width: int = 96) -> list[torch.Tensor]:
    """Frames that codecs keep nearly as they are: smooth, each brighter than the one before."""
    ramp = torch.linspace(0, 120, width).expand(3, height, width)
    return [(ramp + 12 * number).round().to(torch.uint8) for number in range(count)]


@pytest.fixture
def clip(tmp_path):
    write_video(tmp_path / "clip.mp4", Fraction(10), frames_of(9))
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("size", [(96, 96), (95, 64), (33, 51)])
def test_frames_come_back(size, tmp_path):
    frames = frames_of(7, *size)
    write_video(tmp_path / "clip.mp4", Fraction(30000, 1001), frames)
    video = open_video(tmp_path / "clip.mp4", 1)
    assert video.rate == Fraction(30000, 1001)
    read = list(video.frames)
    assert [frame.number for frame in read] == list(range(7))
    assert [frame.seconds for frame in read] == pytest.approx([n * 1001 / 30000 for n in range(7)], abs=1e-3)
    for frame, expected in zip(read, frames, strict=True):
        height, width = expected.shape[1:]
        assert frame.image.shape == (3, height + height % 2, width + width % 2)
        difference = (frame.image[:, :height, :width].float() - expected.float()).abs()
        assert difference.mean() < 4


def test_every_third_frame(clip):
    video = open_video(clip, 3)
    assert video.rate == Fraction(10, 3)
    assert [frame.number for frame in video.frames] == [0, 3, 6]


def test_turned_frames_stand_upright():
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3).expand(3, 2, 3)
    assert upright(image, 0).equal(image)
    assert upright(image, 90)[0].tolist() == [[2, 5], [1, 4], [0, 3]]  # counterclockwise, as a player turns it
    assert upright(image, -90)[0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert upright(image, 180)[0].tolist() == [[5, 4, 3], [2, 1, 0]]


def test_what_is_seen_in_a_video_is_what_is_seen_in_its_frames(runs, clip, run_here, tmp_path):
    run = str(runs / "fasterrcnn-digits" / "golu" / "seed0")
    done = run_here("predict", run, "clip.mp4", "--threshold", "0", "--every", "2", "--out", "seen", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "clip: 5 frames" in done.stdout
    seen = json.loads((tmp_path / "seen" / "clip.json").read_text())["frames"]
    assert [values["frame"] for values in seen] == [0, 2, 4, 6, 8]
    third = next(frame for frame in open_video(clip, 1).frames if frame.number == 4)
    Image.fromarray(third.image.permute(1, 2, 0).numpy()).save(tmp_path / "third.png")
    done = run_here("predict", run, "third.png", "--threshold", "0", "--out", "alone", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "alone" / "third.json").read_text())["detections"] == seen[2]["detections"]
    drawn = open_video(tmp_path / "seen" / "clip.mp4", 1)
    assert drawn.rate == 5 and len(list(drawn.frames)) == 5
    images = json.loads((tmp_path / "seen" / "images.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"clip.mp4#{number}" for number in (0, 2, 4, 6, 8)]
    again = run_here("predict", run, "clip.mp4", "--out", "seen", cwd=tmp_path)
    assert again.returncode == 0, again.stderr  # what we wrote may be written anew


def test_a_segmenter_takes_videos(runs, clip, run_here, tmp_path):
    done = run_here("predict", str(runs / "deeplabv3-digits" / "golu" / "seed0"), "clip.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frames = json.loads((tmp_path / "predictions" / "clip.json").read_text())["frames"]
    assert len(frames) == 9 and "classes" in frames[0]
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {"clip.json", "clip.mp4"}


def test_a_damaged_video_is_named_and_the_rest_goes_on(runs, clip, run_here, tmp_path):
    shutil.copy(clip, tmp_path / "good.mp4")
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mkv").write_bytes(b"")
    words = ["clip.mp4", "text.mp4", "empty.mkv", "missing.mov", "good.mp4"]
    done = run_here("predict", str(runs / "fasterrcnn-digits" / "golu" / "seed0"), *words, "--out", "s", cwd=tmp_path)
    assert done.returncode == 1
    for word in words[:4]:
        assert f"{word} cannot be read as a video" in done.stderr
    assert "4 of 5 files could not be read; the others are predicted" in done.stderr
    assert {path.name for path in (tmp_path / "s").glob("*.mp4")} == {"good.mp4"}


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 1024), numpy.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for piece in (*stream.encode(frame), *stream.encode()):
            container.mux(piece)
    with pytest.raises(RequestError, match=r"sound.mp4 has no pictures, only audio"):
        open_video(tmp_path / "sound.mp4", 1)


def test_a_video_of_the_user_stays(runs, clip, run_here, tmp_path):
    before = clip.read_bytes()
    for out in (".", "mine"):
        if out == "mine":
            (tmp_path / "mine").mkdir()
            shutil.copy(clip, tmp_path / "mine" / "clip.mp4")
            (tmp_path / "mine" / "clip.json").write_text('{"software": "made by golu", "detections": []}')
        run = str(runs / "fasterrcnn-digits" / "golu" / "seed0")
        done = run_here("predict", run, "clip.mp4", "--out", out, cwd=tmp_path)
        assert done.returncode == 2 and "this program did not make it" in done.stderr
        assert (tmp_path / out / "clip.mp4").read_bytes() == before


def test_without_pyav_the_message_says_what_to_install(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RequestError, match=r"needs PyAV: pip install \"golu-detect\[video\]\""):
        open_video(clip, 1)


def test_videos_are_known_by_their_names(tmp_path):
    assert all(is_video(tmp_path / f"a{suffix.upper()}") for suffix in SUFFIXES)
    assert not is_video(tmp_path / "a.gif") and not is_video(tmp_path / "mp4")
