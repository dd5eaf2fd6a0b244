"""The Lagrange multiplier of Safe RLHF: log λ is updated by the mean cost of the last episodes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any


class LagrangeMultiplier:
    """log λ ← log λ + lr·(Ĵ - threshold)·λ, clamped (Dai et al. 2023, 2310.12773).

    Ĵ is the mean of the last `window` episode costs. Order of a step, as in safe-rlhf: `observe`
    the whole rollout's costs, then before each gradient step `step`, and only then compute the
    policy's loss. The first `delay` steps leave λ as it is. With several processes, `observe` gets
    the costs of all of them.
    """

    def __init__(
        self,
        init: float = 1.0,
        lr: float = 0.1,
        threshold: float = 0.0,
        *,
        maximum: float | None = None,
        minimum: float | None = None,
        window: int = 128,
        delay: int = 0,
    ) -> None:
        if not init > 0:
            raise ValueError(f"init = {init}: must be above 0, because log λ is updated")
        if window < 1:
            raise ValueError(f"window = {window}: at least one episode")
        self.lr = lr
        self.threshold = threshold
        self.maximum = maximum
        self.minimum = minimum
        self.delay = delay
        self.costs: deque[float] = deque(maxlen=window)
        self.steps = 0
        self._log_lambda = math.log(init)

    @property
    def value(self) -> float:
        """The current λ."""
        return math.exp(self._log_lambda)

    @property
    def episode_cost(self) -> float:
        """Ĵ, the mean cost of the window; NaN before the first episode."""
        return math.fsum(self.costs) / len(self.costs) if self.costs else math.nan

    @property
    def violation(self) -> float:
        """Ĵ - threshold: above 0 the constraint is violated."""
        return self.episode_cost - self.threshold

    @property
    def at_bound(self) -> bool:
        """Whether λ is at its maximum or minimum, where the cost cannot move it further."""
        # Not ==: λ is computed from its logarithm.
        bounds = [bound for bound in (self.maximum, self.minimum) if bound]
        return any(math.isclose(self.value, bound, rel_tol=1e-9) for bound in bounds)

    def observe(self, costs: Iterable[float] | Any) -> None:
        """Adds episode costs (a tensor or an iterable of numbers) to the window, oldest first.

        Raises ValueError, and adds none, if a cost is not finite.
        """
        if hasattr(costs, "detach"):
            numbers = costs.detach().flatten().tolist()
        else:
            numbers = [float(cost) for cost in costs]
        # A NaN would stay in the window, and with it in λ for the rest of the run.
        if any(not math.isfinite(number) for number in numbers):
            raise ValueError("a cost is not finite; the multiplier is unchanged")
        self.costs.extend(numbers)

    def step(self) -> float:
        """Updates λ once and returns it; without an observed cost λ stays."""
        if self.steps >= self.delay and self.costs:
            # The gradient of λ·(Ĵ - threshold) with respect to log λ has the factor λ.
            self._log_lambda += self.lr * self.violation * self.value
            if self.maximum is not None:
                self._log_lambda = min(self._log_lambda, math.log(self.maximum))
            if self.minimum:
                self._log_lambda = max(self._log_lambda, math.log(self.minimum))
        self.steps += 1
        return self.value

    def set_log(self, log_lambda: float) -> None:
        """Sets log λ, for a controller that computes it from the window's costs."""
        self._log_lambda = log_lambda

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs: log λ, the window, the number of steps."""
        return {"log": self._log_lambda, "costs": list(self.costs), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._log_lambda = float(state["log"])
        self.steps = int(state["steps"])
        self.costs.clear()
        self.costs.extend(state["costs"])
