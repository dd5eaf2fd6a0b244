"""PID control of λ against a simulated policy whose cost follows λ with a lag."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.train.rl.pid import PIDController

THRESHOLD = 2.0


@dataclass
class SimulatedRun:
    """The path of λ and of the mean cost over the rollouts of a simulated policy."""

    multipliers: list[float]
    costs: list[float]

    def last_third(self) -> tuple[float, float]:
        """Returns the mean cost, and λ's range as a share of its mean."""
        count = len(self.costs) // 3
        multipliers = self.multipliers[-count:]
        mean = math.fsum(multipliers) / count
        return math.fsum(self.costs[-count:]) / count, (max(multipliers) - min(multipliers)) / mean


def simulate(
    controller: PIDController,
    *,
    seed: int = 0,
    steps: int = 300,
    unit: float = 1.0,
    low: float = 0.0,
    high: float = 8.0,
) -> SimulatedRun:
    """The cost falls while log λ is above log 1.2 and rises below it, three rollouts late.

    `unit` multiplies costs and threshold; `low` and `high` are the costs that the policy can reach.
    """
    rng = random.Random(seed)
    late = deque([0.0] * 3)
    cost, log_lambda = low + 0.1 * (high - low), 0.0
    run = SimulatedRun([], [])
    for _ in range(steps):
        late.append(log_lambda - math.log(1.2))
        cost = min(max(cost - 0.3 * late.popleft(), low), high)
        costs = [unit * rng.gauss(cost, 1.2) for _ in range(128)]
        mean = math.fsum(costs) / len(costs)
        square = math.fsum((c - unit * THRESHOLD) ** 2 for c in costs) / len(costs)
        log_lambda = controller.update(mean - unit * THRESHOLD, square)
        run.multipliers.append(math.exp(log_lambda))
        run.costs.append(cost)
    return run


@pytest.mark.parametrize("seed", range(5))
def test_an_active_constraint_settles(seed: int) -> None:
    cost, swing = simulate(PIDController(1.0, 0.1, maximum=5.0), seed=seed).last_third()
    assert cost == pytest.approx(THRESHOLD, rel=0.05)
    assert swing < 0.2


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_the_unit_of_the_cost_does_not_matter(unit: float) -> None:
    # Powers of two: scaling by them rounds nothing.
    first = simulate(PIDController(1.0, 0.1))
    assert simulate(PIDController(1.0, 0.1), unit=unit).multipliers == first.multipliers


def test_a_slack_constraint_lets_the_multiplier_go_to_zero() -> None:
    run = simulate(PIDController(1.0, 0.1), high=1.0)
    assert run.multipliers[-1] <= 0.01


def test_a_constraint_that_cannot_be_met_drives_the_multiplier_to_its_bound() -> None:
    run = simulate(PIDController(1.0, 0.1, maximum=5.0), low=4.0)
    assert run.multipliers[-1] == pytest.approx(5.0)


def test_the_multiplier_comes_back_from_its_bound() -> None:
    controller = PIDController(1.0, 0.1, maximum=5.0)
    simulate(controller, low=4.0)
    cost, _ = simulate(controller, steps=400).last_third()
    assert cost == pytest.approx(THRESHOLD, rel=0.1)


def test_costs_that_are_all_at_the_threshold_leave_the_multiplier() -> None:
    controller = PIDController(0.7, 0.1)
    assert math.exp(controller.update(0.0, 0.0)) == pytest.approx(0.7)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.0, 1e12)), min_size=2, max_size=40),
    st.integers(1, 39),
)
def test_bounds_hold_and_a_restored_controller_goes_on_bit_equal(
    rollouts: list[tuple[float, float]], cut: int
) -> None:
    first = PIDController(1.0, 0.1, minimum=0.5, maximum=5.0)
    for violation, spread in rollouts[:cut]:
        first.update(violation, violation**2 + spread)
    second = PIDController(1.0, 0.1, minimum=0.5, maximum=5.0)
    second.load_state_dict(first.state_dict())
    for violation, spread in rollouts[cut:]:
        log_lambda = first.update(violation, violation**2 + spread)
        assert second.update(violation, violation**2 + spread) == log_lambda
        assert math.log(0.5) <= log_lambda <= math.log(5.0)
