"""The Lagrange multiplier of Safe RLHF: λ in log space, moved by the mean cost of the last episodes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any


class LagrangeMultiplier:
    """log λ ← log λ + lr·(Ĵ - threshold)·λ, clamped; Ĵ = mean of the last `window` episode costs (2310.12773).

    Order of one step, as in safe-rlhf: `observe` the whole rollout's costs, then for each gradient step `step` and
    only then the actor's loss. The first `delay` steps leave λ as it is. With several processes give `observe` the
    costs of all of them.
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
            raise ValueError(
                f"the multiplier starts above 0 (it lives in log space), not at {init}"
            )
        if window < 1:
            raise ValueError(f"window {window}: at least one episode")
        self.lr, self.threshold, self.maximum, self.minimum, self.delay = (
            lr,
            threshold,
            maximum,
            minimum,
            delay,
        )
        self.costs: deque[float] = deque(maxlen=window)
        self.steps = 0
        self._log = math.log(init)

    @property
    def value(self) -> float:
        """λ now."""
        return math.exp(self._log)

    @property
    def episode_cost(self) -> float:
        """Ĵ, the mean cost of the window; NaN before the first episode."""
        return math.fsum(self.costs) / len(self.costs) if self.costs else math.nan

    @property
    def violation(self) -> float:
        """Ĵ - threshold: above 0 the constraint is broken."""
        return self.episode_cost - self.threshold

    @property
    def at_bound(self) -> bool:
        """Whether λ stands at one of its bounds, where it can no longer answer the cost."""
        bounds = [b for b in (self.maximum, self.minimum) if b]
        return any(math.isclose(self.value, b, rel_tol=1e-9) for b in bounds)

    def observe(self, costs: Iterable[float] | Any) -> None:
        """Adds episode costs (a tensor or any iterable of numbers), oldest first."""
        listed = (
            costs.detach().flatten().tolist()
            if hasattr(costs, "detach")
            else [float(c) for c in costs]
        )
        if any(not math.isfinite(c) for c in listed):
            raise ValueError("a cost is not finite; the multiplier is left as it was")
        self.costs.extend(listed)

    def step(self) -> float:
        """One update; gives λ. Without an observed cost λ stays."""
        if self.steps >= self.delay and self.costs:
            self._log += self.lr * self.violation * self.value
            if self.maximum is not None:
                self._log = min(self._log, math.log(self.maximum))
            if self.minimum:
                self._log = max(self._log, math.log(self.minimum))
        self.steps += 1
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs: log λ, the window, the steps."""
        return {"log": self._log, "costs": list(self.costs), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where `state_dict` left off."""
        self._log, self.steps = float(state["log"]), int(state["steps"])
        self.costs.clear()
        self.costs.extend(state["costs"])
