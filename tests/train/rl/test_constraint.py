"""The cost constraint: tail statistics, λ, categories, the KL controller."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from truing.train.rl.constraint import CostConstraint, KLController, var_and_cvar
from truing.train.rl.settings import RLSettings


def lagrangian_settings(**changes: object) -> RLSettings:
    return RLSettings(method="ppo-lag", out="", **changes)  # type: ignore[arg-type]


def test_var_and_cvar_by_hand() -> None:
    assert var_and_cvar([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.2) == (9, 9.5)
    assert var_and_cvar([5.0, 1.0], 0.5) == (5.0, 5.0)
    assert var_and_cvar([3.0] * 7, 0.1) == (3.0, 3.0)
    assert math.isnan(var_and_cvar([], 0.1)[1])


def test_cvar_counts_a_part_of_the_answer_at_the_boundary() -> None:
    var, cvar = var_and_cvar([4.0, 2.0, 0.0], 0.5)  # one and a half answers
    assert var == 2.0
    assert cvar == pytest.approx((4 + 2 / 2) / 1.5)


def test_rounding_does_not_move_the_boundary() -> None:
    costs = [float(k) for k in range(100)]
    assert 0.07 * 100 > 7  # in floating point
    assert var_and_cvar(costs, 0.07)[0] == 93.0


def test_cvar_of_a_normal_distribution() -> None:
    costs = np.random.default_rng(0).normal(size=200_000).tolist()
    var, cvar = var_and_cvar(costs, 0.1)
    assert var == pytest.approx(1.2816, abs=0.02)
    assert cvar == pytest.approx(1.7550, abs=0.02)  # φ(z) / α


def test_a_cvar_constraint_sees_what_a_mean_hides() -> None:
    costs = torch.tensor([-1.0] * 19 + [8.0])
    on_mean = CostConstraint(lagrangian_settings(threshold=0.0))
    on_tail = CostConstraint(lagrangian_settings(threshold=0.0, constraint="cvar", tail=0.1))
    for constraint in (on_mean, on_tail):
        constraint.observe(costs, [("a",)] * 19 + [("b",)])
        constraint.step()
    assert on_mean.multiplier.value < 1 < on_tail.multiplier.value
    assert on_tail.multiplier.episode_cost == pytest.approx(3.5)

    metrics = on_mean.log_metrics(costs)
    assert metrics["cost_mean"] == pytest.approx(-0.55)
    assert metrics["cost_positive"] == pytest.approx(0.05)
    assert metrics["cost_cvar10"] == pytest.approx(3.5)
    assert (metrics["worst_category"], metrics["worst_category_cost"]) == ("b", 8.0)


def test_the_mean_of_the_constrained_costs_is_the_constrained_quantity() -> None:
    costs = torch.tensor([-1.0] * 19 + [8.0])
    on_mean = CostConstraint(lagrangian_settings())
    on_tail = CostConstraint(lagrangian_settings(constraint="cvar", tail=0.1))
    for constraint in (on_mean, on_tail):
        constraint.observe(costs)
    assert torch.equal(on_mean.constrained_costs(costs), costs)
    # E[VaR + (c - VaR)⁺ / α] = CVaR
    assert float(on_tail.constrained_costs(costs).mean()) == pytest.approx(3.5)


def test_the_state_is_restored() -> None:
    first = CostConstraint(lagrangian_settings(window=3))
    first.observe(torch.tensor([1.0, 2.0, 3.0, 4.0]), [("a",), ("a",), ("b",), ()])
    first.step()
    second = CostConstraint(lagrangian_settings(window=3))
    second.load_state_dict(first.state_dict())
    assert list(second.multiplier.costs) == [2.0, 3.0, 4.0]
    for constraint in (first, second):
        constraint.observe(torch.tensor([0.5, 7.0]), [("a",), ("b",)])
    assert second.step() == first.step()
    costs = torch.tensor([1.0])
    assert second.log_metrics(costs) == first.log_metrics(costs)


def test_the_number_of_gradient_steps_does_not_move_the_multiplier() -> None:
    constraint = CostConstraint(lagrangian_settings(threshold=1.0))
    constraint.observe(torch.tensor([4.0, 2.0]))
    first = constraint.step()
    assert first > 1.0
    assert [constraint.step() for _ in range(5)] == [first] * 5


def test_by_gradient_each_step_moves_the_multiplier() -> None:
    constraint = CostConstraint(lagrangian_settings(threshold=1.0, lambda_control="gradient"))
    constraint.observe(torch.tensor([4.0, 2.0]))
    assert constraint.step() == pytest.approx(math.exp(0.2))
    assert constraint.step() > math.exp(0.4)


def test_during_the_delay_the_multiplier_stays() -> None:
    constraint = CostConstraint(lagrangian_settings(threshold=1.0, delay=2))
    for _ in range(2):
        constraint.observe(torch.tensor([4.0, 2.0]))
        assert constraint.step() == 1.0
    constraint.observe(torch.tensor([4.0, 2.0]))
    assert constraint.step() > 1.0


def test_reward_shaping_has_a_fixed_price() -> None:
    constraint = CostConstraint(RLSettings(method="reward-shaping", out="", nu=0.7))
    costs = torch.tensor([9.0])
    constraint.observe(costs)
    assert constraint.step() == 0.7
    assert constraint.log_metrics(costs)["lambda"] == 0.7


def test_adaptive_kl_follows_its_target() -> None:
    controller = KLController(lagrangian_settings(kl=0.1, kl_target=6.0, kl_horizon=1000))
    controller.update(12.0, 100)
    assert controller.value == pytest.approx(0.1 * (1 + 0.2 * 0.1))  # the error 1 is clipped
    controller.update(5.4, 100)
    assert controller.value == pytest.approx(0.1 * 1.02 * (1 - 0.1 * 0.1))
    controller.update(math.nan, 100)
    assert controller.value == pytest.approx(0.1 * 1.02 * (1 - 0.1 * 0.1))


def test_a_fixed_kl_coefficient_stays() -> None:
    controller = KLController(lagrangian_settings(kl=0.1))
    controller.update(100.0, 100)
    assert controller.value == 0.1
