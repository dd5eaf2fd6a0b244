"""Group methods without a critic: RLOO and GRPO, with the normalisations of later papers."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from truing.train.losses.policy import clipped_objective, kl_estimate
from truing.train.losses.tensors import masked_mean

GroupKind = Literal["grpo", "rloo"]
_EPS = 1e-4  # added to standard deviations, as in TRL


class GroupOptions(TypedDict, total=False):
    """The keyword arguments of `grpo_loss`.

    `epsilon` (0.2), `epsilon_high` (that of `epsilon`), `beta` (0), `kind` (``grpo``), `length`
    (the longest answer allowed), `level` of the ratio (``token``), `weights` (importance weights of
    tokens, for rloo of answers).
    """

    epsilon: float
    epsilon_high: float | None
    level: str
    weights: Tensor | None
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
    """Returns the advantage of each answer against the others to its prompt, `[N]`.

    The n answers to one prompt are adjacent. `rewards` is `[N]` or `[N, F]` (F reward functions;
    NaN = that function does not apply), summed with `weights` `[F]`.

    grpo (Shao et al. 2024, 2402.03300): r - group mean, divided by (std + 1e-4) of the ``group``
    (default), of the ``batch``, or not at all (``none``, Dr. GRPO). rloo (Ahmadian et al. 2024,
    2402.14740): r - mean of the others; ``scale="batch"`` (or true) whitens over the batch, default
    none.
    """
    reward = _sum_rewards(rewards, weights)
    if n < 1 or reward.shape[0] % n:
        raise ValueError(f"{reward.shape[0]} rewards are no whole groups of {n}")
    groups = reward.reshape(-1, n)
    if kind == "rloo":
        return _rloo_advantages(groups, scale)
    if kind != "grpo":
        raise ValueError(f"kind {kind!r} is neither 'grpo' nor 'rloo'")
    advantages = groups - groups.mean(1, keepdim=True)
    if scale in (False, "none"):
        return advantages.flatten()
    if scale in (None, True, "group"):
        # The standard deviation of a single answer is NaN.
        std = groups.std(1, keepdim=True) if n > 1 else torch.zeros_like(advantages)
    elif scale == "batch":
        std = reward.std() if reward.shape[0] > 1 else torch.zeros_like(reward[:1])
    else:
        raise ValueError(f"scale {scale!r} is none of 'group', 'batch', 'none'")
    return (advantages / (std + _EPS)).flatten()


def _sum_rewards(rewards: Tensor, weights: Tensor | None) -> Tensor:
    """Returns one reward per answer, `[N]`."""
    if rewards.dim() == 1:
        return rewards if weights is None else rewards * weights.to(rewards).reshape(-1)[0]
    if weights is None:
        weights = torch.ones(rewards.shape[1])
    # nansum: a function that does not apply to an answer adds nothing.
    return (rewards * weights.to(rewards)).nansum(1)


def _rloo_advantages(groups: Tensor, scale: str | bool | None) -> Tensor:
    n = groups.shape[1]
    if n < 2:
        raise ValueError("rloo needs at least two answers a prompt")
    mean_of_others = (groups.sum(1, keepdim=True) - groups) / (n - 1)
    advantages = (groups - mean_of_others).flatten()
    if scale in (None, False, "none"):
        return advantages
    if scale in (True, "batch"):
        return (advantages - advantages.mean()) / (advantages.std() + _EPS)
    raise ValueError(f"scale {scale!r} with rloo is neither 'batch' nor 'none'")


def grpo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor | None,
    ref_log_probs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    **options: Unpack[GroupOptions],
) -> Tensor:
    """Clipped surrogate (1 - `epsilon`, 1 + `epsilon_high`) plus `beta`·k3, aggregated by `kind`.

    Advantages are `[B]` (or `[B, T]`), all else `[B, T]`. Without `old_log_probs` the ratio is 1
    and its gradient that of log π. Kinds:

    ``grpo`` mean per answer, then over answers (2402.03300);
    ``bnpo`` mean over the batch's tokens: a caller that accumulates gradients averages the
    batches' means;
    ``dr_grpo`` Σ / (B·`length`) with `length` = the longest allowed answer (2503.20783);
    ``dapo`` Σ / number of tokens of the whole step (2503.14476), here the batch's own: a caller
    that accumulates gradients rescales by its share;
    ``rloo`` the ratio of whole answers, no KL in the loss (it is part of the reward); log_probs and
    old_log_probs may be sums over answers, `[B]`, as TRL's trainer keeps them.

    With `level` ``sequence`` the ratio of each token is the geometric mean of its answer's ratios,
    (π(y)/π_old(y))^(1/|y|): GSPO (Zheng et al. 2025, 2507.18071).
    """
    unknown = set(options) - set(GroupOptions.__annotations__)
    if unknown:
        raise TypeError(f"grpo_loss() got unexpected arguments: {', '.join(sorted(unknown))}")
    epsilon, beta = options.get("epsilon", 0.2), options.get("beta", 0.0)
    kind, length = options.get("kind", "grpo"), options.get("length")
    high, weights = options.get("epsilon_high"), options.get("weights")
    level = options.get("level", "token")
    if level not in ("token", "sequence"):
        raise ValueError(f"level {level!r} is neither 'token' nor 'sequence'")
    old = log_probs.detach() if old_log_probs is None else old_log_probs
    if kind == "rloo":
        # REINFORCE over whole answers: the answer is one action (Ahmadian et al. 2024).
        log_ratio = _answer_log_probs(log_probs, mask) - _answer_log_probs(old, mask)
        objective = clipped_objective(torch.exp(log_ratio), advantages, epsilon, high)
        return -(objective if weights is None else objective * weights).mean()
    if log_probs.dim() != 2 or old.dim() != 2:
        raise ValueError(f"kind {kind!r} needs log-probabilities of tokens, [B, T]")
    weight = mask.to(log_probs.dtype)
    token_advantages = advantages.unsqueeze(-1) if advantages.dim() == 1 else advantages
    log_ratio = log_probs - old
    if level == "sequence":
        lengths = weight.sum(-1).clamp(min=1)
        log_ratio = (_answer_log_probs(log_ratio, mask) / lengths).unsqueeze(-1)
    loss = -clipped_objective(torch.exp(log_ratio), token_advantages, epsilon, high)
    loss = loss.expand_as(log_probs) if weights is None else loss * weights
    if beta:
        if ref_log_probs is None:
            raise ValueError("beta > 0 needs ref_log_probs")
        loss = loss + beta * kl_estimate(log_probs - ref_log_probs, "k3")
    if kind == "grpo":
        return masked_mean(loss, mask, "row")
    if kind == "bnpo":
        return masked_mean(loss, mask, "token")
    # The kinds below divide by one number for the whole step: a division by each answer's own
    # length would favour long wrong answers (2503.20783).
    total = torch.where(mask.bool(), loss, torch.zeros_like(loss)).sum()
    if kind == "dr_grpo":
        return total / (loss.shape[0] * (length or loss.shape[1]))
    if kind == "dapo":
        return total / weight.sum().clamp(min=1)
    raise ValueError(f"kind {kind!r} is none of grpo, bnpo, dr_grpo, dapo, rloo")


def _answer_log_probs(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Returns the log-probabilities of whole answers, `[B]`; sums are returned as they are."""
    if log_probs.dim() == 1:
        return log_probs
    return torch.where(mask.bool(), log_probs, torch.zeros_like(log_probs)).sum(-1)
