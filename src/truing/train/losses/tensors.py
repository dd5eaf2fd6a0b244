"""What the losses share: masked means, the last real token, the first token where two rows part, whitening."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["row", "token"]


def masked_mean(x: Tensor, mask: Tensor | None = None, reduction: Reduction = "row") -> Tensor:
    """Mean of `x` where the mask is 1: per row and then over rows (``row``), or over all tokens (``token``).

    The two differ as soon as rows have different lengths; safe-rlhf reduces by row, TRL's PPO by token.
    A row without a real token counts as 0 by row (it has nothing to say), as nothing by token.
    """
    if mask is None:
        return x.mean()
    weight = mask.to(x.dtype)
    kept = torch.where(mask.bool(), x, torch.zeros_like(x))
    if reduction == "row":
        return (kept.sum(-1) / weight.sum(-1).clamp(min=1)).mean()
    if reduction == "token":
        return kept.sum() / weight.sum().clamp(min=1)
    raise ValueError(f"reduction {reduction!r} is neither 'row' nor 'token'")


def end_index(mask: Tensor) -> Tensor:
    """Index of the last real token of each row, whichever side the padding is on; `[B]`."""
    at = torch.arange(mask.shape[-1], device=mask.device)
    return torch.where(mask.bool(), at, torch.zeros_like(at)).amax(-1)


def first_difference(left: Tensor, right: Tensor) -> Tensor:
    """Index of the first token where the rows of two id tensors differ; `[B]`. Equal rows are an error."""
    differs = left != right
    same = ~differs.any(-1)
    if bool(same.any()):
        rows = same.nonzero().flatten().tolist()
        raise ValueError(f"the two answers of a pair are equal (rows {rows} of the batch)")
    return differs.to(torch.uint8).argmax(-1)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Unit variance (unbiased, 1e-8) and mean 0 over the real tokens of the batch; 0 elsewhere.

    With `shift_mean=False` the mean is kept (TRL's whitening of rewards).
    """
    weight = mask.to(x.dtype)
    count = weight.sum()
    mean = (x * weight).sum() / count.clamp(min=1)
    spread = ((x - mean).square() * weight).sum() / (count - 1).clamp(min=1)
    white = (x - mean) * torch.rsqrt(spread + 1e-8)
    if not shift_mean:
        white = white + mean
    return torch.where(mask.bool(), white, torch.zeros_like(white))
