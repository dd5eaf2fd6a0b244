"""Tail, categories, and what λ holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from truing.train.rl.constraint import Constraint, KLController, upper_tail  # noqa: E402
from truing.train.rl.settings import RLSettings  # noqa: E402


def settings(**given: object) -> RLSettings:
    return RLSettings(method="ppo-lag", out="", **given)  # type: ignore[arg-type]


def test_tail_by_hand() -> None:
    assert upper_tail([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.2) == (9, 9.5)
    assert upper_tail([5.0, 1.0], 0.5) == (5.0, 5.0)
    at, mean = upper_tail([4.0, 2.0, 0.0], 0.5)  # one and a half answers: (4 + 2/2) / 1.5
    assert at == 2.0 and mean == pytest.approx((4 + 1) / 1.5)
    assert math.isnan(upper_tail([], 0.1)[1])
    assert upper_tail([3.0] * 7, 0.1) == (3.0, 3.0)


def test_tail_of_a_normal_distribution() -> None:
    costs = np.random.default_rng(0).normal(size=200_000).tolist()
    at, mean = upper_tail(costs, 0.1)
    assert at == pytest.approx(1.2816, abs=0.02)
    assert mean == pytest.approx(1.7550, abs=0.02)  # φ(z) / α


def test_a_constraint_on_the_tail_sees_what_a_mean_hides() -> None:
    costs = torch.tensor([-1.0] * 19 + [8.0])
    mean, tail = (
        Constraint(settings(threshold=0.0)),
        Constraint(settings(threshold=0.0, constraint="cvar", tail=0.1)),
    )
    for c in (mean, tail):
        c.observe(costs, [("a",)] * 19 + [("b",)])
        c.step()
    assert mean.multiplier.value < 1 < tail.multiplier.value
    assert tail.multiplier.episode_cost == pytest.approx(3.5)
    assert float(tail.weighed(costs).mean()) == pytest.approx(3.5)  # E[VaR + (c - VaR)⁺/α] = CVaR
    row = mean.log(costs)
    assert row["cost_positive"] == pytest.approx(0.05)
    assert row["cost_cvar10"] == pytest.approx(3.5)
    assert (row["worst_category"], row["worst_category_cost"]) == ("b", 8.0)
    assert row["cost_mean"] == pytest.approx(-0.55)


def test_state_comes_back() -> None:
    one, two = Constraint(settings(window=3)), Constraint(settings(window=3))
    one.observe(torch.tensor([1.0, 2.0, 3.0, 4.0]), [("a",), ("a",), ("b",), ()])
    one.step()
    two.load_state_dict(one.state_dict())
    assert list(two.multiplier.costs) == [2.0, 3.0, 4.0]
    assert two.step() == one.step()
    assert two.log(torch.tensor([1.0])) == one.log(torch.tensor([1.0]))


def test_shaping_keeps_its_price() -> None:
    c = Constraint(RLSettings(method="reward-shaping", out="", nu=0.7))
    c.observe(torch.tensor([9.0]))
    assert c.step() == 0.7 == c.log(torch.tensor([9.0]))["lambda"]


def test_adaptive_kl_follows_its_target() -> None:
    k = KLController(settings(kl=0.1, kl_target=6.0, kl_horizon=1000))
    k.update(12.0, 100)
    assert k.value == pytest.approx(0.1 * (1 + 0.2 * 0.1))  # the error 1 is clipped to 0.2
    k.update(5.4, 100)
    assert k.value == pytest.approx(0.1 * 1.02 * (1 - 0.1 * 0.1))
    fixed = KLController(settings(kl=0.1))
    fixed.update(100.0, 100)
    assert fixed.value == 0.1
