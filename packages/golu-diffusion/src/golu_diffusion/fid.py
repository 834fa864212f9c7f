"""Frechet inception distance between drawn images and the test images, by torch-fidelity."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from golu_core.training.errors import RequestError

from .config import DiffusionConfig
from .data import NoisyImages


def check_fid(config: DiffusionConfig) -> None:
    """Raises RequestError if the distance is asked for and cannot be taken, before hours are spent."""
    if config.fid_images < 0:
        raise RequestError(f"--fid-images must not be negative, but is {config.fid_images}")
    if config.fid_images == 0:
        return
    if importlib.util.find_spec("torch_fidelity") is None:
        raise RequestError("--fid-images needs torch-fidelity: pip install 'golu-diffusion[fid]'")
    if config.fid_weights is not None and not config.fid_weights.is_file():
        raise RequestError(f"there is no file {config.fid_weights} of the inception network's weights")


def frechet_distance(drawn: Tensor, test: NoisyImages, config: DiffusionConfig, device: torch.device) -> float:
    """torch-fidelity's distance.

    Args:
        drawn: (N, 3, H, W) uint8.
        test: the first N of its images are compared with.
        config: for the weights.
        device: that computes the features.
    """
    import torch_fidelity

    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / kind for kind in ("drawn", "real")]
        _write(folders[0], drawn)
        _write(folders[1], (test.image(n) for n in range(min(len(drawn), test.source.count))))
        found = torch_fidelity.calculate_metrics(
            input1=str(folders[0]),
            input2=str(folders[1]),
            fid=True,
            cuda=device.type == "cuda",
            verbose=False,
            feature_extractor_weights_path=None if config.fid_weights is None else str(config.fid_weights),
        )
    return float(found["frechet_inception_distance"])


def _write(folder: Path, images: Iterable[Tensor]) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        to_pil_image(image).save(folder / f"{number:06d}.png")
