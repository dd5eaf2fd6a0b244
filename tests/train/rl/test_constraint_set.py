"""Several constraints: windows and λ apart, log keys, state, properties of the objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sample
from truing.train import losses as L
from truing.train.rl.constraint import CostConstraint
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.constraint_settings import ConstraintSettings
from truing.train.rl.reward_signals import GlobalScores
from truing.train.rl.settings import RLSettings

LIMITS = (
    ConstraintSettings(name="harm", threshold=0.0, kind="cvar", tail=0.5),
    ConstraintSettings(name="refusal", threshold=1.0, lambda_init=0.5),
)
finite = st.floats(-100, 100)
multipliers = st.floats(0, 1e6)


def two_constraints(**changes: Any) -> ConstraintSet:
    settings = RLSettings(method="ppo-lag", out="", constraints=LIMITS, **changes)
    return ConstraintSet.from_settings(settings, costs=False)


def scores_of(harm: list[float], refusal: list[float], applies: Any = None) -> GlobalScores:
    costs = {"harm": torch.tensor(harm), "refusal": torch.tensor(refusal)}
    scored = torch.ones(len(harm), dtype=torch.bool)
    return GlobalScores(torch.zeros(len(harm)), costs, scored, applies or {})


def test_each_constraint_has_its_own_multiplier_and_kind() -> None:
    constraints = two_constraints()
    assert constraints.step() == {"harm": 1.0, "refusal": 0.5}
    # The mean harm is below 0, that of its worst half is not; refusals are far below 1.
    constraints.observe(scores_of([-9.0, 3.0], [-5.0, -5.0]))
    multipliers = constraints.step()
    assert multipliers["harm"] > 1.0
    assert multipliers["refusal"] < 0.5
    assert constraints.constrained_costs("harm", torch.tensor([-9.0, 3.0])).mean() == 3.0


def test_only_answers_under_a_constraint_enter_its_window() -> None:
    constraints = two_constraints()
    constraints.observe(
        scores_of([1.0, 2.0], [5.0, 6.0], {"refusal": torch.tensor([False, True])}),
        [Sample(conversation=Conversation.of("a"), id=k, harms=(k,)) for k in "ab"],
    )
    assert list(constraints.by_name["harm"].multiplier.costs) == [1.0, 2.0]
    assert list(constraints.by_name["refusal"].multiplier.costs) == [6.0]
    assert set(constraints.by_name["refusal"].costs_by_category) == {"b"}


def test_log_keys_have_names_and_the_first_constraint_the_plain_keys_too() -> None:
    constraints = two_constraints()
    scores = scores_of([1.0, 2.0], [5.0, 6.0], {"refusal": torch.tensor([False, False])})
    constraints.observe(scores)
    metrics = constraints.log_metrics(scores)
    assert metrics["lambda"] == metrics["lambda/harm"] != metrics["lambda/refusal"]
    assert metrics["cost_mean"] == metrics["cost_mean/harm"] == 1.5
    assert "cost_mean/refusal" not in metrics  # no answer of the step is under it
    lone = ConstraintSet([CostConstraint(RLSettings(method="ppo-lag", out=""))])
    one_cost = GlobalScores(torch.zeros(1), {"cost": torch.ones(1)}, torch.tensor([True]))
    lone.observe(one_cost)
    assert not [key for key in lone.log_metrics(one_cost) if "/" in key]


def test_the_state_is_restored_and_that_of_one_cost_has_its_older_form() -> None:
    first, second = two_constraints(), two_constraints()
    first.observe(scores_of([1.0, 2.0], [5.0, 6.0]))
    second.load_state_dict(first.state_dict())
    for constraints in (first, second):
        constraints.observe(scores_of([0.5, 0.1], [0.0, 0.2]))
    assert first.step() == second.step()
    settings = RLSettings(method="ppo-lag", out="")
    lone = ConstraintSet.from_settings(settings, costs=True)
    assert set(lone.state_dict()) == {"multiplier", "controller", "categories"}
    lone.load_state_dict(CostConstraint(settings).state_dict())


@given(finite, st.lists(st.tuples(finite, multipliers), max_size=4))
def test_the_objective_is_a_convex_combination(reward: float, costs: list[Any]) -> None:
    """It lies between the reward and minus each cost, so no λ makes a step too large."""
    combined = L.combined_advantages(
        torch.tensor(reward, dtype=torch.float64),
        [torch.tensor(cost, dtype=torch.float64) for cost, _ in costs],
        [multiplier for _, multiplier in costs],
    )
    sides = [reward, *(-cost for cost, _ in costs)]
    assert min(sides) - 1e-9 <= float(combined) <= max(sides) + 1e-9


@given(finite, finite, multipliers)
def test_one_constraint_is_the_lagrangian_of_safe_rlhf(
    reward: float, cost: float, multiplier: float
) -> None:
    pair = torch.tensor(reward), torch.tensor(cost)
    combined = L.combined_advantages(pair[0], [pair[1]], [multiplier])
    assert torch.equal(combined, L.combined_advantage(*pair, multiplier))


@given(finite, st.lists(st.tuples(finite, multipliers), min_size=2, max_size=4), st.randoms())
def test_the_order_of_the_constraints_does_not_matter(
    reward: float, costs: list[Any], random: Any
) -> None:
    def combine(pairs: list[Any]) -> float:
        advantages = [torch.tensor(cost, dtype=torch.float64) for cost, _ in pairs]
        total = torch.tensor(reward, dtype=torch.float64)
        return float(L.combined_advantages(total, advantages, [m for _, m in pairs]))

    shuffled = random.sample(costs, len(costs))
    assert combine(costs) == pytest.approx(combine(shuffled), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((LIMITS[0], LIMITS[0]), "'harm' is given twice"),
        ((ConstraintSettings(name="cost"),), "'cost' is given twice"),
        ((ConstraintSettings(name="a b"),), "letters, digits"),
        ((ConstraintSettings(name="a", threshold=float("nan")),), "a: threshold = nan"),
        ((ConstraintSettings(name="a", lambda_init=9.0),), "outside its bounds"),
        ((ConstraintSettings(name="a", lambda_min=2.0, lambda_max=None),), "bounds .2.0, inf."),
        ((ConstraintSettings(name="a", tail=0.0),), "a: tail = 0.0"),
    ],
)
def test_bad_constraints_are_refused(limits: Any, message: str) -> None:
    settings = RLSettings(method="ppo-lag", out="", constraints=limits)
    with pytest.raises(PlanError, match=message):
        settings.validated(costs=True)


def test_methods_without_a_multiplier_hold_no_constraint() -> None:
    with pytest.raises(PlanError, match="ppo holds no constraint"):
        RLSettings(method="ppo", out="", constraints=LIMITS).validated(costs=False)
