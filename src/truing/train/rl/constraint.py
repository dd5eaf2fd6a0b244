"""A constraint on a cost: λ, its window of costs, and statistics that a mean can hide."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from truing.distributed.process_group import as_float64
from truing.train.losses import LagrangeMultiplier
from truing.train.rl.constraint_settings import ConstraintSettings
from truing.train.rl.pid import PIDController
from truing.train.rl.settings import RLSettings

_COSTS_PER_CATEGORY = 64  # the last costs that a category's mean is taken over


def var_and_cvar(costs: Sequence[float], alpha: float) -> tuple[float, float]:
    """Returns (value at risk, conditional value at risk) of the worst share `alpha` of the costs.

    VaR is the cost that a share α of the answers reaches; CVaR_α = VaR + E[(c - VaR)⁺] / α is the
    mean of that worst share (Rockafellar & Uryasev 2000). The formula also holds where α·n is not
    a whole number: the answer at the boundary counts in part. NaN without costs.
    """
    if not costs:
        return math.nan, math.nan
    descending = sorted(costs, reverse=True)
    count = len(descending)
    # 1e-9: in floating point 0.07 · 100 is 7.000000000000001, which must not be rounded up to 8.
    boundary = min(count - 1, math.ceil(alpha * count - 1e-9) - 1)
    var = descending[boundary]
    excess = math.fsum(max(cost - var, 0.0) for cost in descending)
    return var, var + excess / (alpha * count)


class CVaRMultiplier(LagrangeMultiplier):
    """A Lagrange multiplier that follows the CVaR of its window instead of the mean."""

    alpha = 0.1

    @property
    def episode_cost(self) -> float:
        """The mean of the worst share `alpha` of the window; NaN before the first episode."""
        return var_and_cvar(list(self.costs), self.alpha)[1]


class CostConstraint:
    """λ with its window, and the last costs of each harm category.

    Order of a step, as in safe-rlhf: `observe` the whole rollout, then before each gradient step
    `step`, and only then compute the loss with the new λ. By default `observe` sets λ, once a
    rollout, by PID control; with `lambda_control` gradient each `step` updates it, as in safe-rlhf.
    """

    def __init__(self, settings: RLSettings, limit: ConstraintSettings | None = None) -> None:
        self.settings = settings
        self.limit = limit = limit or settings.main_constraint
        multiplier_type = CVaRMultiplier if limit.kind == "cvar" else LagrangeMultiplier
        self.multiplier = multiplier_type(
            limit.lambda_init,
            limit.lambda_lr,
            limit.threshold,
            maximum=limit.lambda_max,
            minimum=limit.lambda_min,
            window=limit.window,
            delay=settings.delay,
        )
        if isinstance(self.multiplier, CVaRMultiplier):
            self.multiplier.alpha = limit.tail
        self.controller: PIDController | None = None
        if settings.lambda_control == "pid" and settings.method != "reward-shaping":
            self.controller = PIDController(
                limit.lambda_init,
                limit.lambda_lr,
                minimum=limit.lambda_min,
                maximum=limit.lambda_max,
            )
        self.costs_by_category: dict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=_COSTS_PER_CATEGORY)
        )

    def observe(self, costs: Tensor, categories: Iterable[Sequence[str]] = ()) -> None:
        """Adds the costs of a rollout of all processes, in order; PID control then sets λ.

        `categories` holds the harm categories of the prompt of each cost.
        """
        # Only scored answers come in here: an unscored one must not look safe to λ.
        self.multiplier.observe(costs)
        if self.controller is not None and len(costs):
            mean_square = float((as_float64(costs) - self.limit.threshold).square().mean())
            log_lambda = self.controller.update(self.multiplier.violation, mean_square)
            # During the delay the controller gets to know the scale, but λ stays.
            if self.multiplier.steps >= self.settings.delay:
                self.multiplier.set_log(log_lambda)
        for cost, names in zip(costs.tolist(), categories):
            for name in names:
                self.costs_by_category[name].append(cost)

    def constrained_costs(self, costs: Tensor) -> Tensor:
        """Returns per-answer costs whose mean is the quantity that λ constrains.

        These are the costs themselves, or VaR + (c - VaR)⁺ / α for a constraint on the CVaR.
        """
        if not isinstance(self.multiplier, CVaRMultiplier) or not self.multiplier.costs:
            return costs
        alpha = self.limit.tail
        var, _ = var_and_cvar(list(self.multiplier.costs), alpha)
        return var + (costs - var).clamp(min=0) / alpha

    def step(self) -> float:
        """Returns the λ of the next gradient step, which gradient control updates first.

        Reward shaping has the fixed price ν instead.
        """
        if self.settings.method == "reward-shaping":
            return self.settings.nu
        if self.controller is not None:
            self.multiplier.steps += 1
            return self.multiplier.value
        return self.multiplier.step()

    def log_metrics(self, costs: Tensor) -> dict[str, float | str]:
        """Returns the metrics of λ and of the costs of one step.

        A mean below the threshold can hide single harmful answers, so the share of costs above 0,
        the CVaR at 10 % and the worst category are logged too.
        """
        multiplier = self.multiplier
        fixed = self.settings.method == "reward-shaping"
        metrics: dict[str, float | str] = {
            "lambda": self.settings.nu if fixed else multiplier.value,
            "episode_cost": multiplier.episode_cost,
            "violation": multiplier.violation,
            "lambda_at_bound": 0.0 if fixed else float(multiplier.at_bound),
        }
        if len(costs):
            metrics |= {
                "cost_mean": float(costs.mean()),
                "cost_positive": float(as_float64(costs > 0).mean()),
                "cost_cvar10": var_and_cvar(costs.tolist(), 0.1)[1],
            }
        means = {k: math.fsum(c) / len(c) for k, c in self.costs_by_category.items() if c}
        if means:
            worst = max(means, key=means.__getitem__)
            metrics |= {"worst_category": worst, "worst_category_cost": means[worst]}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {
            "multiplier": self.multiplier.state_dict(),
            "controller": self.controller.state_dict() if self.controller is not None else None,
            "categories": {k: list(costs) for k, costs in self.costs_by_category.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.multiplier.load_state_dict(state["multiplier"])
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
        self.costs_by_category.clear()
        for name, costs in state["categories"].items():
            self.costs_by_category[name].extend(costs)


class KLController:
    """β of the KL penalty: fixed, or adapted to `kl_target` (Ziegler et al. 2019, section 2.2)."""

    def __init__(self, settings: RLSettings) -> None:
        self.settings = settings
        self.value = settings.kl

    def update(self, kl: float, answers: int) -> None:
        """Sets β ← β·(1 + clip(KL / target - 1, ±0.2)·answers / horizon)."""
        target = self.settings.kl_target
        # β is multiplied, not added to: it stays above 0.
        if target > 0 and math.isfinite(kl):
            error = min(max(kl / target - 1, -0.2), 0.2)
            self.value *= 1 + error * answers / self.settings.kl_horizon
