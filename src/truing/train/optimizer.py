"""The optimiser and its learning rate, as functions of the step alone, so that a resumed run needs no more than the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Schedule = Literal["linear", "cosine", "constant"]


def build_adamw(
    named: Iterable[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """AdamW over what requires a gradient; biases and norms (one-dimensional tensors) are not decayed."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (decay if parameter.dim() > 1 else plain).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.95))


def learning_rate(
    step: int, steps: int, *, lr: float, warmup: float = 0.1, schedule: Schedule = "linear"
) -> float:
    """The learning rate of step 1..steps: linear warm-up over a share of the steps, then down to 0 (or constant)."""
    first = max(0, round(warmup * steps))
    if step <= first:
        return lr * step / first
    if schedule == "constant":
        return lr
    done = (step - 1 - first) / max(1, steps - first)
    return lr * ((1 - done) if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


def set_learning_rate(optimizer: Any, value: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = value


def clip_gradients(parameters: Iterable[Tensor], most: float) -> float:
    """Clips the gradient's norm to `most` (0 = not at all) and gives the norm before; not finite where a gradient is not."""
    listed = [p for p in parameters if p.grad is not None]
    norm: Any = torch.nn.utils.clip_grad_norm_(listed, most if most > 0 else math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
