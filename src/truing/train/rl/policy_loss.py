"""The loss of the policy on a micro-batch: clipped surrogate of reward and cost, KL penalty."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from truing.distributed.process_group import as_float64
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
    old_log_probs = old_policy_log_probs(new_log_probs, micro)
    weights = sampling_weights(settings, old_log_probs, micro)

    def surrogate(side: Tensor) -> Tensor:
        return _clipped_surrogate(settings, (new_log_probs, old_log_probs), micro, side, weights)

    reward, costs = advantages
    if not costs or settings.surrogate == "combined":
        combined = L.combined_advantages(
            reward, list(costs.values()), [multipliers[name] for name in costs]
        )
        loss = surrogate(combined)
    else:
        loss = surrogate(reward)
        for name, cost in costs.items():
            # Each surrogate is a loss already (with its sign), so a cost enters with a minus.
            loss = loss - multipliers[name] * surrogate(cost)
        loss = loss / (1 + sum(multipliers[name] for name in costs))
    # Otherwise the penalty is part of the rewards (advantages.py).
    if settings.kl_in_loss and kl_coefficient:
        loss = loss + _kl_penalty(settings, new_log_probs, micro, kl_coefficient)
    return loss


def old_policy_log_probs(new_log_probs: Tensor, micro: Rollout) -> Tensor:
    """Returns log π_old of the answer tokens, `[B, A]`, without a gradient.

    Before the first gradient step the policy is still π_old: a rollout with one step alone needs no
    forward pass more.
    """
    return new_log_probs.detach() if micro.on_policy else micro.log_probs


def sampling_weights(settings: RLSettings, old_log_probs: Tensor, micro: Rollout) -> Tensor | None:
    """Returns the truncated importance weights of tokens `[B, A]`, in RLOO of answers `[B]`.

    None if the policy itself sampled, in the same precision.
    """
    if micro.sampler_log_probs is None or not settings.importance_cap:
        return None
    old, sampler, mask = old_log_probs, micro.sampler_log_probs, micro.answer_mask
    if settings.method == "rloo":
        # The whole answer is one action.
        old, sampler = ((x * mask).sum(-1) for x in (old, sampler))
        mask = torch.ones_like(old)
    return L.importance_weights(old, sampler, mask, cap=settings.importance_cap)


def policy_ratio(settings: RLSettings, log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Returns the ratio that is clipped, for each token `[B, A]`, from log(π / π_old)."""
    log_ratio = log_ratio * mask
    if settings.method == "rloo" or settings.ratio_level == "sequence":
        total = log_ratio.sum(-1, keepdim=True)
        is_mean = settings.method != "rloo"
        log_ratio = (total / mask.sum(-1, keepdim=True).clamp(min=1)) if is_mean else total
    return log_ratio.exp().expand_as(mask)


@torch.no_grad()
def ratio_statistics(settings: RLSettings, new_log_probs: Tensor, micro: Rollout) -> Tensor:
    """Returns sums over the tokens of a micro-batch, `[5]` in float64.

    They are the number of clipped ratios, the KL of the policy from the old one (k3 estimator), the
    importance weights, the number of those that were cut, and |log π_old - log μ| (the drift). The
    last three are 0 if the policy itself sampled.
    """
    mask = micro.answer_mask
    old = old_policy_log_probs(new_log_probs, micro)
    log_ratio = (new_log_probs - old) * mask
    ratio = policy_ratio(settings, log_ratio, mask)
    high = settings.clip if settings.clip_high is None else settings.clip_high
    clipped = ((ratio < 1 - settings.clip) | (ratio > 1 + high)) & mask.bool()
    # k3 estimates KL(π_old ‖ π_new) from samples of π_old: its argument is log π_old - log π_new.
    sums = [clipped.sum(), (L.kl_estimate(-log_ratio, "k3") * mask).sum()]
    weights = sampling_weights(settings, old, micro)
    zero = torch.zeros(())
    if weights is None or micro.sampler_log_probs is None:
        sums += [zero, zero]
    else:
        by_token = weights.unsqueeze(-1) * mask if weights.dim() == 1 else weights * mask
        is_cut = (by_token >= settings.importance_cap) & mask.bool()
        sums += [by_token.sum(), is_cut.sum()]
    if micro.sampler_log_probs is None:
        sums.append(zero)
    else:
        sums.append(((old - micro.sampler_log_probs).abs() * mask).sum())
    return torch.stack([as_float64(value).cpu() for value in sums])


def averages_over_tokens(settings: RLSettings) -> bool:
    """Whether the policy's loss is a mean over all tokens of a minibatch, and not over answers.

    bnpo takes the mean over the tokens of each micro-batch and then over micro-batches (TRL's
    definition), so that its result depends on `micro`; dapo does not.
    """
    if not settings.uses_groups:
        return settings.reduction == "token"
    return settings.loss == "dapo" and settings.method == "grpo"


def _clipped_surrogate(
    settings: RLSettings,
    log_probs: tuple[Tensor, Tensor],
    micro: Rollout,
    advantages: Tensor,
    weights: Tensor | None,
) -> Tensor:
    """Returns the clipped surrogate of PPO (Schulman et al. 2017, equation 7) or of a group method.

    `log_probs` are those of the new and the old policy. The ratio is that of whole answers in RLOO,
    that of tokens in PPO and GRPO, or a mean over each answer in GSPO.
    """
    if not settings.uses_groups:
        return L.ppo_actor_loss(
            *log_probs,
            advantages,
            micro.answer_mask,
            clip=settings.clip,
            clip_high=settings.clip_high,
            weights=weights,
            reduction=settings.reduction,
        )
    return L.grpo_loss(
        *log_probs,
        None,
        advantages,
        micro.answer_mask,
        epsilon=settings.clip,
        epsilon_high=settings.clip_high,
        level=settings.ratio_level,
        weights=weights,
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
