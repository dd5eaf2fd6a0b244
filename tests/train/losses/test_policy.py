"""KL estimates, token rewards, GAE and the clipped losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.train import losses as L


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=8))
def test_k3_is_never_negative_and_k2_is_half_the_square(log_ratios: list[float]) -> None:
    x = torch.tensor(log_ratios, dtype=torch.float64)
    assert bool((L.kl_estimate(x, "k3") >= -1e-12).all())
    torch.testing.assert_close(L.kl_estimate(x, "k2"), x * x / 2)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind: str) -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    log_ratio = (p / q).log()
    exact_kl = float((p * log_ratio).sum())
    expectation = (p * L.kl_estimate(log_ratio, kind)).sum()  # type: ignore[arg-type]
    assert float(expectation) == pytest.approx(exact_kl, rel=1e-12)


def test_unknown_kl_estimate() -> None:
    with pytest.raises(ValueError, match="none of k1"):
        L.kl_estimate(torch.zeros(1), "k4")  # type: ignore[arg-type]


def token_rewards(**options: object) -> list[float]:
    """Token rewards of one answer of two tokens and one of padding, score 3."""
    rewards = L.kl_penalised_rewards(
        torch.tensor([[-1.0, -1.0, 0.0]]),
        torch.tensor([[-2.0, -1.0, 0.0]]),
        torch.tensor([3.0]),
        torch.tensor([[1, 1, 0]]),
        coefficient=0.5,
        **options,  # type: ignore[arg-type]
    )
    return rewards[0].tolist()  # type: ignore[no-any-return]


def test_token_rewards_are_the_kl_penalty_and_the_score_at_the_end() -> None:
    assert token_rewards() == [-0.5, 3.0, 0.0]
    assert token_rewards(place="next") == [-0.5, 0.0, 3.0]
    assert token_rewards(clip=2.0) == [-0.5, 2.0, 0.0]
    assert token_rewards(sign=-1) == [0.5, 3.0, 0.0]
    with pytest.raises(ValueError, match="sign is"):
        token_rewards(sign=2)


def test_gae_with_lambda_1_is_the_return_minus_the_value() -> None:
    values, rewards = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = L.gae(values, rewards, torch.ones(1, 3), 0, gamma=1.0, lam=1.0)
    assert returns.tolist()[0] == pytest.approx([6.0, 5.0, 3.0])
    assert advantages.tolist()[0] == pytest.approx([5.5, 4.8, 2.9])


def test_gae_with_lambda_0_is_the_temporal_difference() -> None:
    values, rewards = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantages, _ = L.gae(values, rewards, torch.ones(1, 3), 1, gamma=0.5, lam=0.0)
    assert advantages.tolist()[0] == pytest.approx([2 + 0.5 * 0.1 - 0.2, 3 - 0.1])


def test_gae_without_positions() -> None:
    values = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="behind the last"):
        L.gae(values, values, torch.ones(1, 3), 3)


def test_the_value_loss_is_the_larger_of_clipped_and_unclipped() -> None:
    values, old_values, returns = torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.zeros(1, 1)
    mask = torch.ones(1, 1)
    assert float(L.critic_loss(values, old_values, returns, mask, clip=None)) == 4.5
    assert float(L.critic_loss(values, old_values, returns, mask, clip=0.5)) == 4.5
    # The value has moved towards its target by more than the clip range.
    towards = torch.tensor([[0.0]])
    loss = L.critic_loss(towards, old_values, returns, mask, clip=0.5)
    assert float(loss) == 0.5 * 0.5**2


def test_combined_and_separate_surrogates_agree_while_no_ratio_is_clipped() -> None:
    torch.manual_seed(2)
    old_log_probs, mask = -torch.rand(2, 4), torch.ones(2, 4)
    log_probs = old_log_probs + 0.01 * torch.randn(2, 4)
    reward, cost = torch.randn(2, 4), torch.randn(2, 4)
    combined = L.combined_advantage(reward, cost, 2.0)
    expected = L.ppo_actor_loss(log_probs, old_log_probs, combined, mask)
    for side in ("min", "max"):
        separate = L.separate_actor_loss(
            log_probs,
            old_log_probs,
            (reward, cost),
            2.0,
            mask,
            cost_side=side,  # type: ignore[arg-type]
        )
        torch.testing.assert_close(separate, expected)


@pytest.mark.parametrize(("side", "cost_objective"), [("min", 1.2), ("max", 1.5)])
def test_sides_of_a_clipped_cost(side: str, cost_objective: float) -> None:
    log_probs, one = torch.full((1, 1), math.log(1.5)), torch.ones(1, 1)
    loss = L.separate_actor_loss(
        log_probs,
        torch.zeros(1, 1),
        (torch.zeros(1, 1), one),
        1.0,
        one,
        cost_side=side,  # type: ignore[arg-type]
    )
    assert float(loss) == pytest.approx(cost_objective / 2, rel=1e-6)
