"""The recipe of a segmenter or detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from golu_core.training import (
    EpochConfig,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RequestError,
    added_field,
    runtime_field,
)
from golu_core.training.config import Background, BatchNorm, FolderName, Range

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# the 21 classes of PASCAL VOC among COCO's categories, background first, as torchvision's reference has them
VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)

Pixels = Annotated[int, Range(ge=1, le=8192)]


@dataclass(frozen=True)
class DeepLabV3:
    """A segmenter (Chen et al., 2017), torchvision's.

    Attributes:
        backbone: `resnet50`, torchvision's, or `small`, with three stages for the digit scenes.
        default_activation: The published model's activation, which `activation` replaces.
        aux_weight: Weight of the auxiliary head's loss; 0 leaves the head out.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"default_activation": "own_activation"}
    kind: ClassVar[str] = "deeplabv3"

    backbone: Literal["resnet50", "small"] = "resnet50"
    default_activation: str = "relu"
    aux_weight: NonNegativeFloat = 0.5


@dataclass(frozen=True)
class _Detector:
    """A detector of torchvision's.

    Attributes:
        backbone: `resnet50`, torchvision's, or `small`, with three stages for the digit scenes.
        default_activation: The published model's activation, which `activation` replaces.
        shorter_side: Sizes in pixels of the shorter side: one of them at random in training, the last one in
            evaluation.
        longer_side: Maximum length of the longer side, in pixels.
        trainable_stages: Number of backbone stages to train, counted from the last, if the backbone starts from
            pretrained weights. 5 trains all of them. Defaults to torchvision's 3.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"default_activation": "own_activation"}

    backbone: Literal["resnet50", "small"] = "resnet50"
    default_activation: str = "relu"
    shorter_side: tuple[Pixels, ...] = (800,)
    longer_side: Pixels = 1333
    trainable_stages: Annotated[int, Range(ge=0, le=5)] | None = None

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
        name: Folder in --data-dir with COCO 2017's published layout; also the data set's name in results.
        root: Your own folder, in the layout of COCO, Roboflow, CVAT, Label Studio, YOLO, or PASCAL VOC.
        test_share: Fraction of the images held out for testing, if `root` has a single annotation file for all images.
        train_images: Folder with your own training images, instead of COCO's.
        train_annotations: COCO file with your own training annotations.
        test_images: Folder with your own test images.
        test_annotations: COCO file with your own test annotations.
        classes: `coco`: COCO's category ids as they are, for 91 outputs; `voc`: PASCAL VOC's 21 classes among them;
            `file`: the file's categories, numbered from 1 in the order of their ids.
        apply_exif: Rotate images by their EXIF orientation, if they were annotated that way. COCO's and torchvision's
            readers do not.
        background: Color behind transparent pixels.
        train_size: Number of training images in the published data set after filtering, 0 if unknown. If yours
            differs, the run prints a note and records it in result.json.
        test_size: Number of test images in the published data set, 0 if unknown.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"apply_exif": "turn"}

    name: FolderName = runtime_field("coco")
    root: Path | None = runtime_field(None)
    test_share: Annotated[float, Range(gt=0, lt=1)] | None = None
    train_images: Path | None = runtime_field(None)
    train_annotations: Path | None = runtime_field(None)
    test_images: Path | None = runtime_field(None)
    test_annotations: Path | None = runtime_field(None)
    classes: Literal["coco", "voc", "file"] = "coco"
    apply_exif: bool = False
    background: Background = "white"
    train_size: NonNegativeInt = runtime_field(117_266)
    test_size: NonNegativeInt = runtime_field(5_000)

    def check(self, flag: str) -> None:
        if self.root is not None and self._files_are_own:
            raise RequestError(f"{flag}.root cannot be combined with your own image folders or annotation files")
        if self.test_share is not None and self.root is None:
            raise RequestError(f"{flag}.test-share only works with your own folder: pass its path with {flag}.root")
        if self.name == "digit-scenes" and not self.is_own and (self.apply_exif or self.background != "white"):
            raise RequestError(
                f"the digit scenes have no EXIF data and no transparent pixels: leave out {flag}.apply-exif and "
                f"{flag}.background"
            )

    @property
    def expected_classes(self) -> int:
        """The number of the network's outputs, including the background, as far as it is known without the files."""
        return {"coco": 91, "voc": len(VOC_CATEGORIES), "file": 2}[self.classes]

    @property
    def is_own(self) -> bool:
        """Whether the files are the user's own, not the recipe's."""
        return self.root is not None or self._files_are_own

    @property
    def _files_are_own(self) -> bool:
        return any((self.train_images, self.train_annotations, self.test_images, self.test_annotations))

    @property
    def title(self) -> str:
        """The data set's name in results."""
        if self.root is not None:
            return self.root.resolve().name or "root"
        return (self.train_annotations or Path(f"{self.name}, own files")).stem if self.is_own else self.name


@dataclass(frozen=True)
class DetectionAugment:
    """Augmentation of a detector's training images. Detectors resize their images themselves.

    Attributes:
        flip: Flip each image horizontally with probability 0.5.
    """

    kind: ClassVar[str] = "detection"
    flip: bool = True


@dataclass(frozen=True)
class SegmentationAugment:
    """Selection and augmentation of a segmenter's training images.

    Attributes:
        flip: Flip each image horizontally with probability 0.5.
        resize: Smallest and largest length of the shorter side, which is drawn at random between them.
        crop: Side of the random square crop, in pixels. Pixels outside the image are ignored in the loss.
        eval_side: Length of the shorter side in evaluation.
        fewest_pixels: Leave out training images whose objects cover this many pixels or fewer.
    """

    kind: ClassVar[str] = "segmentation"
    flip: bool = True
    resize: tuple[Pixels, Pixels] = (260, 1040)
    crop: Pixels = 480
    eval_side: Pixels = 520
    fewest_pixels: NonNegativeInt = 1000

    def check(self, flag: str) -> None:
        if self.resize[0] > self.resize[1]:
            raise RequestError(
                f"{flag}.resize must be a smaller and a larger size, not {self.resize[0]} {self.resize[1]}"
            )


@dataclass(frozen=True, kw_only=True)
class DetectConfig(EpochConfig):
    """A golu-detect recipe: the full configuration of a run."""

    model: Model = FasterRcnn()
    data: Data = Data()
    augment: DetectionAugment | SegmentationAugment = DetectionAugment()
    backbone: str | None = None
    """Trained weights of the backbone: a run folder of golu-vision with the same activation, a safetensors file, or the
    name of torchvision's, such as IMAGENET1K_V1."""
    group_size: PositiveInt = 4
    """This many consecutive images have similar aspect ratios; 1 turns grouping off."""
    drop_last: bool = True
    """Drop the images that do not fill the epoch's last batch; otherwise the epoch's first images fill it."""
    batch_norm: BatchNorm = added_field("synchronized")
    """Let batch norm normalize over the images of all processes (`synchronized`), or over `micro_batch_size` images on
    each process (`per_process`)."""

    @property
    def default_activation(self) -> str:
        return self.model.default_activation

    @property
    def primary_metric(self) -> str:
        return "miou" if self.segments else "box_map"

    @property
    def segments(self) -> bool:
        """Whether the network is a segmenter; otherwise it is a detector."""
        return isinstance(self.model, DeepLabV3)

    def check(self, flag: str) -> None:
        if self.batch_size % self.group_size:
            raise RequestError(f"--group-size {self.group_size} does not divide --batch-size {self.batch_size}")
        needed = SegmentationAugment if self.segments else DetectionAugment
        if not isinstance(self.augment, needed):
            raise RequestError(f"--model {self.model.kind} needs --augment {needed.kind}")
        if isinstance(self.model, _Detector) and self.model.trainable_stages is not None and self.backbone is None:
            raise RequestError("--model.trainable-stages needs a pretrained backbone: name one with --backbone")
        if self.backbone is not None and self.init_from is not None:
            raise RequestError("--init-from loads all weights, and --backbone some of them: leave one out")
        if self.backbone is not None and self.model.backbone != "resnet50":
            raise RequestError("--backbone needs --model.backbone resnet50: the small one has no trained weights")
