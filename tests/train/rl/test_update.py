"""Parts of the update: minibatches, fractions, metrics, gradients that are not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from truing.core.errors import RunError
from truing.train.rl.policy_models import POLICY
from truing.train.rl.update import Minibatch, UpdateMetrics


def test_every_answer_is_in_one_minibatch_of_each_epoch(make_trainer: Any) -> None:
    updater = make_trainer("ppo", minibatch=4).updater
    epochs = [list(updater.shuffled_minibatches(8, 0, epoch)) for epoch in range(2)]
    for minibatches in epochs:
        assert [len(rows) for rows in minibatches] == [4, 4]
        assert sorted(row for rows in minibatches for row in rows) == list(range(8))
    assert epochs[0] != epochs[1]
    assert list(updater.shuffled_minibatches(8, 0, 1)) == epochs[1]


def test_one_minibatch_is_not_shuffled(make_trainer: Any) -> None:
    updater = make_trainer("ppo", minibatch=0).updater
    assert list(updater.shuffled_minibatches(8, 0, 0)) == [list(range(8))]


def test_fractions_of_the_micro_batches_sum_to_1(make_rollout: Any) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    rollout = make_rollout(("a", "b", "c"), answer_mask=mask)
    minibatch = Minibatch(rollout, [0, 1, 2], answers=3, tokens=6.0)
    micros = [rollout.select_rows([0]), rollout.select_rows([1, 2])]
    by_token = [minibatch.fraction(micro, by_token=True) for micro in micros]
    by_answer = [minibatch.fraction(micro, by_token=False) for micro in micros]
    assert by_token == [0.5, 0.5]
    assert by_answer == pytest.approx([1 / 3, 2 / 3])


def test_metrics_are_means_over_gradient_steps() -> None:
    metrics = UpdateMetrics()
    for loss in (1.0, 2.0, 6.0):
        metrics.add("actor_loss", loss)
    metrics.add("grad_norm", 5.0)
    assert metrics.means() == {"actor_loss": 3.0, "grad_norm": 5.0}


def test_a_gradient_that_is_not_finite_changes_no_weight(make_trainer: Any) -> None:
    trainer = make_trainer("ppo")
    parameters = [p for _, p in trainer.models.named_parameters(POLICY)]
    before = [parameter.detach().clone() for parameter in parameters]
    parameters[0].grad = torch.full_like(parameters[0], float("nan"))
    with pytest.raises(RunError, match="gradient of actor is not finite"):
        trainer.updater._optimizer_step(POLICY)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_learning_rates_follow_the_schedule_factor(make_trainer: Any) -> None:
    updater = make_trainer("ppo", lr=1e-3, critic_lr=1e-2).updater
    updater.set_learning_rates(0.5)
    rates = {role: o.param_groups[0]["lr"] for role, o in updater.optimizers.items()}
    assert rates == {"actor": 5e-4, "reward_critic": 5e-3}
