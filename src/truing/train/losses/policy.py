"""PPO: KL estimates and penalties, advantages, the clipped actor and critic losses, and their Lagrangian readings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from truing.train.losses.tensors import Reduction, end_index, masked_mean


def kl_estimate(log_ratio: Tensor, kind: Literal["k1", "k2", "k3"] = "k1") -> Tensor:
    """Estimates KL(π ‖ π_ref) at tokens sampled from π; `log_ratio` = log π - log π_ref (Schulman 2020).

    k1 = log ratio (unbiased, may be negative), k2 = its half square (biased), k3 = e^-x - 1 + x (unbiased, never
    negative).
    """
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        return torch.exp(-log_ratio) - 1 + log_ratio
    raise ValueError(f"KL estimate {kind!r} is none of k1, k2, k3")


def kl_penalised_rewards(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    score: Tensor,
    mask: Tensor,
    *,
    coefficient: float,
    clip: float | None = None,
    sign: int = 1,
    place: Literal["end", "next"] = "end",
) -> Tensor:
    """Rewards a token: -sign·coefficient·(log π - log π_ref), plus the score `[B]` at the last real token, clamped.

    ``sign=+1`` for rewards, ``-1`` for costs (Safe RLHF adds the penalty to a cost). The *sum* is clamped to ±clip, as
    safe-rlhf does. ``place="next"`` puts the score one position later where there is room (TRL 1.12).
    """
    if sign not in (1, -1):
        raise ValueError("sign is +1 (rewards) or -1 (costs)")
    rewards = -sign * coefficient * kl_estimate(log_probs - ref_log_probs)
    at = end_index(mask)
    if place == "next":
        at = torch.where(at + 1 < rewards.shape[-1], at + 1, at)
    rewards = rewards.scatter_add(-1, at.unsqueeze(-1), score.to(rewards.dtype).unsqueeze(-1))
    return rewards if clip is None else rewards.clamp(-clip, clip)


def gae(
    values: Tensor,
    rewards: Tensor,
    mask: Tensor,
    start: int,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, 1506.02438): (advantages, returns), `[B, T - start]`.

    δ_t = r_t + γV_{t+1} - V_t, A_t = δ_t + γλA_{t+1}, returns = A + V. Values and rewards count as 0 where the mask
    is 0; the value after the last position is 0. `start` = prompt length - 1 for shifted rows. No whitening.
    """
    weight = mask.to(values.dtype)
    values, rewards = values * weight, rewards * weight
    last = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(last)
    reverse: list[Tensor] = []
    for t in range(values.shape[-1] - 1, start - 1, -1):
        delta = rewards[:, t] + gamma * following - values[:, t]
        last = delta + gamma * lam * last
        following = values[:, t]
        reverse.append(last)
    if not reverse:
        raise ValueError(f"start {start} lies behind the last of {values.shape[-1]} positions")
    advantages = torch.stack(reverse[::-1], dim=-1)
    return advantages.detach(), (advantages + values[:, start:]).detach()


def _clipped(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float | None
) -> Tensor:
    ratio = torch.exp(log_probs - old_log_probs)
    plain = advantages * ratio
    return (
        plain
        if clip is None
        else torch.minimum(plain, advantages * ratio.clamp(1 - clip, 1 + clip))
    )


def ppo_actor_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float | None = 0.2,
    reduction: Reduction = "row",
) -> Tensor:
    """-mean min(A·ρ, A·clip(ρ, 1 ± clip)), ρ = π/π_old (PPO, Schulman et al. 2017, 1707.06347)."""
    return -masked_mean(_clipped(log_probs, old_log_probs, advantages, clip), mask, reduction)


def critic_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float | None = 5.0,
    reduction: Reduction = "row",
) -> Tensor:
    """0.5·mean max((V-R)², (V_old + clip(V - V_old, ±clip) - R)²): the clipped value loss of PPO."""
    loss = (values - returns).square()
    if clip is not None:
        held = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
        loss = torch.maximum(loss, (held - returns).square())
    return 0.5 * masked_mean(loss, mask, reduction)


def combined_advantage(
    reward_advantage: Tensor, cost_advantage: Tensor, multiplier: float | Tensor
) -> Tensor:
    """(A_r - λA_c) / (1 + λ): the step size stays bounded however large λ gets (Safe RLHF's code, 2310.12773)."""
    return (reward_advantage - multiplier * cost_advantage) / (1.0 + multiplier)


def separate_actor_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: tuple[Tensor, Tensor],
    multiplier: float | Tensor,
    mask: Tensor,
    *,
    clip: float | None = 0.2,
    reduction: Reduction = "row",
    cost_side: Literal["min", "max"] = "min",
) -> Tensor:
    """The other reading of Safe RLHF: reward and cost surrogates, each clipped by itself, (L_R - λL_C) / (1 + λ).

    `advantages` = (reward, cost). The paper takes the ``min`` of clipped and unclipped for both, which for a cost is
    the optimistic side; ``max`` is the pessimistic one. Equal to clipping after `combined_advantage` while no ratio
    is clipped.
    """
    reward = ppo_actor_loss(
        log_probs, old_log_probs, advantages[0], mask, clip=clip, reduction=reduction
    )
    sign = 1 if cost_side == "min" else -1
    cost = sign * _clipped(log_probs, old_log_probs, sign * advantages[1], clip)
    return (reward + multiplier * masked_mean(cost, mask, reduction)) / (1.0 + multiplier)
