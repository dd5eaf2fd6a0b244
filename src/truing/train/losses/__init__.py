"""The losses of alignment training: pure functions of tensors, in the symbols of the literature.

Tensors are `[B, T]` unless stated, masks are 1 on real tokens. `reduction="row"` is the mean over
each row's tokens and then over rows, `"token"` the mean over all tokens of the batch. The tests
compare each function with the code of the paper or of the library that made it known.
"""

from __future__ import annotations

from truing.train.losses.direct import (
    DPO_KINDS,
    chosen_nll,
    direct_rewards,
    dpo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from truing.train.losses.groups import group_advantages, grpo_loss
from truing.train.losses.language import distillation_loss, ptx_loss, sft_loss, token_log_probs
from truing.train.losses.multiplier import LagrangeMultiplier
from truing.train.losses.normalizer import ScoreNormalizer
from truing.train.losses.policy import (
    combined_advantage,
    combined_advantages,
    critic_loss,
    gae,
    importance_weights,
    kl_estimate,
    kl_penalised_rewards,
    ppo_actor_loss,
    separate_actor_loss,
)
from truing.train.losses.preference import PairScores, cost_loss, reward_loss
from truing.train.losses.tensors import end_index, first_difference, masked_mean, whiten

__all__ = [
    "DPO_KINDS",
    "LagrangeMultiplier",
    "PairScores",
    "ScoreNormalizer",
    "chosen_nll",
    "combined_advantage",
    "combined_advantages",
    "cost_loss",
    "critic_loss",
    "direct_rewards",
    "distillation_loss",
    "dpo_loss",
    "end_index",
    "first_difference",
    "gae",
    "group_advantages",
    "grpo_loss",
    "importance_weights",
    "kl_estimate",
    "kl_penalised_rewards",
    "kto_loss",
    "masked_mean",
    "orpo_loss",
    "ppo_actor_loss",
    "ptx_loss",
    "reward_loss",
    "separate_actor_loss",
    "sft_loss",
    "simpo_loss",
    "token_log_probs",
    "whiten",
]
