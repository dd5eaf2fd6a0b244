"""From scores to advantages: GAE with a critic for each signal, or comparison within groups.

With critics (PPO): token rewards with the KL penalty inside, then GAE. With groups (RLOO, GRPO):
one advantage per answer, against the other answers to the same prompt. Statistics are taken over
the answers of all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from truing.distributed.process_group import ProcessGroup, as_float64
from truing.train import losses as L
from truing.train.rl.answer_scores import cut_penalty, overlong_share
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.constraint_settings import MAIN_CONSTRAINT
from truing.train.rl.policy_models import REWARD_CRITIC, cost_critic
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

    `reward` and `costs` (by constraint) weight the policy's loss (whitened, where the settings say
    so); `critics` holds the targets of each critic.
    """

    reward: Advantages
    costs: dict[str, Advantages] = field(default_factory=dict)
    critics: dict[str, Advantages] = field(default_factory=dict)

    def select(self, rows: Sequence[int], width: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (reward, costs) advantages of some rows, cut to `width` answer columns."""

        def select_rows(side: Advantages) -> Tensor:
            selected = side.advantages[list(rows)]
            return selected[:, :width] if selected.dim() == 2 else selected

        return select_rows(self.reward), {k: select_rows(side) for k, side in self.costs.items()}


@dataclass
class ScoreNormalizers:
    """Running statistics of rewards and costs.

    Costs are only scaled, not shifted: their sign (safe or unsafe) stays.
    """

    reward: L.ScoreNormalizer
    costs: dict[str, L.ScoreNormalizer]

    @classmethod
    def from_settings(cls, settings: RLSettings) -> ScoreNormalizers:
        """Returns fresh statistics as the settings say."""
        kinds = {"none": None, "running": "RunningMeanStd", "ema": "ExponentialMovingAverage"}

        def normalizer(kind: str, function: str) -> L.ScoreNormalizer:
            return L.ScoreNormalizer(kinds[kind], function if kind != "none" else "identity")

        return cls(
            reward=normalizer(settings.normalise_reward, "affine"),
            costs={
                limit.name: normalizer(settings.normalise_cost, "scale")
                for limit in (settings.main_constraint, *settings.constraints)
            },
        )

    def update(self, scores: GlobalScores) -> None:
        """Adds the scored answers of a step to the statistics."""
        if not bool(scores.scored.any()):
            return
        self.reward.update(scores.reward[scores.scored])
        for name, cost in scores.costs.items():
            self.costs[name].update(cost[scores.counted(name)])

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        costs = {name: normalizer.state_dict() for name, normalizer in self.costs.items()}
        return {"reward": self.reward.state_dict(), **costs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.reward.load_state_dict(state["reward"])
        for name, normalizer in self.costs.items():
            normalizer.load_state_dict(state[name])


def compute_advantages(
    settings: RLSettings,
    rollout: Rollout,
    scores: GlobalScores,
    values: dict[str, Tensor],
    *,
    kl_coefficient: float,
    constraints: ConstraintSet,
    normalizers: ScoreNormalizers,
    processes: ProcessGroup,
) -> AdvantageBatch:
    """Returns the advantages of this process's answers.

    `scores` are those of all processes, `values` the critics' values of the local answers. Updates
    the running statistics of the normalizers.
    """
    normalizers.update(scores)
    costs = {}
    for name, cost in scores.costs.items():
        constrained = normalizers.costs[name](constraints.constrained_costs(name, cost))
        # Answers that a constraint is not about have no part in its gradient.
        costs[name] = constrained.masked_fill(~scores.counted(name), 0.0)
    reward = normalizers.reward(scores.reward)
    normalized = replace(scores, reward=reward, costs=costs)
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
    local_costs = {name: cost[local_rows] for name, cost in scores.costs.items()}
    score = shape_rewards(
        settings,
        scores.reward[local_rows],
        local_costs.get(MAIN_CONSTRAINT),
        rollout,
        cut_penalty=cut_penalty(settings, scores),
    )
    reward = critic_advantages(
        settings,
        rollout,
        score.to(rollout.log_probs),
        values[REWARD_CRITIC],
        kl_coefficient=kl_coefficient,
    )
    costs = {}
    if settings.method == "ppo-lag":
        costs = {
            name: critic_advantages(
                settings,
                rollout,
                cost.to(rollout.log_probs),
                values[cost_critic(name)],
                kl_coefficient=kl_coefficient,
                sign=-1,
            )
            for name, cost in local_costs.items()
        }
    # Before whitening: a critic learns the returns in the unit of the rewards.
    critics = {REWARD_CRITIC: reward} | {cost_critic(name): side for name, side in costs.items()}
    if settings.whiten:
        reward = _whitened(reward, rollout, processes)
        costs = {name: _whitened(side, rollout, processes) for name, side in costs.items()}
    return AdvantageBatch(reward, costs, critics)


def _group_batch(
    settings: RLSettings,
    rollout: Rollout,
    scores: GlobalScores,
    kl_coefficient: float,
    processes: ProcessGroup,
) -> AdvantageBatch:
    """RLOO and GRPO: advantages within the answers to one prompt, reward and cost apart."""
    local_rows = torch.as_tensor(rollout.global_rows, device=scores.reward.device)
    local_reward = shape_rewards(
        settings,
        scores.reward[local_rows],
        None,
        rollout,
        cut_penalty=cut_penalty(settings, scores),
    )
    if not settings.kl_in_loss and rollout.ref_log_probs is not None:
        # RLOO (Ahmadian et al. 2024): the whole answer is one action, so its KL is one penalty.
        log_ratio = (rollout.log_probs - rollout.ref_log_probs) * rollout.answer_mask
        local_reward = local_reward - kl_coefficient * log_ratio.sum(-1).to(local_reward)
    # A group may be spread over processes, so advantages are computed from the rewards of all.
    rewards = processes.gather_rows(local_reward, rollout.global_rows, scores.reward.shape[0])

    def local_advantages(global_scores: Tensor, counted: Tensor) -> Advantages:
        learned = scores.learned(settings)
        advantages = group_relative_advantages(settings, global_scores, counted, learned)
        return Advantages(advantages[local_rows].to(rollout.log_probs))

    return AdvantageBatch(
        reward=local_advantages(rewards, scores.scored),
        costs={
            name: local_advantages(cost, scores.counted(name))
            for name, cost in scores.costs.items()
        },
    )


def shape_rewards(
    settings: RLSettings,
    reward: Tensor,
    cost: Tensor | None,
    rollout: Rollout,
    *,
    cut_penalty: float,
) -> Tensor:
    """Returns the reward of each answer after clipping, reward shaping and the length limit.

    Reward shaping subtracts ν·cost; `cut_penalty` is subtracted from answers that reached the
    length limit, and in part from those near it (`overlong_buffer`).
    """
    score = reward
    if settings.clip_reward is not None:
        score = score.clamp(-settings.clip_reward, settings.clip_reward)
    if settings.method == "reward-shaping" and cost is not None:
        score = score - settings.nu * cost
    if cut_penalty:
        score = score - cut_penalty * overlong_share(settings, rollout).to(score)
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
    coefficient = 0.0 if settings.kl_in_loss else kl_coefficient
    if rollout.ref_log_probs is None and coefficient:
        raise ValueError("the rollout has no log-probabilities of the reference model")
    token_rewards = L.kl_penalised_rewards(
        rollout.log_probs,
        rollout.log_probs if rollout.ref_log_probs is None else rollout.ref_log_probs,
        score,
        rollout.answer_mask,
        coefficient=coefficient,
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


def group_relative_advantages(
    settings: RLSettings, scores: Tensor, counted: Tensor, learned: Tensor | None = None
) -> Tensor:
    """Returns one advantage per answer, `[N]`; the answers to one prompt are adjacent.

    RLOO (Ahmadian et al. 2024) or GRPO (Shao et al. 2024). With `baseline` step all answers that
    count are one group: REINFORCE with the mean of the step as baseline. Answers to one prompt that
    all score alike then have a gradient too. The expected gradient is the same but for a factor
    near 1; with one answer to each of more prompts, prompts add less noise to it. `learned` says
    which answers have a part in the gradient (default: all).
    """
    kind: Literal["rloo", "grpo"] = "rloo" if settings.method == "rloo" else "grpo"
    scale = None if settings.scale == "auto" else settings.scale
    if kind == "rloo" and scale == "group":
        raise ValueError("rloo scales by 'batch' or 'none'")
    if settings.baseline == "step":
        advantages = torch.zeros_like(scores)
        count = int(counted.sum())
        # A single answer has nothing to be compared with.
        if count > 1:
            compared = L.group_advantages(scores[counted], None, count, kind=kind, scale=scale)
            # λ weighs the mean over the answers that count, and the loss divides by all that are
            # learned from: unscored and masked ones are neither.
            in_loss = torch.ones_like(counted) if learned is None else learned
            factor = int(in_loss.sum()) / max(1, int((in_loss & counted).sum()))
            advantages[counted] = compared.to(scores) * factor
        return advantages
    groups = scores.reshape(-1, settings.n)
    known = counted.reshape(-1, settings.n).to(scores)
    # An unscored answer counts as the mean of its group: it shifts no baseline, and has no part in
    # the gradient anyway.
    group_means = (groups * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    filled = torch.where(known.bool(), groups, group_means).flatten()
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
