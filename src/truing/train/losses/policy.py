"""PPO: KL estimates and penalties, advantages, clipped losses, and the Lagrangian objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from truing.train.losses.tensors import Reduction, end_index, masked_mean


def kl_estimate(log_ratio: Tensor, kind: Literal["k1", "k2", "k3"] = "k1") -> Tensor:
    """Estimates KL(π ‖ π_ref) at tokens sampled from π (Schulman 2020).

    With x = `log_ratio` = log π - log π_ref: k1 = x (unbiased, may be negative), k2 = x²/2
    (biased), k3 = e^-x - 1 + x (unbiased, never negative).
    """
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        # E_π[e^-x - 1] = 0, so the added term changes no expectation; it is negatively correlated
        # with x, which lowers the variance.
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
    """Token rewards: -sign·coefficient·(log π - log π_ref), plus the score at the last real token.

    `score` is `[B]`. ``sign=+1`` for rewards, ``-1`` for costs (Safe RLHF adds the penalty to a
    cost). The *sum* is clamped to ±clip, as safe-rlhf does. ``place="next"`` puts the score one
    position later where there is room (TRL 1.12).
    """
    if sign not in (1, -1):
        raise ValueError("sign is +1 (rewards) or -1 (costs)")
    # The penalty is a reward of each token, the score one of the last token (Ouyang et al. 2022).
    rewards = -sign * coefficient * kl_estimate(log_probs - ref_log_probs)
    score_index = end_index(mask)
    if place == "next":
        has_room = score_index + 1 < rewards.shape[-1]
        score_index = torch.where(has_room, score_index + 1, score_index)
    token_score = score.to(rewards.dtype).unsqueeze(-1)
    rewards = rewards.scatter_add(-1, score_index.unsqueeze(-1), token_score)
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
    """Generalised advantage estimation (Schulman et al. 2016, 1506.02438).

    Returns (advantages, returns), `[B, T - start]`, not whitened: δ_t = r_t + γV_{t+1} - V_t,
    A_t = δ_t + γλA_{t+1}, returns = A + V. Values and rewards count as 0 where the mask is 0; the
    value after the last position is 0. `start` = prompt length - 1 for shifted rows.
    """
    weight = mask.to(values.dtype)
    values, rewards = values * weight, rewards * weight
    advantage = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(advantage)
    reversed_advantages: list[Tensor] = []
    # Backwards in time: each advantage needs the one after it.
    for t in range(values.shape[-1] - 1, start - 1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * advantage
        next_value = values[:, t]
        reversed_advantages.append(advantage)
    if not reversed_advantages:
        raise ValueError(f"start {start} lies behind the last of {values.shape[-1]} positions")
    advantages = torch.stack(reversed_advantages[::-1], dim=-1)
    # Advantages are weights and returns are targets: no gradient flows through them.
    return advantages.detach(), (advantages + values[:, start:]).detach()


def clipped_objective(
    ratio: Tensor, advantages: Tensor, clip: float | None, clip_high: float | None = None
) -> Tensor:
    """Returns min(A·ρ, A·clip(ρ, 1 - clip, 1 + clip_high)) of each token or answer.

    ρ is the ratio of the probabilities under the policy and under the one that sampled. Without
    `clip` it is A·ρ. `clip_high` is by default `clip`; a larger one lets rare tokens grow, so that
    the policy keeps exploring (clip-higher of DAPO, Yu et al. 2025, 2503.14476).
    """
    unclipped = advantages * ratio
    if clip is None:
        return unclipped
    # The minimum is a lower bound of A·ρ: there is nothing to gain from a ratio outside the range,
    # but one that has left it in the wrong direction is still pulled back (section 3).
    high = clip if clip_high is None else clip_high
    return torch.minimum(unclipped, advantages * ratio.clamp(1 - clip, 1 + high))


def ppo_actor_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float | None = 0.2,
    clip_high: float | None = None,
    weights: Tensor | None = None,
    reduction: Reduction = "row",
) -> Tensor:
    """-mean min(A·ρ, A·clip(ρ, 1 ± clip)), ρ = π/π_old (PPO, Schulman et al. 2017, 1707.06347).

    `weights` `[B, T]` multiply the objective of each token (`importance_weights`).
    """
    ratio = torch.exp(log_probs - old_log_probs)
    objective = clipped_objective(ratio, advantages, clip, clip_high)
    if weights is not None:
        objective = objective * weights
    return -masked_mean(objective, mask, reduction)


def importance_weights(
    old_log_probs: Tensor, sampler_log_probs: Tensor, mask: Tensor, *, cap: float
) -> Tensor:
    """min(π_old / μ, cap) of each token: truncated importance sampling (Ionides 2008).

    μ is the policy that sampled: with another engine or another precision its probabilities differ
    from those that training computes for the same weights, which biases the gradient (Yao et al.
    2025). The cap bounds the variance. Without a gradient; 1 outside the mask.
    """
    zero = torch.zeros_like(old_log_probs)
    log_ratio = torch.where(mask.bool(), old_log_probs - sampler_log_probs, zero)
    return log_ratio.detach().exp().clamp(max=cap)


def critic_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float | None = 5.0,
    reduction: Reduction = "row",
) -> Tensor:
    """0.5·mean max((V-R)², (V_old + clip(V - V_old, ±clip) - R)²): PPO's clipped value loss."""
    loss = (values - returns).square()
    if clip is not None:
        clipped_values = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
        # The larger loss: the same pessimism as in the policy's loss.
        loss = torch.maximum(loss, (clipped_values - returns).square())
    return 0.5 * masked_mean(loss, mask, reduction)


def combined_advantage(
    reward_advantage: Tensor, cost_advantage: Tensor, multiplier: float | Tensor
) -> Tensor:
    """(A_r - λA_c) / (1 + λ), as the code of Safe RLHF (2310.12773).

    The division keeps the size of a step bounded however large λ gets.
    """
    return (reward_advantage - multiplier * cost_advantage) / (1.0 + multiplier)


def combined_advantages(
    reward_advantage: Tensor,
    cost_advantages: Sequence[Tensor],
    multipliers: Sequence[float | Tensor],
) -> Tensor:
    """(A_r - Σ λᵢA_cᵢ) / (1 + Σ λᵢ) of several constraints, each with its own multiplier.

    With one constraint it is `combined_advantage`, with none the advantage of the reward.
    """
    total = reward_advantage
    for multiplier, cost_advantage in zip(multipliers, cost_advantages, strict=True):
        total = total - multiplier * cost_advantage
    return total / (1.0 + sum(multipliers)) if len(multipliers) else total


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
    """(L_R - λL_C) / (1 + λ) with reward and cost surrogates clipped separately.

    The paper of Safe RLHF, where its code clips the combined advantage; equal while no ratio is
    clipped. `advantages` = (reward, cost). The paper takes the ``min`` of clipped and unclipped for
    both, which for a cost is the optimistic side; ``max`` is the pessimistic one.
    """
    reward_advantages, cost_advantages = advantages
    reward_loss = ppo_actor_loss(
        log_probs, old_log_probs, reward_advantages, mask, clip=clip, reduction=reduction
    )
    # max(x, y) = -min(-x, -y)
    sign = 1 if cost_side == "min" else -1
    cost_objective = sign * clipped_objective(
        torch.exp(log_probs - old_log_probs), sign * cost_advantages, clip
    )
    cost = masked_mean(cost_objective, mask, reduction)
    return (reward_loss + multiplier * cost) / (1.0 + multiplier)
