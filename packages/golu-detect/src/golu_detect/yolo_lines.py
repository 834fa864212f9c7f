"""The lines of YOLO's label files.

Ultralytics writes six kinds of lines, each starting with a class. Coordinates are fractions of the image:

- detect: a box (center, width, height);
- segment: three or more points of a polygon;
- obb: the four corners of an oriented box, read as a polygon;
- pose, if `data.yaml` has `kpt_shape`: a box and keypoints, of which only the box is read;
- predictions with `save_conf`: any of these and a confidence, which is refused;
- predictions of a tracker: these and a track number, which is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import excerpt

_BEYOND = 1e-3  # boxes may exceed the image by rounding
_CORNERS = 8  # values of an oriented box
_PREDICTED = "a label has no confidence and no track: write predictions without save_conf and tracking"


@dataclass
class Lines:
    """The lines of a split's label files.

    Attributes:
        names: Names of the classes by number.
        keypoints: Number of keypoint values after a box.
        with_keypoints: Number of boxes with keypoints so far.
        outlines: Number of polygons so far, by the length of their line.
        ends_in_1: Number of polygons among them that end in the whole number 1, like a tracker's first track.
    """

    names: dict[int, str]
    keypoints: int
    with_keypoints: int = 0
    outlines: Counter[int] = field(default_factory=Counter)
    ends_in_1: int = 0

    def entry(self, line: str, where: str, width: int, height: int) -> dict[str, Any]:
        """Read a line as an annotation in COCO's format, for an image of the given size.

        Raises:
            RequestError: The line is malformed.
        """
        words = line.split()
        try:
            label, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise RequestError(f"{where}: expected a class and numbers, got {excerpt(line)}") from None
        if label not in self.names:
            raise RequestError(f"{where}: class {label} is not among the {len(self.names)} names")
        problem = self._wrong_length(len(values))
        if problem:
            raise RequestError(f"{where}: expected {problem}")
        is_box = len(values) == 4 or self.keypoints > 0
        shares = values[:4] if is_box else values
        if not all(math.isfinite(v) and -_BEYOND <= v <= 1 + _BEYOND for v in shares):
            raise RequestError(f"{where}: numbers must be shares of the image, between 0 and 1")
        if is_box:
            self.with_keypoints += len(values) > 4
            return {"category_id": label + 1, **_boxed(shares, width, height)}
        self.outlines[len(values)] += 1
        self.ends_in_1 += words[-1] == "1"
        return {"category_id": label + 1, **_outlined(shares, width, height)}

    def _wrong_length(self, count: int) -> str | None:
        if self.keypoints:
            if count in (4, 4 + self.keypoints):
                return None
            return (
                f"4 numbers of a box, or {4 + self.keypoints} with the keypoints of data.yaml's kpt_shape, "
                f"got {count} numbers"
            )
        if count == 4 or (count >= 6 and count % 2 == 0):
            return None
        predicted = f"; {_PREDICTED}" if count >= 5 else ""
        return f"4 numbers of a box, or 3 or more points of a polygon, got {count} numbers{predicted}"

    def check(self, path: Path) -> None:
        """Refuse a split whose polygons all end like the lines of a tracker, in a confidence and track 1.

        Args:
            path: The data set's description, for the message.

        Raises:
            RequestError: All polygons end this way.
        """
        count = sum(self.outlines.values())
        if count and count == self.ends_in_1 and set(self.outlines) != {_CORNERS}:
            raise RequestError(
                f"{printable(path)}: each of the {count:,} labels with 6 or more numbers ends in 1, as of a tracked "
                f"object: {_PREDICTED}"
            )

    def notes(self) -> tuple[str, ...]:
        """Return notes on values that were corrected while reading, as sentences."""
        found = []
        if self.with_keypoints:
            found.append(f"the keypoints of {self.with_keypoints:,} objects are left out, their boxes are used")
        if set(self.outlines) == {_CORNERS}:
            count = self.outlines[_CORNERS]
            found.append(
                f"{count:,} objects have four corners, as oriented boxes: the boxes are the upright ones around them"
            )
        return tuple(found)


def _boxed(shares: list[float], width: int, height: int) -> dict[str, Any]:
    center_x, center_y, w, h = shares
    box = [(center_x - w / 2) * width, (center_y - h / 2) * height, w * width, h * height]
    return {"bbox": box, "segmentation": None, "area": box[2] * box[3]}


def _outlined(shares: list[float], width: int, height: int) -> dict[str, Any]:
    polygon = [v * (height if n % 2 else width) for n, v in enumerate(shares)]
    xs, ys = polygon[::2], polygon[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"bbox": box, "segmentation": [polygon], "area": _area(polygon)}


def _area(polygon: list[float]) -> float:
    """Return the area of a polygon by the shoelace formula."""
    xs, ys = polygon[::2], polygon[1::2]
    return abs(sum(xs[n - 1] * ys[n] - xs[n] * ys[n - 1] for n in range(len(xs)))) / 2
