"""The console script `golu-core`: what GoLU runs on here. For a question or a bug report."""

from __future__ import annotations

import importlib.util
import platform
import sys

from . import __version__


def main() -> int:
    """Prints versions, devices and what computes GoLU on each."""
    import torch

    from .activation import kernel

    print(f"golu-core {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print("cpu: in-place torch operations")
    if torch.backends.mps.is_available():
        print("mps: in-place torch operations")
    for index in range(torch.cuda.device_count()):
        implementation = "CuPy kernel" if kernel.kernels_available() else "in-place torch operations"
        print(f"cuda:{index} {torch.cuda.get_device_name(index)}: {implementation}")
    if not torch.cuda.is_available():
        cupy = "installed" if importlib.util.find_spec("cupy") else "not installed"
        print(f"cuda: no device (CuPy is {cupy})")
    print("torch.compile, export, ONNX and functional transforms: a pointwise expression")
    return 0


if __name__ == "__main__":
    sys.exit(main())
