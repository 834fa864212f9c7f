"""What a golu-detect recipe consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from golu_core.training.config import EpochConfig, placement
from golu_core.training.errors import RequestError
from golu_core.training.fields import Amount, Count, FolderName, NotNegative, Range

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# the 21 classes of PASCAL VOC among COCO's categories, background first, as torchvision's reference has them
VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)

Pixels = Annotated[int, Range(least=1, most=8192)]


@dataclass(frozen=True)
class DeepLabV3:
    """A segmenter (Chen et al., 2017), torchvision's.

    Attributes:
        backbone: `resnet50`, torchvision's; `small`, three stages for the digit scenes.
        own_activation: the activation of the network as published, which is swapped.
        aux_weight: of the auxiliary head's loss; 0 is no such head.
    """

    kind: ClassVar[str] = "deeplabv3"
    backbone: Literal["resnet50", "small"] = "resnet50"
    own_activation: str = "relu"
    aux_weight: NotNegative = 0.5


@dataclass(frozen=True)
class _Detector:
    """A detector of torchvision's.

    Attributes:
        backbone: `resnet50`, torchvision's; `small`, three stages for the digit scenes.
        own_activation: the activation of the network as published, which is swapped.
        shorter_side: images are scaled to one of these, at random in training, and to the last in evaluation.
        longer_side: but no longer than this.
        trainable_stages: of the backbone, counted from its end, where it brings trained weights; 5 is all of it, and
            torchvision's default is 3.
    """

    backbone: Literal["resnet50", "small"] = "resnet50"
    own_activation: str = "relu"
    shorter_side: tuple[Pixels, ...] = (800,)
    longer_side: Pixels = 1333
    trainable_stages: Annotated[int, Range(least=0, most=5)] | None = None

    def check(self, flag: str) -> None:
        if not self.shorter_side:
            raise RequestError(f"{flag}.shorter-side needs at least one size")


@dataclass(frozen=True)
class FasterRcnn(_Detector):
    """Faster R-CNN with a feature pyramid (Ren et al., 2015; Lin et al., 2017)."""

    kind: ClassVar[str] = "fasterrcnn"


@dataclass(frozen=True)
class RetinaNet(_Detector):
    """RetinaNet (Lin et al., 2017), torchvision's second version."""

    kind: ClassVar[str] = "retinanet"


@dataclass(frozen=True)
class MaskRcnn(_Detector):
    """Mask R-CNN with a feature pyramid (He et al., 2017)."""

    kind: ClassVar[str] = "maskrcnn"


Model = DeepLabV3 | FasterRcnn | RetinaNet | MaskRcnn


@dataclass(frozen=True)
class Data:
    """Where images and annotations in COCO's format come from.

    Attributes:
        name: folder below --data-dir in COCO 2017's published layout; also the data set's name in results.
        train_images, train_annotations, test_images, test_annotations: a folder of images and a file of annotations of
            your own, instead of the published places.
        classes: `coco` takes COCO's category ids as they are, for 91 outputs; `voc` takes PASCAL VOC's 21 classes among
            them; `file` numbers the file's categories from 1 in the order of their ids.
        train_size, test_size: images as published, what is filtered left out; a difference is said and noted in
            result.json. 0 if not known.
    """

    name: FolderName = placement("coco")
    train_images: Path | None = placement(None)
    train_annotations: Path | None = placement(None)
    test_images: Path | None = placement(None)
    test_annotations: Path | None = placement(None)
    classes: Literal["coco", "voc", "file"] = "coco"
    train_size: Amount = placement(117_266)
    test_size: Amount = placement(5_000)

    @property
    def expected_classes(self) -> int:
        """Outputs of the network, with the background, as far as they are known without the files."""
        return {"coco": 91, "voc": len(VOC_CATEGORIES), "file": 2}[self.classes]

    @property
    def is_own(self) -> bool:
        """Whether files are the user's, and not those of the recipe."""
        return any((self.train_images, self.train_annotations, self.test_images, self.test_annotations))

    @property
    def title(self) -> str:
        """The data set's name in results."""
        return (self.train_annotations or Path(f"{self.name}, own files")).stem if self.is_own else self.name


@dataclass(frozen=True)
class DetectionAugment:
    """What happens to a detector's training image; detectors scale their images themselves.

    Attributes:
        flip: mirror every other image.
    """

    kind: ClassVar[str] = "detection"
    flip: bool = True


@dataclass(frozen=True)
class SegmentationAugment:
    """Which images a segmenter learns from, and what happens to them.

    Attributes:
        flip: mirror every other image.
        resize: the shorter side becomes a random size between these.
        crop: a random square of so many pixels is taken; what lies outside the image is not counted.
        eval_side: shorter side in evaluation.
        fewest_pixels: training images whose objects cover no more pixels are left out.
    """

    kind: ClassVar[str] = "segmentation"
    flip: bool = True
    resize: tuple[Pixels, Pixels] = (260, 1040)
    crop: Pixels = 480
    eval_side: Pixels = 520
    fewest_pixels: Amount = 1000

    def check(self, flag: str) -> None:
        if self.resize[0] > self.resize[1]:
            raise RequestError(
                f"{flag}.resize must be a smaller and a larger size, not {self.resize[0]} {self.resize[1]}"
            )


@dataclass(frozen=True, kw_only=True)
class DetectConfig(EpochConfig):
    """A golu-detect recipe: everything that a run of it needs."""

    model: Model = FasterRcnn()
    data: Data = Data()
    augment: DetectionAugment | SegmentationAugment = DetectionAugment()
    backbone: str | None = None
    """Trained weights of the backbone: a run folder of golu-vision with the same activation, a safetensors file, or the
    name of torchvision's, such as IMAGENET1K_V1."""
    group_size: Count = 4
    """So many images in a row have similar aspect ratios; 1 does not group."""
    drop_last: bool = True
    """Leave out the images that do not fill the epoch's last batch; otherwise the epoch's first ones fill it."""

    @property
    def own_activation(self) -> str:
        return self.model.own_activation

    @property
    def primary_metric(self) -> str:
        return "miou" if self.segments else "box_map"

    @property
    def segments(self) -> bool:
        """Whether the network segments; others detect."""
        return isinstance(self.model, DeepLabV3)

    def check(self, flag: str) -> None:
        if self.batch_size % self.group_size:
            raise RequestError(f"--group-size {self.group_size} does not divide --batch-size {self.batch_size}")
        needed = SegmentationAugment if self.segments else DetectionAugment
        if not isinstance(self.augment, needed):
            raise RequestError(f"--model {self.model.kind} needs --augment {needed.kind}")
        if isinstance(self.model, _Detector) and self.model.trainable_stages is not None and self.backbone is None:
            raise RequestError("--model.trainable-stages is of a backbone with trained weights: name one by --backbone")
        if self.backbone is not None and self.model.backbone != "resnet50":
            raise RequestError("--backbone needs --model.backbone resnet50: the small one has no trained weights")
