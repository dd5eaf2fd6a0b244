"""Reward and cost model losses by hand, and their bad input."""

from __future__ import annotations

import math

import pytest
import torch

from truing.train import losses as L


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


PAIRS = L.PairScores(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0]))
BRADLEY_TERRY = -(math.log(logistic(1.5)) + math.log(logistic(-2.0))) / 2


def test_reward_loss() -> None:
    assert float(L.reward_loss(PAIRS)) == pytest.approx(BRADLEY_TERRY, rel=1e-6)


def test_regularization_and_centring_of_the_reward_loss() -> None:
    mean_square = (4 + 0.25 + 1 + 1) / 4
    regularized = float(L.reward_loss(PAIRS, regularization=0.1))
    assert regularized == pytest.approx(BRADLEY_TERRY + 0.1 * mean_square, rel=1e-6)
    mean_squared_sum = (2.5**2 + 0) / 2
    centred = float(L.reward_loss(PAIRS, center=0.1))
    assert centred == pytest.approx(BRADLEY_TERRY + 0.1 * mean_squared_sum, rel=1e-6)


def test_margins_of_the_reward_loss() -> None:
    expected = -(math.log(logistic(0.5)) + math.log(logistic(-2.5))) / 2
    loss = float(L.reward_loss(PAIRS, margin=torch.tensor([1.0, 0.5])))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_the_token_level_starts_at_the_first_difference() -> None:
    pairs = L.PairScores(
        chosen=torch.tensor([[9.0, 2.0, 1.0]]),
        rejected=torch.tensor([[-9.0, 0.0, 0.0]]),
        chosen_mask=torch.tensor([[1, 1, 1]]),
        rejected_mask=torch.tensor([[1, 1, 0]]),
        chosen_ids=torch.tensor([[5, 6, 7]]),
        rejected_ids=torch.tensor([[5, 8, 0]]),
    )
    expected = -(math.log(logistic(2.0)) + math.log(logistic(1.0))) / 2
    assert pairs.spans() == [(1, 2)]
    assert float(L.reward_loss(pairs, level="token")) == pytest.approx(expected, rel=1e-6)


def test_a_cost_above_0_means_unsafe() -> None:
    signs = torch.tensor([[1, -1]])
    correct = L.cost_loss(L.PairScores(torch.tensor([-3.0]), torch.tensor([3.0])), signs)
    wrong = L.cost_loss(L.PairScores(torch.tensor([3.0]), torch.tensor([-3.0])), signs)
    terms = [logistic(6.0), logistic(3.0), logistic(3.0)]
    assert float(correct) == pytest.approx(-sum(map(math.log, terms)), rel=1e-5)
    assert float(wrong) == pytest.approx(float(correct) + 6 + 3 + 3, rel=1e-5)


def test_accuracies_count_ties_as_wrong() -> None:
    pairs = L.PairScores(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 3.0, -1.0]))
    assert float(pairs.accuracy()) == pytest.approx(1 / 3)
    assert float(pairs.accuracy(cost=True)) == pytest.approx(1 / 3)
    signs = torch.tensor([[-1, -1], [-1, -1], [1, 1]])
    assert float(pairs.sign_accuracy(signs)) == pytest.approx(5 / 6)  # a cost of 0 is wrong


def test_scores_per_token_need_masks_and_ids() -> None:
    pairs = L.PairScores(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="need their mask"):
        L.reward_loss(pairs)
    with pytest.raises(ValueError, match="chosen_ids"):
        L.reward_loss(pairs, level="token")


def test_bad_levels_and_signs() -> None:
    with pytest.raises(ValueError, match="neither 'sequence' nor 'token'"):
        L.cost_loss(PAIRS, torch.ones(2, 2), level="word")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every sign"):
        L.cost_loss(PAIRS, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="expected"):
        L.cost_loss(PAIRS, torch.ones(2))
