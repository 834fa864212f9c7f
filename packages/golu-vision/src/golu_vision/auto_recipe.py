"""The recipe `images`: choose model, image size, batch size, learning rate, and epochs for your own class folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from golu_core.training import Cosine, EpochWarmup
from golu_core.training.config import Fitted, fitting_batch, median, passes, power_of_two, rounded, with_test_share
from golu_core.training.data import HEADERS, examined, of_examined

from .config import Crop, Data, TorchvisionAugment, VisionConfig
from .data import EncodedImages, ImageData, TransformedImages, load_data

_SIDES = ((48, 32), (96, 64), (192, 128))  # (bound, size): images whose median shorter side is below the bound
_LARGEST = 224  # the size that the ImageNet recipes use
_SMALL = 64  # images up to this size use the CIFAR network, and are augmented in memory
_IN_MEMORY = 1 << 30  # 1 GiB of decoded pixels at most, so that a laptop can hold them
_RATE = 0.1
_TUNED, _RATE_TUNED = 3, 0.1  # fine-tuning needs a third of the epochs and a tenth of the learning rate


def fit_images(recipe: VisionConfig, asked: VisionConfig, given: frozenset[str]) -> Fitted[VisionConfig] | None:
    """Return a recipe for the requested images, or for those in DATA_DIR/images; None if there are none.

    Learning rates follow the networks' own recipes: He et al., CVPR 2016, section 4.2, for images up to 64 pixels (0.1
    at batch size 128), and torchvision's reference scripts (0.1 at batch size 256) for larger ones. The rules that
    depend on the number of images are ours.

    Raises:
        RequestError: The images are malformed.
    """
    root = None if asked.data.is_own else asked.data_dir / asked.data.name
    if root is not None and not root.is_dir():
        return None
    data = asked.data if root is None else replace(asked.data, root=root)
    loaded, share = with_test_share(lambda part: _load(asked, data, part), data.test_share)
    count, classes = len(loaded.train), len(loaded.classes)
    looked_at = examined(count, HEADERS)
    shorter = _median_side(loaded, looked_at)
    by_side = next((side for below, side in _SIDES if shorter < below), _LARGEST)
    size = asked.data.size if "data.size" in given else by_side
    small = size <= _SMALL
    tuned = asked.init_from is not None
    batch = asked.batch_size if "batch_size" in given else power_of_two(count / 16, 8, 128)
    batch = fitting_batch(batch, count)
    by_count = round(passes(count, 20, 20, 150) / (_TUNED if tuned else 1))
    epochs = asked.epochs if "epochs" in given else by_count
    whole = (count + len(loaded.test)) * 3 * size**2
    fitted = replace(
        recipe,
        data=replace(
            recipe.data,
            root=root,
            test_share=share,
            size=size,
            resize=size if small else size * 8 // 7,
            in_memory=small and whole <= _IN_MEMORY,
            classes=classes,
            train_images=count,
            test_images=len(loaded.test),
        ),
        model=replace(recipe.model, name="cifar/resnet20" if small else "torchvision/resnet18"),
        augment=Crop(pad=size // 8) if small else TorchvisionAugment(),
        optim=replace(
            recipe.optim, lr=rounded(_RATE * batch / (128 if small else 256) * (_RATE_TUNED if tuned else 1.0))
        ),
        schedule=Cosine(per="step", warmup=EpochWarmup(epochs=rounded(max(1.0, epochs / 20)), start_factor=0.1)),
        epochs=epochs,
        batch_size=batch,
    )
    found = (
        f"{count:,} training and {len(loaded.test):,} test images in {classes:,} classes, median shorter side "
        f"{shorter:,} pixels{of_examined(len(looked_at), count)}"
    )
    return Fitted(fitted, found, count)


def _load(config: VisionConfig, data: Data, test_share: float | None) -> ImageData:
    return load_data(replace(config, data=replace(data, in_memory=False, test_share=test_share)))


def _median_side(loaded: ImageData, numbers: Sequence[int]) -> int:
    """Return the median shorter side of some training images, read from their headers."""
    source = cast(TransformedImages, loaded.train).source
    assert isinstance(source, EncodedImages)
    return median([source.header(number).shorter for number in numbers])
