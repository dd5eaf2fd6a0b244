"""The loss of the policy on a micro-batch: clipped surrogate of reward and cost, KL penalty."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from truing.train import losses as L
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings


def policy_loss(
    settings: RLSettings,
    new_log_probs: Tensor,
    micro: Rollout,
    advantages: tuple[Tensor, Mapping[str, Tensor]],
    multipliers: Mapping[str, float],
    kl_coefficient: float,
) -> Tensor:
    """Returns the loss of a micro-batch as a mean over its answers or tokens.

    `advantages` are those of the reward and of each cost, `multipliers` each cost's λ. Under
    constraints the objective is (reward - Σ λᵢ·costᵢ) / (1 + Σ λᵢ) (Safe RLHF, Dai et al. 2023),
    with the advantages combined before the clipping or the surrogates clipped separately.
    """
    reward, costs = advantages
    if not costs or settings.surrogate == "combined":
        combined = L.combined_advantages(
            reward, list(costs.values()), [multipliers[name] for name in costs]
        )
        loss = _clipped_surrogate(settings, new_log_probs, micro, combined)
    else:
        loss = _clipped_surrogate(settings, new_log_probs, micro, reward)
        for name, cost in costs.items():
            # Each surrogate is a loss already (with its sign), so a cost enters with a minus.
            cost_loss = _clipped_surrogate(settings, new_log_probs, micro, cost)
            loss = loss - multipliers[name] * cost_loss
        loss = loss / (1 + sum(multipliers[name] for name in costs))
    # Otherwise the penalty is part of the rewards (advantages.py).
    if settings.kl_in_loss and kl_coefficient:
        loss = loss + _kl_penalty(settings, new_log_probs, micro, kl_coefficient)
    return loss


def averages_over_tokens(settings: RLSettings) -> bool:
    """Whether the policy's loss is a mean over all tokens of a minibatch, and not over answers.

    bnpo takes the mean over the tokens of each micro-batch and then over micro-batches (TRL's
    definition), so that its result depends on `micro`; dapo does not.
    """
    if not settings.uses_groups:
        return settings.reduction == "token"
    return settings.loss == "dapo" and settings.method == "grpo"


def _clipped_surrogate(
    settings: RLSettings, new_log_probs: Tensor, micro: Rollout, advantages: Tensor
) -> Tensor:
    """Returns the clipped surrogate of PPO (Schulman et al. 2017, equation 7) or of a group method.

    The ratio is that of whole answers in RLOO and that of tokens in PPO and GRPO.
    """
    if not settings.uses_groups:
        return L.ppo_actor_loss(
            new_log_probs,
            micro.log_probs,
            advantages,
            micro.answer_mask,
            clip=settings.clip,
            reduction=settings.reduction,
        )
    return L.grpo_loss(
        new_log_probs,
        micro.log_probs,
        None,
        advantages,
        micro.answer_mask,
        epsilon=settings.clip,
        kind=_group_loss_kind(settings),
        length=settings.max_new,
    )


def _kl_penalty(
    settings: RLSettings, new_log_probs: Tensor, micro: Rollout, kl_coefficient: float
) -> Tensor:
    """Returns β·k3 of policy and reference, averaged as the surrogate is (Shao et al. 2024)."""
    if micro.ref_log_probs is None:
        raise ValueError("a KL penalty in the loss needs log-probabilities of the reference model")
    if settings.uses_groups:
        # With advantages of 0 the surrogate vanishes, and what is left is the KL penalty in the
        # normalisation of this kind of loss.
        zero_advantages = torch.zeros_like(new_log_probs[:, 0])
        return L.grpo_loss(
            new_log_probs,
            micro.log_probs,
            micro.ref_log_probs,
            zero_advantages,
            micro.answer_mask,
            beta=kl_coefficient,
            kind=_group_loss_kind(settings),
            length=settings.max_new,
        )
    k3 = L.kl_estimate(new_log_probs - micro.ref_log_probs, "k3")
    return kl_coefficient * L.masked_mean(k3, micro.answer_mask, settings.reduction)


def _group_loss_kind(settings: RLSettings) -> str:
    if settings.method == "rloo":
        return "rloo"
    return "grpo" if settings.loss == "auto" else settings.loss
