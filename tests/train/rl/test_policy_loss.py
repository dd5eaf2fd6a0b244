"""The policy's loss by hand: ratio, clipping, λ, KL penalty. Parity: test_step_parity.py."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.train.rl.policy_loss import averages_over_tokens, policy_loss  # noqa: E402
from truing.train.rl.settings import RLSettings  # noqa: E402


def one_token_loss(settings: RLSettings, rollout: Any, ratio: float, *advantages: float) -> float:
    """The loss of answers of one token whose probability grew by `ratio`."""
    log_probs = rollout.log_probs + math.log(ratio)
    reward = torch.full(log_probs.shape, advantages[0])
    costs = {str(k): torch.full(log_probs.shape, cost) for k, cost in enumerate(advantages[1:])}
    multipliers = {name: 3.0 + k for k, name in enumerate(costs)}
    return float(policy_loss(settings, log_probs, rollout, (reward, costs), multipliers, 0.0))


def test_the_ratio_is_clipped_where_that_lowers_the_objective(make_rollout: Any) -> None:
    settings, rollout = RLSettings(method="ppo", out="", clip=0.2), make_rollout(("a",))
    assert one_token_loss(settings, rollout, 1.1, 2.0) == pytest.approx(-2.2, rel=1e-5)
    assert one_token_loss(settings, rollout, 1.5, 2.0) == pytest.approx(-2.4, rel=1e-5)
    assert one_token_loss(settings, rollout, 1.5, -2.0) == pytest.approx(3.0, rel=1e-5)


def test_the_cost_is_subtracted_with_the_multiplier(make_rollout: Any) -> None:
    settings, rollout = RLSettings(method="ppo-lag", out=""), make_rollout(("a",))
    expected = -(2.0 - 3.0 * 1.0) / (1 + 3.0)  # λ = 3
    assert one_token_loss(settings, rollout, 1.0, 2.0, 1.0) == pytest.approx(expected)
    two_costs = -(2.0 - 3.0 * 1.0 - 4.0 * 0.5) / (1 + 3.0 + 4.0)
    for surrogate in ("combined", "separate"):
        settings = RLSettings(method="ppo-lag", out="", surrogate=surrogate)  # type: ignore[arg-type]
        assert one_token_loss(settings, rollout, 1.0, 2.0, 1.0, 0.5) == pytest.approx(two_costs)


@pytest.mark.parametrize(
    ("method", "loss", "reduction", "by_token"),
    [
        ("ppo", "auto", "row", False),
        ("ppo", "auto", "token", True),
        ("grpo", "auto", "token", False),
        ("grpo", "dapo", "row", True),
        ("grpo", "bnpo", "row", False),
        ("rloo", "dapo", "row", False),
    ],
)
def test_unit_of_the_mean(method: Any, loss: Any, reduction: Any, by_token: bool) -> None:
    settings = RLSettings(method=method, out="", loss=loss, reduction=reduction)
    assert averages_over_tokens(settings) is by_token


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_the_kl_penalty_is_the_k3_estimate(make_rollout: Any, method: Any) -> None:
    settings = RLSettings(method=method, out="", kl_place="loss")
    rollout = make_rollout(("a",), ref_log_probs=torch.full((1, 1), -0.5))
    zero = torch.zeros(1) if method == "grpo" else torch.zeros(1, 1)
    loss = policy_loss(settings, rollout.log_probs, rollout, (zero, {}), {}, 0.1)
    k3 = math.exp(-0.5) - 1 + 0.5  # log π - log π_ref = 0.5
    assert float(loss) == pytest.approx(0.1 * k3, rel=1e-5)


def test_a_kl_penalty_needs_the_reference(make_rollout: Any) -> None:
    settings, rollout = RLSettings(method="ppo", out="", kl_place="loss"), make_rollout(("a",))
    zero = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="reference model"):
        policy_loss(settings, rollout.log_probs, rollout, (zero, {}), {}, 0.1)
