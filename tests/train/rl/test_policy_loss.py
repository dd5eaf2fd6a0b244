"""The policy's loss by hand: ratio, clipping, λ, KL penalty. Parity: test_step_parity.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from truing.train.rl.policy_loss import (
    averages_over_tokens,
    policy_loss,
    policy_ratio,
    ratio_statistics,
)
from truing.train.rl.settings import RLSettings


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


def sampled_elsewhere(make_rollout: Any, on_policy: bool = False) -> Any:
    """One answer of two tokens, whose sampler gave probabilities e^-0.5 and e^1 times as high."""
    from dataclasses import replace

    old = torch.tensor([[-1.0, -2.0]])
    mask = torch.ones(1, 2, dtype=torch.long)
    rollout = make_rollout(("a",), answer_mask=mask, log_probs=old)
    sampler = old + torch.tensor([[-0.5, 1.0]])
    if on_policy:
        rollout = replace(rollout, log_probs=sampler)
    return replace(rollout, sampler_log_probs=sampler, on_policy=on_policy)


@pytest.mark.parametrize(("cap", "first"), [(2.0, math.exp(0.5)), (1.2, 1.2), (0.0, 1.0)])
def test_tokens_are_weighted_by_training_over_sampling(
    make_rollout: Any, cap: float, first: float
) -> None:
    rollout = sampled_elsewhere(make_rollout)
    second = math.exp(-1.0) if cap else 1.0
    for method, advantages in (("ppo", torch.full((1, 2), 3.0)), ("grpo", torch.tensor([3.0]))):
        settings = RLSettings(method=method, out="", importance_cap=cap)  # type: ignore[arg-type]
        loss = policy_loss(settings, rollout.log_probs, rollout, (advantages, {}), {}, 0.0)
        assert float(loss) == pytest.approx(-3.0 * (first + second) / 2, rel=1e-5)


def test_rloo_weights_the_whole_answer(make_rollout: Any) -> None:
    settings, rollout = RLSettings(method="rloo", out=""), sampled_elsewhere(make_rollout)
    advantages = (torch.tensor([3.0]), {})
    loss = policy_loss(settings, rollout.log_probs, rollout, advantages, {}, 0.0)
    assert float(loss) == pytest.approx(-3.0 * math.exp(0.5 - 1.0), rel=1e-5)


def test_in_one_step_the_policy_is_the_old_one(make_rollout: Any) -> None:
    """The same loss and gradient as with log-probabilities that were computed before."""
    settings = RLSettings(method="grpo", out="")
    results = []
    for on_policy in (True, False):
        rollout = sampled_elsewhere(make_rollout, on_policy)
        new = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        loss = policy_loss(settings, new, rollout, (torch.tensor([3.0]), {}), {}, 0.0)
        results.append((float(loss.detach()), torch.autograd.grad(loss, new)[0].tolist()))
    assert results[0] == results[1]


def test_statistics_of_the_ratios(make_rollout: Any) -> None:
    settings = RLSettings(method="grpo", out="", importance_cap=1.2, clip=0.2, clip_high=0.5)
    rollout = sampled_elsewhere(make_rollout)
    new = rollout.log_probs + torch.tensor([[math.log(1.4), math.log(0.7)]])
    clipped, kl, weights, cut, drift = ratio_statistics(settings, new, rollout).tolist()
    assert (clipped, cut) == (1.0, 1.0)  # 1.4 is within 1 + 0.5, 0.7 is below 1 - 0.2
    assert kl == pytest.approx(1.4 - 1 - math.log(1.4) + 0.7 - 1 - math.log(0.7), rel=1e-5)
    assert weights == pytest.approx(1.2 + math.exp(-1.0), rel=1e-5)
    assert drift == pytest.approx(1.5)


def test_the_ratio_of_gspo_and_rloo_is_that_of_answers() -> None:
    log_ratio, mask = torch.tensor([[0.2, 0.4, 9.0]]), torch.tensor([[1, 1, 0]])
    gspo = policy_ratio(RLSettings(method="grpo", out="", ratio_level="sequence"), log_ratio, mask)
    rloo = policy_ratio(RLSettings(method="rloo", out=""), log_ratio, mask)
    token = policy_ratio(RLSettings(method="grpo", out=""), log_ratio, mask)
    assert gspo[0].tolist() == pytest.approx([math.exp(0.3)] * 3)
    assert rloo[0].tolist() == pytest.approx([math.exp(0.6)] * 3)
    assert token[0].tolist() == pytest.approx([math.exp(0.2), math.exp(0.4), 1.0])
