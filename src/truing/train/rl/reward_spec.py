"""The rewards and costs of a run as the caller specifies them, and the signals built from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from truing.core.errors import PlanError
from truing.core.protocols import Judge
from truing.train.rl.adapter_rewards import AdapterSignal
from truing.train.rl.policy_models import (
    COST_CRITIC,
    REWARD_CRITIC,
    SeparateModels,
    SharedBackboneModels,
    cost_critic,
)
from truing.train.rl.reward_signals import (
    ConstrainedCost,
    JudgeSignal,
    RewardSignal,
    RewardSignals,
    WeightedSignal,
)
from truing.train.rl.settings import RLSettings


@dataclass(frozen=True)
class SharedScorer:
    """A folder written by `truing train reward` or `cost`, to load onto the run's own backbone."""

    folder: str


RewardSource = Judge | SharedScorer | RewardSignal


@dataclass(frozen=True)
class RewardSpec:
    """The rewards and costs of a run with their weights (all 1 if no weights are given).

    `constraint_costs` are the costs of the further constraints (`RLSettings.constraints`), by name.
    """

    rewards: Sequence[RewardSource]
    costs: Sequence[RewardSource] = ()
    reward_weights: Sequence[float] = ()
    cost_weights: Sequence[float] = ()
    constraint_costs: Mapping[str, RewardSource] = field(default_factory=dict)


def build_signals(
    models: SharedBackboneModels | SeparateModels,
    reward_spec: RewardSpec,
    base_sha256: str,
    settings: RLSettings,
) -> RewardSignals:
    """Builds the signals, and starts critics from their reward or cost model where possible.

    `base_sha256` identifies the weights of the backbone. Raises PlanError if the numbers of signals
    and weights differ or a constraint has no cost, UserError if a shared scorer does not fit.
    """
    builder = _SignalBuilder(models, base_sha256, settings.cut_answers == "closed")
    rewards = builder.build(reward_spec.rewards, reward_spec.reward_weights, "reward")
    costs = builder.build(reward_spec.costs, reward_spec.cost_weights, "cost")
    limits = {limit.name: limit for limit in settings.constraints}
    if set(limits) != set(reward_spec.constraint_costs):
        raise PlanError(
            f"constraints {sorted(limits)} and costs for {sorted(reward_spec.constraint_costs)}: "
            f"each constraint needs one cost"
        )
    constraints = [
        ConstrainedCost(limit, tuple(builder.build([source], (), f"cost_{name}_")))
        for name, limit in limits.items()
        for source in (reward_spec.constraint_costs[name],)
    ]
    pairs = [(REWARD_CRITIC, rewards), (COST_CRITIC, costs)]
    pairs += [(cost_critic(cost.name), list(cost.signals)) for cost in constraints]
    for critic, signals in pairs:
        # A critic can start from one model, not from a sum of several.
        if critic not in models.critics or len(signals) != 1:
            continue
        signal = signals[0].signal
        if isinstance(signal, AdapterSignal) and isinstance(models, SharedBackboneModels):
            models.initialise_critic(critic, signal.adapter)
    return RewardSignals(rewards, costs, constraints)


@dataclass(frozen=True)
class _SignalBuilder:
    models: SharedBackboneModels | SeparateModels
    base_sha256: str
    close_cut_answers: bool

    def build(
        self, sources: Sequence[RewardSource], weights: Sequence[float], kind: str
    ) -> list[WeightedSignal]:
        """Returns the signals of a sum; `kind` begins the names of their adapters."""
        if weights and len(weights) != len(sources):
            raise PlanError(f"{len(weights)} weights for {len(sources)} {kind}s")
        signals = [self._signal(source, f"{kind}s{k}") for k, source in enumerate(sources)]
        return [
            WeightedSignal(signal, weights[k] if weights else 1.0)
            for k, signal in enumerate(signals)
        ]

    def _signal(self, source: RewardSource, adapter: str) -> RewardSignal:
        if isinstance(source, SharedScorer):
            return AdapterSignal.load(
                self.models,
                source.folder,
                adapter,
                self.base_sha256,
                close_cut_answers=self.close_cut_answers,
            )
        if hasattr(source, "score"):
            return cast(RewardSignal, source)
        return JudgeSignal(source, close_cut_answers=self.close_cut_answers)
