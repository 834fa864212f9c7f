"""An export is accepted only if it finds all of torch's objects; what rounding decides in torch as well is no error."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from golu_core.training.export.exporting import Exportable
from golu_core.training.messages.errors import RunFailure
from golu_detect import export

KEPT = 20


class Detector(nn.Module):
    """Keeps 20 of 21 objects; the scores of the last two are `gap` apart, and a pixel of the image changes one.

    Args:
        gap: Score of object 19 minus that of object 20, in the first image of each size.
    """

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.gap, self.pixels = gap, dict[torch.Size, Tensor]()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        boxes, labels, scores, masks = self.objects(image)
        kept = scores.topk(KEPT).indices
        return boxes[kept], labels[kept], scores[kept], masks[kept]

    def objects(self, image: Tensor) -> tuple[Tensor, ...]:
        random = torch.Generator().manual_seed(0)
        corners = 40 * torch.rand(KEPT + 1, 2, generator=random)
        boxes = torch.cat([corners, corners + 20], dim=1)
        scores = torch.linspace(0.9, 0.5, KEPT + 1)
        scores[-2] = scores[-1] + self.gap + image[0, 0, 0] - self.pixels.setdefault(image.shape, image[0, 0, 0])
        return boxes, torch.arange(KEPT + 1) % 3 + 1, scores, torch.rand(KEPT + 1, 1, 8, 8, generator=random)


class Session:
    """The detector as an ONNX session that keeps object `last`, with one number of its outputs changed."""

    def __init__(self, detector: Detector, last: int, output: int = 0, by: float = 0.0) -> None:
        self.detector, self.kept, self.output, self.by = detector, [*range(KEPT - 1), last], output, by

    def run(self, names: None, inputs: dict[str, numpy.ndarray]) -> list[numpy.ndarray]:
        outputs = [every[self.kept] for every in self.detector.objects(torch.from_numpy(inputs["image"]))]
        outputs[self.output][5].view(-1)[0] += self.by
        return [output.numpy() for output in outputs]


def compared(gap: float, **session: Any) -> float:
    detector = Detector(gap)
    example = (torch.rand(3, 96, 112, generator=torch.Generator().manual_seed(0)),)
    made = Exportable(detector, example, ("image",), "boxes", "object-detection")
    return export._compared(made, Session(detector, **session))


def test_the_same_objects_are_accepted_and_so_is_rounding():
    assert compared(1e-2, last=19) == 0
    assert 0 < compared(1e-2, last=19, output=2, by=1e-6) < 1e-5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"last": 20}, "in the box and label and score of an object in an image of 112 x 96 pixels: it finds label .*"),
        ({"last": 19, "output": 0, "by": 1.0}, "in the box of an object .* instead of label 3, score 0.8"),
        ({"last": 19, "output": 1, "by": 1}, "in the label of an object .* finds label 4, .* instead of label 3,"),
        ({"last": 19, "output": 2, "by": 1e-3}, "in the score of an object .* score 0.801.* instead of .* score 0.800"),
        ({"last": 19, "output": 2, "by": float("nan")}, "in the score of an object .* finds .* score nan"),
        ({"last": 19, "output": 3, "by": 1e-3}, "by 0.001 in the mask of an object .*: label 3, score 0.8"),
    ],
    ids=["missing", "moved", "another label", "another score", "no number", "another mask"],
)
def test_one_object_in_20_that_differs_is_an_error_that_names_the_difference(changed, words):
    with pytest.raises(RunFailure, match=f"the exported network differs from torch's {words}"):
        compared(1e-2, **changed)


def test_another_number_of_objects_is_an_error(monkeypatch):
    monkeypatch.setattr(Session, "run", lambda *_: [torch.zeros(19, 4).numpy()])
    with pytest.raises(RunFailure, match=r"finds 19 objects in an image of 112 x 96 pixels, and torch's 20"):
        compared(1e-2, last=19)


def test_a_near_tie_at_the_last_object_kept_may_go_either_way_but_excuses_nothing_else():
    """At these sizes rounding is 80 x 2**-23 = 1e-5 or more."""
    assert compared(3e-6, last=20) < 1e-4
    with pytest.raises(RunFailure, match="in the box and label and score of an object"):
        compared(3e-3, last=20)
    with pytest.raises(RunFailure, match="in the box and label and score of an object"):
        compared(3e-6, last=20, output=1, by=1)
