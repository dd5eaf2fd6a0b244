"""PID control of log λ: it settles where plain gradient ascent on λ runs into a limit cycle."""

from __future__ import annotations

import math
from typing import Any

_SCALE_SMOOTHING = 0.9  # share of the past in the running scale, per rollout
_ERROR_SMOOTHING = 0.8  # share of the past in the smoothed error, per rollout
# The gains per unit of `lr`. Fitted to a model of the policy's response and then measured on tasks
# with a known optimum (docs/log/2026-11-29-lambda-pid.md, benchmarks/rlhf/synthetic.py).
_PROPORTIONAL, _INTEGRAL, _DERIVATIVE = 1.5, 0.1, 3.0
_PATIENCE = 15  # rollouts without progress after which the integral speeds up
_MOST_SPEED = 10.0
_LOG_CEILING = math.log(1e6)  # without `maximum`: the reward has no weight any more
_LOG_FLOOR = math.log(1e-3)  # λ of a slack constraint: as good as 0, and it can still rise again


class PIDController:
    """log λ = ∫ + lr·(1.5·e + 3·Δe) (PID of Stooke et al. 2020, 2007.03964, in log space).

    e is the violation of the threshold, divided by the running root mean square of cost - threshold
    and clipped to [-1, 1], so that the same gains serve costs of any unit. The integral ∫ starts at
    log λ₀ and changes by lr·e/10 in each rollout, up to ten times faster while e keeps its sign and
    does not fall (a constraint that is slack, or far from met). The two other terms take an e that
    is smoothed over about five rollouts, because they pass the noise of single rollouts on to λ.

    An integral alone oscillates: the policy keeps moving while λ is wrong, so that cost and λ are
    a quarter of a cycle apart. The proportional term damps this, the derivative damps the lag of
    optimiser and critics. Larger gains make a cycle of their own with a policy that follows λ fast,
    smaller ones damp too little where it follows slowly.
    """

    def __init__(
        self,
        init: float,
        lr: float,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        self.lr = lr
        self.low = math.log(minimum) if minimum else min(_LOG_FLOOR, math.log(init))
        self.high = math.log(maximum) if maximum else max(_LOG_CEILING, math.log(init))
        self._integral_term = math.log(init)
        self._mean_square = math.nan
        self._error = math.nan
        self._peak = 0.0
        self._stalled = 0

    def update(self, violation: float, mean_square: float) -> float:
        """Returns the new log λ, after a rollout.

        `violation` is the constrained quantity minus its threshold, and `mean_square` the mean of
        (cost - threshold)² over the rollout.
        """
        self._mean_square = _moving_average(self._mean_square, mean_square, _SCALE_SMOOTHING)
        scale = math.sqrt(self._mean_square)
        error = min(max(violation / scale, -1.0), 1.0) if scale > 0 else 0.0
        previous = self._error
        self._error = _moving_average(previous, error, _ERROR_SMOOTHING)
        change = 0.0 if math.isnan(previous) else self._error - previous

        other_terms = self.lr * (_PROPORTIONAL * self._error + _DERIVATIVE * change)
        speed = min(max(self._count_stalled(previous) / _PATIENCE, 1.0), _MOST_SPEED)
        # The integral never runs past a bound, or λ would stay there long after the error turned.
        raised = self._integral_term + self.lr * _INTEGRAL * speed * error
        self._integral_term = min(max(raised, self.low), self.high)
        return min(max(self._integral_term + other_terms, self.low), self.high)

    def _count_stalled(self, previous: float) -> int:
        """Returns how many rollouts the smoothed error has kept its sign without falling."""
        size = abs(self._error)
        if self._error * previous > 0 and size >= 0.8 * self._peak:
            self._peak = max(self._peak, size)
            self._stalled += 1
        else:
            self._peak, self._stalled = size, 0
        return self._stalled

    def state_dict(self) -> dict[str, float]:
        """Returns what a resumed run needs."""
        return {
            "integral": self._integral_term,
            "mean_square": self._mean_square,
            "error": self._error,
            "peak": self._peak,
            "stalled": self._stalled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._integral_term = float(state["integral"])
        self._mean_square = float(state["mean_square"])
        self._error = float(state["error"])
        self._peak = float(state["peak"])
        self._stalled = int(state["stalled"])


def _moving_average(average: float, value: float, memory: float) -> float:
    """Returns the exponential moving average after one more value; the first is taken as it is."""
    return value if math.isnan(average) else memory * average + (1 - memory) * value
