"""Masked means, the last real token, the first differing token, whitening."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["row", "token"]


def masked_mean(x: Tensor, mask: Tensor | None = None, reduction: Reduction = "row") -> Tensor:
    """Returns the mean of `x` where the mask is 1.

    ``row``: per row, then over rows (safe-rlhf). ``token``: over all tokens (TRL's PPO). They
    differ as soon as rows have different lengths. By row, a row without a real token counts as 0.
    """
    if mask is None:
        return x.mean()
    weight = mask.to(x.dtype)
    # where() and not a product: NaN · 0 is NaN, also in the gradient.
    masked = torch.where(mask.bool(), x, torch.zeros_like(x))
    if reduction == "row":
        return (masked.sum(-1) / weight.sum(-1).clamp(min=1)).mean()
    if reduction == "token":
        return masked.sum() / weight.sum().clamp(min=1)
    raise ValueError(f"reduction {reduction!r} is neither 'row' nor 'token'")


def end_index(mask: Tensor) -> Tensor:
    """Returns the index of each row's last real token, `[B]`; padding may be on either side."""
    index = torch.arange(mask.shape[-1], device=mask.device)
    return torch.where(mask.bool(), index, torch.zeros_like(index)).amax(-1)


def first_difference(left: Tensor, right: Tensor) -> Tensor:
    """Returns the index of the first token where the rows of two id tensors differ, `[B]`.

    Raises ValueError if two rows are equal.
    """
    differs = left != right
    equal = ~differs.any(-1)
    if bool(equal.any()):
        rows = equal.nonzero().flatten().tolist()
        raise ValueError(f"the two answers of a pair are equal (rows {rows} of the batch)")
    return differs.to(torch.uint8).argmax(-1)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Returns `x` with mean 0 and unit variance over the real tokens of the batch; 0 elsewhere.

    The variance is unbiased, with 1e-8 added. With `shift_mean=False` the mean stays, as TRL
    whitens rewards.
    """
    weight = mask.to(x.dtype)
    count = weight.sum()
    mean = (x * weight).sum() / count.clamp(min=1)
    variance = ((x - mean).square() * weight).sum() / (count - 1).clamp(min=1)
    white = (x - mean) * torch.rsqrt(variance + 1e-8)
    if not shift_mean:
        white = white + mean
    return torch.where(mask.bool(), white, torch.zeros_like(white))
