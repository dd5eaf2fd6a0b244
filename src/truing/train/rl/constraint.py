"""The constraint: what λ holds below the threshold (mean cost, or the mean of the worst), and what a mean can hide."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from truing.train.losses import LagrangeMultiplier
from truing.train.rl.settings import RLSettings


def upper_tail(costs: Sequence[float], share: float) -> tuple[float, float]:
    """(value at risk, CVaR): the cost that `share` of the answers reach, and the mean of that worst share.

    CVaR_α = VaR + E[(c - VaR)⁺] / α (Rockafellar & Uryasev 2000), which counts a part of an answer where `share` · n
    is no whole number. NaN where there are no costs.
    """
    if not costs:
        return math.nan, math.nan
    ordered = sorted(costs, reverse=True)
    at = ordered[min(len(ordered) - 1, math.ceil(share * len(ordered) - 1e-9) - 1)]
    over = math.fsum(max(c - at, 0.0) for c in ordered)
    return at, at + over / (share * len(ordered))


class TailMultiplier(LagrangeMultiplier):
    """λ that answers the CVaR of its window instead of the mean."""

    tail = 0.1

    @property
    def episode_cost(self) -> float:
        """The mean of the worst `tail` share of the window; NaN before the first episode."""
        return upper_tail(list(self.costs), self.tail)[1]


class Constraint:
    """λ, its window, and the costs of the last answers by category.

    Order of a step, as in safe-rlhf: `observe` the whole rollout, then for each gradient step `step` and only then the loss.
    """

    def __init__(self, settings: RLSettings) -> None:
        self.settings = settings
        tailed = settings.constraint == "cvar"
        self.multiplier = (TailMultiplier if tailed else LagrangeMultiplier)(
            settings.lambda_init,
            settings.lambda_lr,
            settings.threshold,
            maximum=settings.lambda_max,
            minimum=settings.lambda_min,
            window=settings.window,
            delay=settings.delay,
        )
        if isinstance(self.multiplier, TailMultiplier):
            self.multiplier.tail = settings.tail
        self.by_category: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=64))

    def observe(self, costs: Tensor, categories: Iterable[Sequence[str]] = ()) -> None:
        """Takes the costs of a rollout of all processes, in order, with the harm categories of their prompts."""
        self.multiplier.observe(costs)
        for cost, names in zip(costs.tolist(), categories):
            for name in names:
                self.by_category[name].append(cost)

    def weighed(self, costs: Tensor) -> Tensor:
        """The costs whose mean is what λ holds: themselves, or VaR + (c - VaR)⁺ / α for the tail."""
        if not isinstance(self.multiplier, TailMultiplier) or not self.multiplier.costs:
            return costs
        at, _ = upper_tail(list(self.multiplier.costs), self.settings.tail)
        return at + (costs - at).clamp(min=0) / self.settings.tail

    def step(self) -> float:
        """One update of λ; the fixed price of reward shaping stays."""
        return (
            self.settings.nu if self.settings.method == "reward-shaping" else self.multiplier.step()
        )

    def log(self, costs: Tensor) -> dict[str, float | str]:
        """λ, the violation, and what the mean cost can hide: share above 0, CVaR 10 %, the worst category."""
        m, fixed = self.multiplier, self.settings.method == "reward-shaping"
        row: dict[str, float | str] = {
            "lambda": self.settings.nu if fixed else m.value,
            "episode_cost": m.episode_cost,
            "violation": m.violation,
            "lambda_at_bound": 0.0 if fixed else float(m.at_bound),
            "cost_mean": float(costs.mean()),
            "cost_positive": float((costs > 0).double().mean()),
            "cost_cvar10": upper_tail(costs.tolist(), 0.1)[1],
        }
        means = {k: math.fsum(v) / len(v) for k, v in self.by_category.items() if v}
        if means:
            worst = max(means, key=means.__getitem__)
            row |= {"worst_category": worst, "worst_category_cost": means[worst]}
        return row

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "multiplier": self.multiplier.state_dict(),
            "categories": {k: list(v) for k, v in self.by_category.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where `state_dict` left off."""
        self.multiplier.load_state_dict(state["multiplier"])
        self.by_category.clear()
        for name, costs in state["categories"].items():
            self.by_category[name].extend(costs)


class KLController:
    """β of the KL penalty: fixed, or moved towards `kl_target` (Ziegler et al. 2019, 1909.08593, section 2.2)."""

    def __init__(self, settings: RLSettings) -> None:
        self.settings, self.value = settings, settings.kl

    def update(self, kl: float, answers: int) -> None:
        """β ← β·(1 + clip(KL / target - 1, ±0.2)·answers / horizon)."""
        target = self.settings.kl_target
        if target > 0 and math.isfinite(kl):
            error = min(max(kl / target - 1, -0.2), 0.2)
            self.value *= 1 + error * answers / self.settings.kl_horizon
