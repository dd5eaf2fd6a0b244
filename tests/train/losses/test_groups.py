"""Group advantages and the GRPO loss by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from truing.train import losses as L

REWARDS = torch.tensor([1.0, 3.0, 0.0, 0.0])


def test_grpo_advantages() -> None:
    assert L.group_advantages(REWARDS, None, 2, scale="none").tolist() == [-1.0, 1.0, 0.0, 0.0]
    scaled = 1 / (math.sqrt(2.0) + 1e-4)
    advantages = L.group_advantages(REWARDS, None, 2).tolist()
    assert advantages == pytest.approx([-scaled, scaled, 0, 0])
    assert L.group_advantages(torch.tensor([5.0]), None, 1).tolist() == [0.0]


def test_grpo_advantages_scaled_by_the_batch() -> None:
    scaled = 1 / (math.sqrt(2.0) + 1e-4)  # the variance of all four rewards is 2
    advantages = L.group_advantages(REWARDS, None, 2, scale="batch").tolist()
    assert advantages == pytest.approx([-scaled, scaled, 0, 0])


def test_rloo_advantages_are_against_the_mean_of_the_others() -> None:
    rewards = torch.tensor([1.0, 3.0, 8.0])
    advantages = L.group_advantages(rewards, None, 3, kind="rloo").tolist()
    assert advantages == [1 - 5.5, 3 - 4.5, 8 - 2.0]


def test_a_reward_function_that_does_not_apply_counts_as_0() -> None:
    rewards = torch.tensor([[1.0, float("nan")], [3.0, 2.0]])
    weights = torch.tensor([1.0, 0.5])
    assert L.group_advantages(rewards, weights, 2, scale="none").tolist() == [-1.5, 1.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 3}, "no whole groups of 3"),
        ({"n": 2, "kind": "ppo"}, "neither 'grpo' nor 'rloo'"),
        ({"n": 2, "scale": "row"}, "none of 'group'"),
        ({"n": 1, "kind": "rloo"}, "at least two answers"),
        ({"n": 2, "kind": "rloo", "scale": "group"}, "neither 'batch' nor 'none'"),
    ],
)
def test_bad_arguments_of_group_advantages(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        L.group_advantages(REWARDS, None, **arguments)


def test_without_old_log_probs_the_gradient_is_that_of_the_log_probability() -> None:
    logps = torch.full((2, 2), -1.0, requires_grad=True)
    advantages, mask = torch.tensor([1.0, -1.0]), torch.tensor([[1, 1], [1, 0]])
    loss = L.grpo_loss(logps, None, None, advantages, mask)
    assert float(loss.detach()) == pytest.approx(0.0)
    assert torch.autograd.grad(loss, logps)[0].tolist() == [[-0.25, -0.25], [0.5, 0.0]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("grpo", -(2 + 5) / 2),
        ("bnpo", -(2 + 2 + 5) / 3),
        ("dapo", -(2 + 2 + 5) / 3),
        ("dr_grpo", -(2 + 2 + 5) / (2 * 4)),
        ("rloo", -(2 + 5) / 2),
    ],
)
def test_aggregation(kind: str, expected: float) -> None:
    logps = torch.zeros(2, 2)
    advantages, mask = torch.tensor([2.0, 5.0]), torch.tensor([[1, 1], [1, 0]])
    loss = L.grpo_loss(logps, None, None, advantages, mask, kind=kind, length=4)
    assert float(loss) == pytest.approx(expected)


def test_rloo_takes_the_sums_of_answers() -> None:
    """TRL keeps `[B]` sums of the old log-probabilities; padding may hold anything."""
    logps = torch.tensor([[-1.0, -0.5], [-2.0, -7.0]], requires_grad=True)
    old = torch.tensor([[-1.1, -0.3], [-2.5, float("-inf")]])
    advantages, mask = torch.tensor([1.0, -0.5]), torch.tensor([[1, 1], [1, 0]])
    by_token = L.grpo_loss(logps, old, None, advantages, mask, kind="rloo")
    sums = torch.tensor([-1.4, -2.5])
    by_answer = L.grpo_loss(logps, sums, None, advantages, mask, kind="rloo")
    ratios = [math.exp(-1.5 + 1.4), math.exp(-2.0 + 2.5)]
    # The second ratio is above 1 + 0.2, but its advantage is negative: not clipped.
    expected = -(ratios[0] * 1.0 + ratios[1] * -0.5) / 2
    assert float(by_token.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(by_answer.detach()) == pytest.approx(expected, rel=1e-5)
    gradient = torch.autograd.grad(by_answer, logps)[0]
    assert gradient.flatten().tolist() == pytest.approx(
        [-ratios[0] / 2, -ratios[0] / 2, ratios[1] / 4, 0.0], rel=1e-5
    )
    policy_sums = torch.tensor([-1.5, -2.0])
    all_sums = L.grpo_loss(policy_sums, sums, None, advantages, mask, kind="rloo")
    assert float(all_sums) == pytest.approx(expected, rel=1e-5)


def test_bad_arguments_of_grpo_loss() -> None:
    logps = torch.zeros(2, 2)
    arguments = (logps, None, None, torch.ones(2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="ref_log_probs"):
        L.grpo_loss(*arguments, beta=0.1)
    with pytest.raises(ValueError, match="of tokens"):
        L.grpo_loss(torch.zeros(2, 2), torch.zeros(2), None, torch.ones(2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="none of grpo"):
        L.grpo_loss(*arguments, kind="ppo")
    with pytest.raises(TypeError, match="epsilom"):
        L.grpo_loss(*arguments, epsilom=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.25, 1.0, 1.25),  # within 1 + 0.28
        (1.5, 1.0, 1.28),  # clipped at the upper limit
        (1.5, -1.0, -1.5),  # a bad answer that grew is pulled back
        (0.7, -1.0, -0.8),  # the lower limit stays 1 - 0.2
        (0.7, 1.0, 0.7),
    ],
)
@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_clip_higher_has_its_own_upper_limit(
    ratio: float, advantage: float, expected: float, kind: str
) -> None:
    logps = torch.full((1, 1), math.log(ratio))
    loss = L.grpo_loss(
        logps,
        torch.zeros(1, 1),
        None,
        torch.tensor([advantage]),
        torch.ones(1, 1),
        epsilon=0.2,
        epsilon_high=0.28,
        kind=kind,
    )
    assert float(loss) == pytest.approx(-expected, rel=1e-6)
    ppo = L.ppo_actor_loss(
        logps,
        torch.zeros(1, 1),
        torch.tensor([[advantage]]),
        torch.ones(1, 1),
        clip=0.2,
        clip_high=0.28,
    )
    assert float(ppo) == pytest.approx(-expected, rel=1e-6)


def test_gspo_takes_the_geometric_mean_of_an_answers_ratios() -> None:
    logps = torch.tensor([[0.3, -0.1, 9.0], [0.2, 9.0, 9.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    advantages = torch.tensor([2.0, -1.0])
    options = {"epsilon": 0.05, "level": "sequence"}
    loss = L.grpo_loss(logps, torch.zeros(2, 3), None, advantages, mask, **options)  # type: ignore[arg-type]
    # exp((0.3 - 0.1) / 2) is clipped to 1.05; the second answer has a negative advantage.
    second = math.exp(0.2)
    assert float(loss.detach()) == pytest.approx(-(2 * 1.05 - second) / 2, rel=1e-6)
    gradient = torch.autograd.grad(loss, logps)[0]
    assert gradient.tolist() == [[0, 0, 0], [pytest.approx(second / 2, rel=1e-6), 0, 0]]
    wide = L.grpo_loss(logps, torch.zeros(2, 3), None, advantages, mask, level="sequence")
    first = math.exp(0.1)
    gradient = torch.autograd.grad(wide, logps)[0]
    # Each token of an answer has the same gradient, s·A / |y|, whatever its own ratio.
    assert gradient[0].tolist() == pytest.approx([-first / 2, -first / 2, 0.0], rel=1e-6)


def test_gspo_and_grpo_agree_on_answers_of_one_token() -> None:
    logps, old = torch.tensor([[0.3], [-0.4]]), torch.zeros(2, 1)
    arguments = (logps, old, None, torch.tensor([1.0, -2.0]), torch.ones(2, 1))
    assert float(L.grpo_loss(*arguments, level="sequence")) == float(L.grpo_loss(*arguments))


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_importance_weights_multiply_the_surrogate_and_not_the_kl(kind: str) -> None:
    logps = torch.full((1, 2), -1.0)
    arguments = (logps, logps, logps - 0.5, torch.tensor([3.0]), torch.ones(1, 2))
    weights = torch.tensor([[0.5, 1.5]])
    loss = L.grpo_loss(*arguments, kind=kind, beta=0.1, weights=weights, length=2)
    k3 = math.exp(-0.5) - 1 + 0.5
    assert float(loss) == pytest.approx(-3.0 * (0.5 + 1.5) / 2 + 0.1 * k3, rel=1e-6)


def test_importance_weights_are_truncated() -> None:
    old = torch.tensor([[0.0, -1.0, 5.0]], requires_grad=True)
    sampler = torch.tensor([[-0.5, -0.5, float("-inf")]])
    mask = torch.tensor([[1, 1, 0]])
    weights = L.importance_weights(old, sampler, mask, cap=1.5)
    assert weights.tolist() == [[1.5, pytest.approx(math.exp(-0.5)), 1.0]]
    assert not weights.requires_grad


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="neither 'token' nor 'sequence'"):
        L.grpo_loss(torch.zeros(1, 1), None, None, torch.ones(1), torch.ones(1, 1), level="row")
