"""Model FLOPs utilization: the share of a device's peak FLOP/s that training used."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

_BF16_PEAKS = {  # dense bf16 and fp16 tensor-core peaks in FLOP/s, from the vendors' data sheets
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "V100": 125e12,
}


class Peak(NamedTuple):
    """The peak rate of a device in FLOP/s, and its source."""

    flops: float
    source: str


def device_peak(device: torch.device, mixed_precision: str) -> Peak:
    """Return the vendor's half-precision peak for a known GPU, or the measured rate of a large matrix product."""
    if device.type == "cuda" and mixed_precision != "no":
        name = torch.cuda.get_device_name(device)
        for known, flops in _BF16_PEAKS.items():
            if known in name:
                return Peak(flops, "data sheet, dense bf16")
    return Peak(_measured(device, mixed_precision), "measured, matrix product")


def _measured(device: torch.device, mixed_precision: str) -> float:
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[mixed_precision]
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        float((a @ b)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
