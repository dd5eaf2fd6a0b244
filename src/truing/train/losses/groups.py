"""Group methods without a critic: RLOO and GRPO, with the normalisations that later papers argue about."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from truing.train.losses.policy import kl_estimate
from truing.train.losses.tensors import masked_mean

GroupKind = Literal["grpo", "rloo"]
_EPS = 1e-4


class GroupOptions(TypedDict, total=False):
    """The keyword arguments of `grpo_loss`: epsilon (0.2), beta (0), kind (``grpo``), length (the longest answer
    allowed).
    """

    epsilon: float
    beta: float
    kind: str
    length: int | None


def group_advantages(
    rewards: Tensor,
    weights: Tensor | None,
    n: int,
    *,
    kind: GroupKind = "grpo",
    scale: str | bool | None = None,
) -> Tensor:
    """Advantage of each answer against the others of its prompt; `[N]`, rows of one prompt next to one another.

    `rewards` is `[N]` or `[N, F]` (F reward functions; NaN = that function does not apply), summed with `weights`
    `[F]`. grpo (Shao et al. 2024, 2402.03300): r - group mean, divided by (std + 1e-4) of the ``group`` (default),
    the ``batch``, or not at all (``none``, Dr. GRPO). rloo (Ahmadian et al. 2024, 2402.14740): r - mean of the
    others; ``scale="batch"`` (or true) whitens over the batch, default none.
    """
    if rewards.dim() == 2:
        weight = (
            torch.ones(rewards.shape[1]).to(rewards) if weights is None else weights.to(rewards)
        )
        reward = (rewards * weight).nansum(1)
    else:
        reward = rewards if weights is None else rewards * weights.to(rewards).reshape(-1)[0]
    if n < 1 or reward.shape[0] % n:
        raise ValueError(f"{reward.shape[0]} rewards are no whole groups of {n}")
    grouped = reward.reshape(-1, n)
    if kind == "rloo":
        if n < 2:
            raise ValueError("rloo needs at least two answers a prompt")
        gain = (grouped - (grouped.sum(1, keepdim=True) - grouped) / (n - 1)).flatten()
        if scale in (None, False, "none"):
            return gain
        if scale in (True, "batch"):
            return (gain - gain.mean()) / (gain.std() + _EPS)
        raise ValueError(f"scale {scale!r} with rloo is neither 'batch' nor 'none'")
    if kind != "grpo":
        raise ValueError(f"kind {kind!r} is neither 'grpo' nor 'rloo'")
    gain = grouped - grouped.mean(1, keepdim=True)
    if scale in (False, "none"):
        return gain.flatten()
    if scale in (None, True, "group"):
        std = grouped.std(1, keepdim=True) if n > 1 else torch.zeros_like(gain)
    elif scale == "batch":
        std = reward.std() if reward.shape[0] > 1 else torch.zeros_like(reward[:1])
    else:
        raise ValueError(f"scale {scale!r} is none of 'group', 'batch', 'none'")
    return (gain / (std + _EPS)).flatten()


def grpo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor | None,
    ref_log_probs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    **options: Unpack[GroupOptions],
) -> Tensor:
    """Clipped surrogate (± `epsilon`) plus `beta`·k3, aggregated by `kind`; advantages `[B]` (or `[B, T]`), the rest
    `[B, T]`.

    ``grpo`` mean per answer then over answers (2402.03300); ``bnpo`` over the batch's tokens; ``dr_grpo`` Σ /
    (B·`length`) with
    `length` = the longest allowed answer (2503.20783); ``dapo`` Σ / number of tokens of the whole step (2503.14476),
    here the batch's own (a caller that accumulates rescales by its share); ``rloo`` the ratio of whole answers, no
    KL in the loss (it stands in the reward). Without `old_log_probs` the ratio is 1 and its gradient that of log π.
    """
    epsilon, beta = options.get("epsilon", 0.2), options.get("beta", 0.0)
    kind, length = options.get("kind", "grpo"), options.get("length")
    unknown = set(options) - set(GroupOptions.__annotations__)
    if unknown:
        raise TypeError(f"grpo_loss() got unexpected arguments: {', '.join(sorted(unknown))}")
    old = log_probs.detach() if old_log_probs is None else old_log_probs
    weight = mask.to(log_probs.dtype)
    if kind == "rloo":
        ratio = torch.exp(((log_probs - old) * weight).sum(-1))
        bounded = ratio.clamp(1 - epsilon, 1 + epsilon)
        return -torch.minimum(ratio * advantages, bounded * advantages).mean()
    gain = advantages.unsqueeze(-1) if advantages.dim() == 1 else advantages
    ratio = torch.exp(log_probs - old)
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    if beta:
        if ref_log_probs is None:
            raise ValueError("beta > 0 needs ref_log_probs")
        loss = loss + beta * kl_estimate(log_probs - ref_log_probs, "k3")
    if kind == "grpo":
        return masked_mean(loss, mask, "row")
    if kind == "bnpo":
        return masked_mean(loss, mask, "token")
    total = torch.where(mask.bool(), loss, torch.zeros_like(loss)).sum()
    if kind == "dr_grpo":
        return total / (loss.shape[0] * (length or loss.shape[1]))
    if kind == "dapo":
        return total / weight.sum().clamp(min=1)
    raise ValueError(f"kind {kind!r} is none of grpo, bnpo, dr_grpo, dapo, rloo")
