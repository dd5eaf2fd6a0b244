"""The Lagrange multiplier by hand."""

from __future__ import annotations

import math

import pytest
import torch

from truing.train import losses as L


def test_one_update() -> None:
    multiplier = L.LagrangeMultiplier(2.0, 0.1, 0.5)
    multiplier.observe([1.0, 2.0])
    # log λ + lr·(mean cost - threshold)·λ
    assert multiplier.step() == pytest.approx(math.exp(math.log(2.0) + 0.1 * (1.5 - 0.5) * 2.0))


def test_without_an_observation_it_stays() -> None:
    multiplier = L.LagrangeMultiplier(1.0, 0.5, 0.0)
    assert multiplier.step() == 1.0
    assert math.isnan(multiplier.episode_cost)


def test_it_stays_within_its_bounds() -> None:
    multiplier = L.LagrangeMultiplier(1.0, 0.5, 0.0, maximum=2.0, minimum=0.5, window=2)
    multiplier.observe(torch.tensor([4.0, 4.0]))
    assert multiplier.step() == pytest.approx(2.0)
    assert multiplier.at_bound
    multiplier.observe([-9.0, -9.0])
    assert multiplier.episode_cost == -9.0  # the window holds the last two costs
    assert multiplier.step() == pytest.approx(0.5)
    assert multiplier.at_bound


def test_the_first_steps_are_delayed() -> None:
    multiplier = L.LagrangeMultiplier(1.0, 0.1, 0.0, delay=2)
    multiplier.observe([1.0])
    assert [multiplier.step(), multiplier.step()] == [1.0, 1.0]
    assert multiplier.step() > 1.0


def test_a_cost_that_is_not_finite_changes_nothing() -> None:
    multiplier = L.LagrangeMultiplier()
    with pytest.raises(ValueError, match="not finite"):
        multiplier.observe([1.0, float("nan")])
    assert not multiplier.costs


def test_the_state_is_restored() -> None:
    first = L.LagrangeMultiplier(1.0, 0.1, 0.0, window=3)
    first.observe([1.0, 2.0])
    first.step()
    second = L.LagrangeMultiplier(9.0, 0.1, 0.0, window=3)
    second.load_state_dict(first.state_dict())
    assert second.value == first.value
    assert second.step() == first.step()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="above 0"):
        L.LagrangeMultiplier(0.0)
    with pytest.raises(ValueError, match="window"):
        L.LagrangeMultiplier(1.0, window=0)
