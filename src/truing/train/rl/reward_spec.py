"""The rewards and costs of a run as the caller specifies them, and the signals built from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from truing.core.errors import PlanError
from truing.core.protocols import Judge
from truing.train.rl.adapter_rewards import AdapterSignal
from truing.train.rl.policy_models import (
    COST_CRITIC,
    REWARD_CRITIC,
    SeparateModels,
    SharedBackboneModels,
)
from truing.train.rl.reward_signals import (
    JudgeSignal,
    RewardSignal,
    RewardSignals,
    WeightedSignal,
)


@dataclass(frozen=True)
class SharedScorer:
    """A folder written by `truing train reward` or `cost`, to load onto the run's own backbone."""

    folder: str


RewardSource = Judge | SharedScorer | RewardSignal


@dataclass(frozen=True)
class RewardSpec:
    """The rewards and costs of a run with their weights (all 1 if no weights are given)."""

    rewards: Sequence[RewardSource]
    costs: Sequence[RewardSource] = ()
    reward_weights: Sequence[float] = ()
    cost_weights: Sequence[float] = ()


def build_signals(
    models: SharedBackboneModels | SeparateModels, reward_spec: RewardSpec, base_sha256: str
) -> RewardSignals:
    """Builds the signals, and starts critics from their reward or cost model where possible.

    `base_sha256` identifies the weights of the backbone. Raises PlanError if the numbers of signals
    and weights differ, UserError if a shared scorer does not fit.
    """

    def build(
        sources: Sequence[RewardSource], weights: Sequence[float], kind: str
    ) -> list[WeightedSignal]:
        if weights and len(weights) != len(sources):
            raise PlanError(f"{len(weights)} weights for {len(sources)} {kind}s")
        signals = []
        for position, source in enumerate(sources):
            signal: RewardSignal
            if isinstance(source, SharedScorer):
                signal = AdapterSignal.load(
                    models, source.folder, f"{kind}s{position}", base_sha256
                )
            elif hasattr(source, "score"):
                signal = cast(RewardSignal, source)
            else:
                signal = JudgeSignal(source)
            signals.append(WeightedSignal(signal, weights[position] if weights else 1.0))
        return signals

    rewards = build(reward_spec.rewards, reward_spec.reward_weights, "reward")
    costs = build(reward_spec.costs, reward_spec.cost_weights, "cost")
    for critic, signals in ((REWARD_CRITIC, rewards), (COST_CRITIC, costs)):
        # A critic can start from one model, not from a sum of several.
        if critic not in models.critics or len(signals) != 1:
            continue
        signal = signals[0].signal
        if isinstance(signal, AdapterSignal) and isinstance(models, SharedBackboneModels):
            models.initialise_critic(critic, signal.adapter)
    return RewardSignals(rewards, costs)
