"""Read and write the frames of videos with PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import check_regular

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
_USUAL_RATE = Fraction(25)


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        number: Index of the frame, from 0.
        seconds: Time of the frame.
        image: (3, H, W) uint8, upright.
    """

    number: int
    seconds: float
    image: Tensor


class Video(NamedTuple):
    """An open video.

    Attributes:
        rate: Frames per second, counting only the frames that are read.
        frames: The frames in order; raises RequestError if the file is damaged.
    """

    rate: Fraction
    frames: Iterator[Frame]


def is_video(path: Path) -> bool:
    """Return whether the name of a file is that of a video."""
    return path.suffix.lower() in SUFFIXES


def open_video(path: Path, every: int) -> Video:
    """Open a video and read its first frame.

    Args:
        path: The file.
        every: Step between frames: 1 reads each frame, 2 every second one, and so on.

    Raises:
        RequestError: PyAV is not installed, or the file has no readable frame.
    """
    rates: list[Fraction] = []
    frames = _frames(path, every, rates)
    first = next(frames, None)
    if first is None:
        raise RequestError(f"{printable(path)} has no frames")
    return Video(rates[0] / every, chain([first], frames))


def _frames(path: Path, every: int, rates: list[Fraction]) -> Iterator[Frame]:
    av = _pyav(path)
    try:
        check_regular(path)
    except OSError as error:
        raise RequestError(f"{printable(path)} cannot be read as a video: {error.strerror}") from None
    except ValueError:  # the path contains NUL
        raise RequestError(f"{printable(path)} cannot be read as a video: no file has such a name") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise RequestError(f"{printable(path)} has no pictures, only {_kinds(container)}")
            stream = container.streams.video[0]
            rates.append(Fraction(stream.average_rate or _USUAL_RATE))
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                    yield Frame(number, float(frame.time or 0.0), upright(pixels, frame.rotation))
    except av.FFmpegError as error:
        raise RequestError(f"{printable(path)} cannot be read as a video: {error.strerror}") from None


def _kinds(container: object) -> str:
    return " and ".join(sorted({stream.type for stream in getattr(container, "streams", ())})) or "nothing"


def upright(image: Tensor, rotation: int) -> Tensor:
    """Rotate a frame as a player does: phones store their orientation, not rotated frames.

    Args:
        image: The stored frame, (3, H, W).
        rotation: Counterclockwise rotation in degrees; angles that are not multiples of 90 are ignored.
    """
    return torch.rot90(image, round(rotation / 90) % 4, dims=(1, 2)).contiguous()


def write_video(path: Path, rate: Fraction, frames: Iterable[Tensor]) -> None:
    """Write an MP4 file with H.264, or MPEG-4 if this build of FFmpeg has no other encoder.

    Args:
        path: The file.
        rate: Frames per second.
        frames: (3, H, W) uint8, all of the same size; odd sides are extended by one row or column.
    """
    av = _pyav(path)
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for image in frames:
            even = F.pad(image[None].float(), (0, image.shape[2] % 2, 0, image.shape[1] % 2), mode="replicate")
            pixels = even[0].to(torch.uint8).permute(1, 2, 0).numpy()
            if stream is None:
                codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
                stream = container.add_stream(codec, rate=rate.limit_denominator(60_000))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def _pyav(path: Path) -> ModuleType:
    try:
        import av
    except ImportError:
        raise RequestError(
            f'{printable(path)} is a video, which needs PyAV: pip install "golu-detect[video]"'
        ) from None
    module: ModuleType = av
    return module


def video_writer(rate: Fraction, frames: Iterable[Tensor]) -> Callable[[Path], None]:
    """Return a function that writes frames to a given path; `write_video` describes the arguments."""

    def write(path: Path) -> None:
        write_video(path, rate, frames)

    return write
