"""From scores to advantages: GAE with a critic for each signal, or comparison within groups.

With critics (PPO): token rewards with the KL penalty inside, then GAE. With groups (RLOO, GRPO):
one advantage per answer, against the other answers to the same prompt. Statistics are taken over
the answers of all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from truing.distributed.process_group import ProcessGroup, as_float64
from truing.train import losses as L
from truing.train.rl.constraint import CostConstraint
from truing.train.rl.policy_models import COST_CRITIC, REWARD_CRITIC
from truing.train.rl.reward_signals import GlobalScores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings


@dataclass(frozen=True)
class Advantages:
    """The advantages of the reward or of the cost.

    `[B, A]` per token with a critic, `[B]` per answer in groups. With a critic also the values V
    before the update and the returns A + V that the critic learns, `[B, A]`.
    """

    advantages: Tensor
    values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True)
class AdvantageBatch:
    """What the gradient steps of a rollout need besides the rollout and the models.

    `reward` and `cost` weight the policy's loss (whitened, where the settings say so); `critics`
    holds the targets of each critic.
    """

    reward: Advantages
    cost: Advantages | None = None
    critics: dict[str, Advantages] = field(default_factory=dict)

    def select(self, rows: Sequence[int], width: int) -> tuple[Tensor, Tensor | None]:
        """Returns (reward, cost) advantages of some rows, cut to `width` answer columns."""

        def select_rows(side: Advantages) -> Tensor:
            selected = side.advantages[list(rows)]
            return selected[:, :width] if selected.dim() == 2 else selected

        return select_rows(self.reward), None if self.cost is None else select_rows(self.cost)


@dataclass
class ScoreNormalizers:
    """Running statistics of rewards and costs.

    Costs are only scaled, not shifted: their sign (safe or unsafe) stays.
    """

    reward: L.ScoreNormalizer
    cost: L.ScoreNormalizer

    @classmethod
    def from_settings(cls, settings: RLSettings) -> ScoreNormalizers:
        """Returns fresh statistics as the settings say."""
        kinds = {"none": None, "running": "RunningMeanStd", "ema": "ExponentialMovingAverage"}

        def normalizer(kind: str, function: str) -> L.ScoreNormalizer:
            return L.ScoreNormalizer(kinds[kind], function if kind != "none" else "identity")

        return cls(
            reward=normalizer(settings.normalise_reward, "affine"),
            cost=normalizer(settings.normalise_cost, "scale"),
        )

    def update(self, scores: GlobalScores) -> None:
        """Adds the scored answers of a step to the statistics."""
        if not bool(scores.scored.any()):
            return
        self.reward.update(scores.reward[scores.scored])
        if scores.cost is not None:
            self.cost.update(scores.cost[scores.scored])

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"reward": self.reward.state_dict(), "cost": self.cost.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.reward.load_state_dict(state["reward"])
        self.cost.load_state_dict(state["cost"])


def compute_advantages(
    settings: RLSettings,
    rollout: Rollout,
    scores: GlobalScores,
    values: dict[str, Tensor],
    *,
    kl_coefficient: float,
    constraint: CostConstraint | None,
    normalizers: ScoreNormalizers,
    processes: ProcessGroup,
) -> AdvantageBatch:
    """Returns the advantages of this process's answers.

    `scores` are those of all processes, `values` the critics' values of the local answers. Updates
    the running statistics of the normalizers.
    """
    normalizers.update(scores)
    reward, cost = normalizers.reward(scores.reward), scores.cost
    if cost is not None:
        if constraint is not None:
            cost = constraint.constrained_costs(cost)
        cost = normalizers.cost(cost)
    normalized = GlobalScores(reward, cost, scores.scored)
    if settings.uses_groups:
        return _group_batch(settings, rollout, normalized, kl_coefficient, processes)
    return _critic_batch(settings, rollout, normalized, values, kl_coefficient, processes)


def _critic_batch(
    settings: RLSettings,
    rollout: Rollout,
    scores: GlobalScores,
    values: dict[str, Tensor],
    kl_coefficient: float,
    processes: ProcessGroup,
) -> AdvantageBatch:
    """PPO: GAE of the reward, and in PPO-Lagrangian of the cost, each with its own critic."""
    local_rows = torch.as_tensor(rollout.global_rows, device=scores.reward.device)
    local_cost = None if scores.cost is None else scores.cost[local_rows]
    score = shape_rewards(settings, scores.reward[local_rows], local_cost, rollout)
    reward = critic_advantages(
        settings,
        rollout,
        score.to(rollout.log_probs),
        values[REWARD_CRITIC],
        kl_coefficient=kl_coefficient,
    )
    cost = None
    if settings.method == "ppo-lag" and local_cost is not None:
        cost = critic_advantages(
            settings,
            rollout,
            local_cost.to(rollout.log_probs),
            values[COST_CRITIC],
            kl_coefficient=kl_coefficient,
            sign=-1,
        )
    # Before whitening: a critic learns the returns in the unit of the rewards.
    critics = {REWARD_CRITIC: reward}
    if cost is not None:
        critics[COST_CRITIC] = cost
    if settings.whiten:
        reward = _whitened(reward, rollout, processes)
        cost = None if cost is None else _whitened(cost, rollout, processes)
    return AdvantageBatch(reward, cost, critics)


def _group_batch(
    settings: RLSettings,
    rollout: Rollout,
    scores: GlobalScores,
    kl_coefficient: float,
    processes: ProcessGroup,
) -> AdvantageBatch:
    """RLOO and GRPO: advantages within the answers to one prompt, reward and cost apart."""
    local_rows = torch.as_tensor(rollout.global_rows, device=scores.reward.device)
    local_reward = shape_rewards(settings, scores.reward[local_rows], None, rollout)
    if not settings.kl_in_loss and rollout.ref_log_probs is not None:
        # RLOO (Ahmadian et al. 2024): the whole answer is one action, so its KL is one penalty.
        log_ratio = (rollout.log_probs - rollout.ref_log_probs) * rollout.answer_mask
        local_reward = local_reward - kl_coefficient * log_ratio.sum(-1).to(local_reward)
    # A group may be spread over processes, so advantages are computed from the rewards of all.
    rewards = processes.gather_rows(local_reward, rollout.global_rows, scores.reward.shape[0])

    def local_advantages(global_scores: Tensor) -> Advantages:
        advantages = group_relative_advantages(settings, global_scores, scores.scored)
        return Advantages(advantages[local_rows].to(rollout.log_probs))

    return AdvantageBatch(
        reward=local_advantages(rewards),
        cost=None if scores.cost is None else local_advantages(scores.cost),
    )


def shape_rewards(
    settings: RLSettings, reward: Tensor, cost: Tensor | None, rollout: Rollout
) -> Tensor:
    """Returns the reward of each answer after clipping, reward shaping and the length limit.

    Reward shaping subtracts ν·cost; `truncation_penalty` is subtracted from answers that reached
    the length limit.
    """
    score = reward
    if settings.clip_reward is not None:
        score = score.clamp(-settings.clip_reward, settings.clip_reward)
    if settings.method == "reward-shaping" and cost is not None:
        score = score - settings.nu * cost
    if settings.truncation_penalty:
        truncated = torch.tensor([not ended for ended in rollout.ended], device=score.device)
        score = score - settings.truncation_penalty * truncated.to(score)
    return score


def critic_advantages(
    settings: RLSettings,
    rollout: Rollout,
    score: Tensor,
    values: Tensor,
    *,
    kl_coefficient: float,
    sign: int = 1,
) -> Advantages:
    """Returns GAE advantages of one signal (Schulman et al. 2016).

    `score` `[B]` is paid at the last answer token, on top of the KL penalty of each token
    (Ouyang et al. 2022, equation 2); `sign` is -1 for a cost, to which the penalty is added.
    """
    if rollout.ref_log_probs is None:
        raise ValueError("the rollout has no log-probabilities of the reference model")
    token_rewards = L.kl_penalised_rewards(
        rollout.log_probs,
        rollout.ref_log_probs,
        score,
        rollout.answer_mask,
        coefficient=0.0 if settings.kl_in_loss else kl_coefficient,
        clip=settings.clip_score,
        sign=sign,
    )
    advantages, returns = L.gae(
        values,
        token_rewards,
        rollout.answer_mask,
        0,
        gamma=settings.gamma,
        lam=settings.gae_lambda,
    )
    return Advantages(advantages, values, returns)


def group_relative_advantages(settings: RLSettings, scores: Tensor, scored: Tensor) -> Tensor:
    """Returns one advantage per answer, `[N]`; the answers to one prompt are adjacent.

    RLOO (Ahmadian et al. 2024) or GRPO (Shao et al. 2024).
    """
    groups = scores.reshape(-1, settings.n)
    known = scored.reshape(-1, settings.n).to(scores)
    # An unscored answer counts as the mean of its group: it shifts no baseline, and has no part in
    # the gradient anyway.
    group_means = (groups * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    filled = torch.where(known.bool(), groups, group_means).flatten()
    kind: Literal["rloo", "grpo"] = "rloo" if settings.method == "rloo" else "grpo"
    scale = None if settings.scale == "auto" else settings.scale
    if kind == "rloo" and scale == "group":
        raise ValueError("rloo scales by 'batch' or 'none'")
    return L.group_advantages(filled, None, settings.n, kind=kind, scale=scale)


def _whitened(side: Advantages, rollout: Rollout, processes: ProcessGroup) -> Advantages:
    return Advantages(whiten_over_processes(side.advantages, rollout.answer_mask, processes))


def whiten_over_processes(advantages: Tensor, mask: Tensor, processes: ProcessGroup) -> Tensor:
    """Returns advantages of mean 0 and variance 1 over the answer tokens of all processes."""
    if processes.size == 1:
        return L.whiten(advantages, mask)
    weight = as_float64(mask)
    # Two passes, the mean first: the one-pass formula E[x²] - E[x]² loses digits.
    sums = torch.stack([weight.sum(), (as_float64(advantages) * weight).sum()])
    count, total = processes.all_reduce(sums)
    mean = total / count.clamp(min=1)
    squares = processes.all_reduce(((as_float64(advantages) - mean).square() * weight).sum())
    variance = squares / (count - 1).clamp(min=1)
    whitened: Tensor = ((advantages - mean) * torch.rsqrt(variance + 1e-8)) * weight
    return whitened.to(advantages)
