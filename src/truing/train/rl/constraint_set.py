"""All constraints of a run: each cost has a window, a threshold and a λ of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from truing.core.types import Sample
from truing.train.rl.constraint import CostConstraint
from truing.train.rl.constraint_settings import MAIN_CONSTRAINT
from truing.train.rl.reward_signals import GlobalScores
from truing.train.rl.settings import RLSettings


class ConstraintSet:
    """The constraints of a run by name, in the order of the settings.

    The objective is (reward - Σ λᵢ·costᵢ) / (1 + Σ λᵢ): the Lagrangian of Safe RLHF (Dai et al.
    2023) with one multiplier per constraint (Altman 1999; Tessler et al. 2018, 1805.11074).
    """

    def __init__(self, constraints: Sequence[CostConstraint]) -> None:
        self.by_name = {constraint.limit.name: constraint for constraint in constraints}

    @classmethod
    def from_settings(cls, settings: RLSettings, *, costs: bool) -> ConstraintSet:
        """Returns the constraints of a run, before its first step."""
        limits = settings.all_constraints(costs=costs)
        return cls([CostConstraint(settings, limit) for limit in limits])

    def observe(self, scores: GlobalScores, samples: Sequence[Sample] = ()) -> None:
        """Adds the costs of a rollout of all processes to the windows; PID control also sets λ.

        `samples` are the prompts of the answers, whose harm categories are logged.
        """
        for name, constraint in self.by_name.items():
            counted = scores.counted(name)
            rows = counted.nonzero().flatten().tolist()
            categories = [samples[row].harms for row in rows] if samples else []
            constraint.observe(scores.costs[name][counted], categories)

    def constrained_costs(self, name: str, costs: Tensor) -> Tensor:
        """Returns costs per answer, `[N]`, whose mean is the quantity that λ constrains."""
        return self.by_name[name].constrained_costs(costs)

    def step(self) -> dict[str, float]:
        """Returns each λ of the next gradient step, which gradient control updates first."""
        return {name: constraint.step() for name, constraint in self.by_name.items()}

    def log_metrics(self, scores: GlobalScores) -> dict[str, float | str]:
        """Returns the metrics of all constraints of one step.

        The metrics of the first constraint have plain keys. If there are several, the metrics of
        each also have keys that end in /NAME.
        """
        metrics: dict[str, float | str] = {}
        for position, (name, constraint) in enumerate(self.by_name.items()):
            own = constraint.log_metrics(scores.costs[name][scores.counted(name)])
            if position == 0:
                metrics |= own
            if len(self.by_name) > 1:
                metrics |= {f"{key}/{name}": value for key, value in own.items()}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs.

        With the main constraint alone this is its own state, the format of version 0.1.
        """
        states = {name: constraint.state_dict() for name, constraint in self.by_name.items()}
        if list(states) == [MAIN_CONSTRAINT]:
            return states[MAIN_CONSTRAINT]
        return {"by_name": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        states = state.get("by_name", {MAIN_CONSTRAINT: state})
        for name, constraint in self.by_name.items():
            constraint.load_state_dict(states[name])
