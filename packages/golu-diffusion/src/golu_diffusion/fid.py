"""Frechet inception distance between sampled images and the test images, by torch-fidelity."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from golu_core.training import Processes, RequestError
from golu_core.training.messages import progress_bar
from golu_core.training.runs import finite_metrics
from golu_core.training.storage import read_tensors, scratch_folder

from .config import DiffusionConfig
from .data import DiffusionData, NoisyImages
from .diffusion import Diffusion
from .drawing import Sampling, drawn

_FEW_IMAGES = 2048
"""The network has as many features: with fewer images, their covariance does not have full rank."""
_EXTRACTOR, _FEATURES = "inception-v3-compat", "2048"  # torch-fidelity's defaults, those of Heusel et al.


def check_fid(config: DiffusionConfig) -> None:
    """Load everything that FID needs, if it is requested, so that problems appear before hours of training.

    Raises:
        RequestError: torch-fidelity or its network's weights are missing or invalid.
    """
    if config.fid_images == 0:
        return
    if importlib.util.find_spec("torch_fidelity") is None:
        raise RequestError("--fid-images needs torch-fidelity: pip install 'golu-diffusion[fid]'")
    if config.fid_weights is not None and not config.fid_weights.is_file():
        raise RequestError(f"the file {config.fid_weights} of the inception network's weights does not exist")
    from torch_fidelity.utils import create_feature_extractor

    try:
        with scratch_folder() as scratch:
            create_feature_extractor(
                _EXTRACTOR,
                [_FEATURES],
                cuda=False,
                verbose=False,
                feature_extractor_weights_path=_plain_weights(config, scratch),
            )
    except Exception as error:  # from the network connection, `weights_files`, or torch
        problem = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        where = "be downloaded" if config.fid_weights is None else f"be loaded from {config.fid_weights}"
        raise RequestError(
            f"--fid-images: the inception network's weights cannot {where} ({type(error).__name__}: {problem}); "
            f"name torch-fidelity's own file with --fid-weights"
        ) from None


def _plain_weights(config: DiffusionConfig, scratch: Path) -> str:
    """Return a safe copy of the weights for torch-fidelity, which unpickles its file and would run code in it.

    Raises:
        RequestError: The file contains more than tensors.
    """
    path = scratch / "inception.pt"
    torch.save(read_tensors(config.fid_weights or _downloaded()), path)
    return str(path)


def _downloaded() -> Path:
    """Return torch-fidelity's own file, at the path that it would download to."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), progress=False)
    return path


def distance_of_drawn(
    processes: Processes, model: nn.Module, diffusion: Diffusion, data: DiffusionData, config: DiffusionConfig
) -> float | None:
    """Draw `config.fid_images` images with all processes, and print and return their FID; None on all but the main one.

    Args:
        processes: The processes that draw together.
        model: A network that predicts the noise of (N, C, H, W) float32 images at (N,) int64 steps.
        diffusion: The diffusion process.
        data: The data set with the test images.
        config: The configuration, with the number of images and the network's weights.

    Raises:
        RunFailure: An image or the distance is not finite.
    """
    count, test = config.fid_images, data.test
    if count < _FEW_IMAGES:
        processes.warn(
            f"FID of {count:,} images is too high and depends on their number: compare it only with FID of as many "
            f"images, and use 10,000 or more for one to publish"
        )
    sampling = Sampling("ddpm", None, config.seed, config.evaluation_batch)
    images: dict[int, Tensor] = {}
    with progress_bar("drawing images for FID", count, processes.is_main) as advance:
        for batch in drawn(processes, model, diffusion, config.data.shape, count, sampling):
            images |= batch
            advance(len(images))
    if not processes.is_main:
        return None
    stacked = torch.stack([images[number] for number in range(count)])
    distance = frechet_distance(stacked, test, config, processes.device)
    compared = min(count, test.source.count)
    of_test = "all" if compared == test.source.count else f"the first {compared:,} of"
    processes.say(f"fid {distance:.6g}, of {count:,} drawn images and {of_test} {test.source.count:,} test images")
    return distance


def frechet_distance(drawn: Tensor, test: NoisyImages, config: DiffusionConfig, device: torch.device) -> float:
    """Compute FID with torch-fidelity.

    Args:
        drawn: (N, C, H, W) uint8.
        test: The test images; the first N are compared.
        config: The configuration with the network's weights.
        device: The device that computes the features.

    Raises:
        RunFailure: The distance is not finite.
    """
    import torch_fidelity

    with scratch_folder() as scratch:
        folders = [scratch / kind for kind in ("drawn", "real")]
        _write(folders[0], drawn)
        _write(folders[1], (test.image(n) for n in range(min(len(drawn), test.source.count))))
        found = torch_fidelity.calculate_metrics(
            input1=str(folders[0]),
            input2=str(folders[1]),
            fid=True,
            cuda=device.type == "cuda",
            verbose=False,
            cache=False,  # it would unpickle cached files
            feature_extractor_weights_path=_plain_weights(config, scratch),
        )
    distance = float(found["frechet_inception_distance"])
    finite_metrics({"fid": distance})
    return distance


def _write(folder: Path, images: Iterable[Tensor]) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        to_pil_image(image).save(folder / f"{number:06d}.png")
