"""AdamW, the learning-rate schedule and gradient clipping.

The learning rate is a function of the step alone, so that a checkpoint needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

Schedule = Literal["linear", "cosine", "constant"]


def build_adamw(
    named_parameters: Iterable[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """Returns AdamW over the parameters that require a gradient.

    Biases and norm weights (tensors of one dimension) are not decayed.
    """
    decayed: list[nn.Parameter] = []
    not_decayed: list[nn.Parameter] = []
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 else not_decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": not_decayed, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.95))


def learning_rate(
    step: int, steps: int, *, lr: float, warmup: float = 0.1, schedule: Schedule = "linear"
) -> float:
    """Returns the learning rate of a step (1..steps).

    It rises linearly to `lr` over the share `warmup` of the steps, then falls to 0 or stays.
    """
    warmup_steps = max(0, round(warmup * steps))
    if step <= warmup_steps:
        return lr * step / warmup_steps
    if schedule == "constant":
        return lr
    # step - 1: the first step after the warm-up has the full rate, and the last one not yet zero.
    progress = (step - 1 - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "linear":
        return lr * (1 - progress)
    return lr * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Clips the global gradient norm to `max_norm` (0: no clipping) and returns the norm before.

    The norm is not finite if any gradient is not finite.
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(with_gradient, max_norm if max_norm > 0 else math.inf)
    # Under FSDP the norm is a DTensor, of which each process holds a part: full_tensor() combines
    # them.
    full_tensor = getattr(norm, "full_tensor", None)
    return float(norm if full_tensor is None else full_tensor())
