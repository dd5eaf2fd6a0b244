"""From scores to advantages: token rewards with the KL penalty, GAE per critic, group advantages, whitening over all
processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from truing.distributed.process_group import World
from truing.train import losses as L
from truing.train.rl.constraint import Constraint
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings


@dataclass(frozen=True)
class Side:
    """What one signal (reward or cost) teaches: advantages `[B, A]` (critics) or `[B]` (groups); values and returns with
    a critic.
    """

    advantage: Tensor
    values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True)
class Lesson:
    """Everything that the gradient steps of a rollout need besides the models."""

    reward: Side
    cost: Side | None = None
    critics: dict[str, Side] = field(default_factory=dict)


@dataclass
class Normalisers:
    """Running statistics of rewards and costs; costs are only scaled, so that their sign stays."""

    reward: L.ScoreNormalizer
    cost: L.ScoreNormalizer

    @classmethod
    def of(cls, settings: RLSettings) -> Normalisers:
        """As the settings say."""
        kinds = {"none": None, "running": "RunningMeanStd", "ema": "ExponentialMovingAverage"}

        def one(kind: str, function: str) -> L.ScoreNormalizer:
            return L.ScoreNormalizer(kinds[kind], function if kind != "none" else "identity")

        return cls(one(settings.normalise_reward, "affine"), one(settings.normalise_cost, "scale"))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"reward": self.reward.state_dict(), "cost": self.cost.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where `state_dict` left off."""
        self.reward.load_state_dict(state["reward"])
        self.cost.load_state_dict(state["cost"])


def shaped(settings: RLSettings, reward: Tensor, cost: Tensor | None, rollout: Rollout) -> Tensor:
    """The score of each answer that stands for "reward": clipped, less the price of costs (reward shaping) and of being "
    "cut off."""
    score = reward
    if settings.clip_reward is not None:
        score = score.clamp(-settings.clip_reward, settings.clip_reward)
    if settings.method == "reward-shaping" and cost is not None:
        score = score - settings.nu * cost
    if settings.truncation_penalty:
        cut = torch.tensor([not e for e in rollout.ended], device=score.device)
        score = score - settings.truncation_penalty * cut.to(score)
    return score


def critic_side(
    settings: RLSettings,
    rollout: Rollout,
    score: Tensor,
    values: Tensor,
    *,
    kl: float,
    sign: int = 1,
) -> Side:
    """Token rewards (KL inside, the sum clamped as in safe-rlhf), then GAE, over the answers' tokens."""
    if rollout.ref_log_probs is None:
        raise ValueError("the rollout has no log-probabilities of the reference")
    coefficient = 0.0 if settings.kl_in_loss else kl
    rewards = L.kl_penalised_rewards(
        rollout.log_probs,
        rollout.ref_log_probs,
        score,
        rollout.answer,
        coefficient=coefficient,
        clip=settings.clip_score,
        sign=sign,
    )
    advantage, returns = L.gae(
        values, rewards, rollout.answer, 0, gamma=settings.gamma, lam=settings.gae_lambda
    )
    return Side(advantage, values, returns)


def group_side(settings: RLSettings, scores: Tensor, scored: Tensor) -> Tensor:
    """Advantages `[N]` of all processes' answers, groups next to one another; unscored answers count as their group's
    mean.
    """
    grouped = scores.reshape(-1, settings.n)
    known = scored.reshape(-1, settings.n).to(scores)
    mean = (grouped * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    filled = torch.where(known.bool(), grouped, mean).flatten()
    kind: Literal["rloo", "grpo"] = "rloo" if settings.method == "rloo" else "grpo"
    scale = None if settings.scale == "auto" else settings.scale
    if kind == "rloo" and scale == "group":
        raise ValueError("rloo scales by 'batch' or 'none'")
    return L.group_advantages(filled, None, settings.n, kind=kind, scale=scale)


def whiten(advantage: Tensor, mask: Tensor, world: World) -> Tensor:
    """Mean 0 and variance 1 over the answers' tokens of all processes."""
    if world.size == 1:
        return L.whiten(advantage, mask)
    weight = mask.double()
    count, total = world.sum(torch.stack([weight.sum(), (advantage.double() * weight).sum()]))
    mean = total / count.clamp(min=1)
    spread = world.sum(((advantage.double() - mean).square() * weight).sum()) / (count - 1).clamp(
        min=1
    )
    return (((advantage - mean) * torch.rsqrt(spread + 1e-8)) * weight).to(advantage)


def lesson(
    settings: RLSettings,
    rollout: Rollout,
    scores: tuple[Tensor, Tensor | None, Tensor],
    values: dict[str, Tensor],
    *,
    kl: float,
    constraint: Constraint | None,
    normalisers: Normalisers,
    world: World,
) -> Lesson:
    """The advantages of this process's answers; `scores` are reward, cost and scored of *all* processes, in order."""
    reward, cost, scored = scores
    mine = torch.as_tensor(rollout.index, device=reward.device)
    if bool(scored.any()):
        normalisers.reward.update(reward[scored])
        if cost is not None:
            normalisers.cost.update(cost[scored])
    held = None
    if cost is not None and constraint is not None:
        held = normalisers.cost(constraint.weighed(cost))
    elif cost is not None:
        held = normalisers.cost(cost)
    reward = normalisers.reward(reward)
    if settings.grouped:
        return _group_lesson(settings, rollout, (reward, held, scored), mine, kl=kl, world=world)
    score = shaped(settings, reward[mine], None if held is None else held[mine], rollout).to(
        rollout.log_probs
    )
    side = critic_side(settings, rollout, score, values["reward_critic"], kl=kl)
    critics = {"reward_critic": side}
    cost_side = None
    if settings.method == "ppo-lag" and held is not None:
        cost_side = critic_side(
            settings,
            rollout,
            held[mine].to(rollout.log_probs),
            values["cost_critic"],
            kl=kl,
            sign=-1,
        )
        critics["cost_critic"] = cost_side
        if settings.whiten:
            cost_side = Side(whiten(cost_side.advantage, rollout.answer, world))
    if settings.whiten:
        side = Side(whiten(side.advantage, rollout.answer, world))
    return Lesson(side, cost_side, critics)


def _group_lesson(
    settings: RLSettings,
    rollout: Rollout,
    scores: tuple[Tensor, Tensor | None, Tensor],
    mine: Tensor,
    *,
    kl: float,
    world: World,
) -> Lesson:
    reward, cost, scored = scores
    count = reward.shape[0]
    own = shaped(settings, reward[mine], None, rollout)
    if not settings.kl_in_loss and rollout.ref_log_probs is not None:
        own = own - kl * ((rollout.log_probs - rollout.ref_log_probs) * rollout.answer).sum(-1).to(
            own
        )
    whole = world.gather(own, rollout.index, count)
    gain = group_side(settings, whole, scored)[mine].to(rollout.log_probs)
    loss = (
        None
        if cost is None
        else Side(group_side(settings, cost, scored)[mine].to(rollout.log_probs))
    )
    return Lesson(Side(gain), loss)
