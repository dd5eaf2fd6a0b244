"""Measures how fast a device multiplies matrices, for estimates of time."""

from __future__ import annotations

import time
from functools import cache

import torch

from truing.hf.loading import select_device
from truing.train.run_settings import RunSettings
from truing.train.trainable_model import training_dtype

_SECONDS = 0.2  # how long the measurement takes
_SIZES = (512, 1024)  # rows and columns of both factors, about those of a small model's layer


def measure_speed(settings: RunSettings) -> float:
    """Returns the multiplications per second of a matrix product, on the run's device and type."""
    device = select_device(settings.device)
    return _measure(device, training_dtype(settings, device))


@cache
def _measure(device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.ones(_SIZES, dtype=dtype, device=device) for _ in range(2))
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        float((left @ right.T)[0, 0])  # reading a value waits until a GPU is done
        count += 1
    rows, columns = _SIZES
    return count * rows * rows * columns / (time.perf_counter() - started)
