"""Advantages by hand: shaping, groups with unscored answers, whitening, selection."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from truing.distributed.process_group import ProcessGroup
from truing.train import losses as L
from truing.train.rl.advantages import (
    AdvantageBatch,
    Advantages,
    ScoreNormalizers,
    compute_advantages,
    group_relative_advantages,
    shape_rewards,
    whiten_over_processes,
)
from truing.train.rl.constraint import CostConstraint
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.reward_signals import GlobalScores
from truing.train.rl.settings import RLSettings

ALL_SCORED = torch.ones(4, dtype=torch.bool)


def test_reward_shaping_clips_the_reward_and_subtracts_the_cost(make_rollout: Any) -> None:
    settings = RLSettings(method="reward-shaping", out="", nu=0.5, clip_reward=2.0)
    rollout = make_rollout(("a", "b"), ended=(True, False))
    reward, cost = torch.tensor([5.0, -5.0]), torch.tensor([1.0, 4.0])
    shaped = shape_rewards(settings, reward, cost, rollout, cut_penalty=0.25)
    assert shaped.tolist() == [2.0 - 0.5, -2.0 - 2.0 - 0.25]


def test_other_methods_do_not_subtract_the_cost(make_rollout: Any) -> None:
    settings = RLSettings(method="ppo-lag", out="")
    rewards = torch.tensor([5.0]), torch.tensor([1.0])
    shaped = shape_rewards(settings, *rewards, make_rollout(("a",)), cut_penalty=0.0)
    assert shaped.tolist() == [5.0]


def test_an_unscored_answer_does_not_shift_the_baseline() -> None:
    settings = RLSettings(method="rloo", out="", n=3)
    rewards = torch.tensor([1.0, 3.0, 100.0])
    scored = torch.tensor([True, True, False])
    # The unscored answer counts as the mean 2: 1 - (3 + 2) / 2 and 3 - (1 + 2) / 2.
    advantages = group_relative_advantages(settings, rewards, scored)
    assert advantages.tolist() == [-1.5, 1.5, 0.0]


def test_the_baseline_of_a_step_is_the_mean_of_the_answers_that_count() -> None:
    settings = RLSettings(method="grpo", out="", n=2, baseline="step", scale="none")
    scores = torch.tensor([1.0, 1.0, 0.0, 0.0, 100.0, 100.0])
    counted = torch.tensor([True, True, True, True, False, False])
    # Within their groups all of them are alike. Four of six count: the loss divides by six.
    assert group_relative_advantages(settings, scores, counted).tolist() == [
        *(0.75, 0.75, -0.75, -0.75),
        *(0.0, 0.0),
    ]
    scaled = RLSettings(method="grpo", out="", n=2, baseline="step", scale="batch")
    advantages = group_relative_advantages(scaled, scores, counted)
    assert advantages[:4].std().item() == pytest.approx(1.5, abs=1e-3)


def test_the_weight_of_a_constraint_depends_on_the_answers_that_are_learned_from() -> None:
    settings = RLSettings(method="grpo", out="", n=2, baseline="step", scale="none")
    scores = torch.tensor([1.0, 0.0, 5.0, 1.0, 0.0, 9.0])
    scored = torch.tensor([True, True, True, True, True, False])
    applies = torch.tensor([True, True, False, True, True, False])
    advantages = group_relative_advantages(settings, scores, scored & applies, scored)
    # Five answers are learned from, four count: the mean over five is that over the four.
    assert advantages.tolist() == pytest.approx([0.625, -0.625, 0.0, 0.625, -0.625, 0.0])
    # The reward counts what is learned from: an unscored answer changes no weight.
    reward = group_relative_advantages(settings, scores, scored, scored)
    assert reward.tolist() == pytest.approx([-0.4, -1.4, 3.6, -0.4, -1.4, 0.0])


@pytest.mark.parametrize("counted_rows", [0, 1])
def test_fewer_than_two_answers_have_no_baseline(counted_rows: int) -> None:
    settings = RLSettings(method="rloo", out="", n=1, baseline="step")
    counted = torch.arange(4) < counted_rows
    assert group_relative_advantages(settings, torch.ones(4), counted).tolist() == [0.0] * 4


def test_one_answer_a_prompt_finds_the_best_arm_of_each_context() -> None:
    # A bandit of three contexts with a known best arm, one of them begun at 1 %.
    settings = RLSettings(method="grpo", out="", n=1, baseline="step", scale="none")
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([-4.6, 0.0, 1.0])
    for _ in range(300):
        right = torch.sigmoid(logits)
        is_right = torch.rand(3, generator=generator) < right
        advantages = group_relative_advantages(settings, is_right.float(), ALL_SCORED[:3])
        # The gradient of the log-probability of the drawn arm.
        logits = logits + advantages * (is_right.float() - right)
    assert torch.sigmoid(logits).min() > 0.9


def test_answers_of_a_prompt_that_are_all_wrong_are_pushed_by_the_baseline_of_a_step_alone() -> (
    None
):
    scores = torch.tensor([0.0, 0.0, 1.0, 0.0])
    advantages = {
        baseline: group_relative_advantages(
            RLSettings(method="grpo", out="", n=2, baseline=baseline, scale="none"),
            scores,
            ALL_SCORED,
        ).tolist()
        for baseline in ("group", "step")
    }
    assert advantages == {"group": [0.0, 0.0, 0.5, -0.5], "step": [-0.25, -0.25, 0.75, -0.25]}


def test_rloo_does_not_scale_by_group() -> None:
    settings = RLSettings(method="rloo", out="", n=2, scale="group")
    with pytest.raises(ValueError, match="rloo scales by"):
        group_relative_advantages(settings, torch.ones(4), ALL_SCORED)


def test_rloo_subtracts_the_kl_of_the_answer_from_its_reward(make_rollout: Any) -> None:
    settings = RLSettings(method="rloo", out="", prompts=1, n=2, kl=0.5)
    mask = torch.tensor([[1, 1], [1, 0]])
    rollout = make_rollout(
        ("a", "b"),
        answer_mask=mask,
        log_probs=torch.tensor([[-1.0, -1.0], [-1.0, 0.0]]),
        ref_log_probs=torch.tensor([[-2.0, -3.0], [-1.0, 0.0]]),
    )
    batch = compute_advantages(
        settings,
        rollout,
        GlobalScores(torch.tensor([2.0, 0.0]), {}, torch.tensor([True, True])),
        {},
        kl_coefficient=0.5,
        constraints=ConstraintSet([]),
        normalizers=ScoreNormalizers.from_settings(settings),
        processes=ProcessGroup(),
    )
    # rewards 2 - 0.5·(1 + 2) = 0.5 and 0
    assert batch.reward.advantages.tolist() == [0.5, -0.5]
    assert batch.costs == {}
    assert batch.critics == {}


def test_costs_of_a_group_method_get_advantages_of_their_own(make_rollout: Any) -> None:
    settings = RLSettings(method="grpo", out="", prompts=1, n=2, scale="none")
    batch = compute_advantages(
        settings,
        make_rollout(("a", "b"), ref_log_probs=torch.zeros(2, 1)),
        GlobalScores(
            torch.tensor([1.0, 3.0]),
            {"cost": torch.tensor([4.0, 0.0])},
            torch.tensor([True, True]),
        ),
        {},
        kl_coefficient=0.1,
        constraints=ConstraintSet([CostConstraint(settings)]),
        normalizers=ScoreNormalizers.from_settings(settings),
        processes=ProcessGroup(),
    )
    assert batch.reward.advantages.tolist() == [-1.0, 1.0]
    assert batch.costs["cost"].advantages.tolist() == [2.0, -2.0]


def test_only_the_policy_sees_whitened_advantages(make_rollout: Any) -> None:
    settings = RLSettings(method="ppo", out="", kl=0.0, whiten=True)
    values = torch.zeros(4, 1)
    batch = compute_advantages(
        settings,
        make_rollout(("a", "b", "c", "d"), ref_log_probs=torch.zeros(4, 1)),
        GlobalScores(torch.tensor([1.0, 2.0, 3.0, 4.0]), {}, ALL_SCORED),
        {"reward_critic": values},
        kl_coefficient=0.0,
        constraints=ConstraintSet([]),
        normalizers=ScoreNormalizers.from_settings(settings),
        processes=ProcessGroup(),
    )
    assert batch.reward.advantages.mean() == pytest.approx(0, abs=1e-6)
    assert batch.reward.advantages.std() == pytest.approx(1, abs=1e-5)
    targets = batch.critics["reward_critic"]
    assert targets.returns is not None
    assert targets.returns.flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    assert targets.values is values


class TwoEqualProcesses(ProcessGroup):
    """Two processes with the same values: a sum over processes is twice the local value."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 2

    def all_reduce(self, values: Any) -> Any:
        return values * 2


def test_whitening_over_processes_equals_whitening_all_rows() -> None:
    advantages = torch.tensor([[1.0, 3.0], [7.0, 99.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    expected = L.whiten(advantages.repeat(2, 1), mask.repeat(2, 1))[:2]
    whitened = whiten_over_processes(advantages, mask, TwoEqualProcesses())
    torch.testing.assert_close(whitened, expected)


def test_selection_cuts_token_advantages_and_not_answer_advantages() -> None:
    token_level = Advantages(torch.arange(6.0).reshape(2, 3))
    answer_level = Advantages(torch.tensor([7.0, 8.0]))
    reward, costs = AdvantageBatch(token_level, {"c": answer_level}).select([1], 2)
    assert reward.tolist() == [[3.0, 4.0]]
    assert costs["c"].tolist() == [8.0]


def test_normalizers_scale_costs_without_a_shift() -> None:
    settings = RLSettings(
        method="ppo-lag", out="", normalise_reward="running", normalise_cost="running"
    )
    normalizers = ScoreNormalizers.from_settings(settings)
    values = torch.tensor([1.0, 3.0], dtype=torch.float64)
    normalizers.update(GlobalScores(values, {"cost": values}, torch.tensor([True, True])))
    std = 2**0.5
    assert normalizers.reward(values).tolist() == pytest.approx([-1 / std, 1 / std])
    assert normalizers.costs["cost"](values).tolist() == pytest.approx([1 / std, 3 / std])


def test_unscored_answers_do_not_enter_the_statistics() -> None:
    settings = RLSettings(method="ppo", out="", normalise_reward="running")
    normalizers = ScoreNormalizers.from_settings(settings)
    nothing_scored = torch.tensor([False, False])
    normalizers.update(GlobalScores(torch.tensor([9.0, 9.0]), {}, nothing_scored))
    assert normalizers.reward.count.tolist() == [0]
