"""Groups that teach nothing are redrawn from other prompts, up to a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from truing.core.errors import PlanError
from truing.train.rl.dynamic_sampling import flat_groups
from truing.train.rl.reward_signals import (
    FunctionSignal,
    GlobalScores,
    RewardSignals,
)
from truing.train.rl.settings import RLSettings
from truing.train.training_log import read_log


def test_a_group_is_flat_if_its_scored_answers_score_alike() -> None:
    settings = RLSettings(method="grpo", out="", prompts=4, n=2)
    reward = torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 1.0, 9.0])
    cost = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0])
    scored = torch.tensor([True] * 7 + [False])
    scores = GlobalScores(reward, {"cost": cost}, scored)
    # The third group differs in its cost; of the fourth only one answer is scored.
    assert flat_groups(settings, scores) == [0, 3]


def test_costs_of_prompts_that_a_constraint_is_not_about_do_not_count() -> None:
    settings = RLSettings(method="grpo", out="", prompts=2, n=2)
    cost = torch.tensor([1.0, 2.0, 1.0, 2.0])
    applies = {"harm": torch.tensor([True, True, False, False])}
    everywhere = torch.ones(4, dtype=torch.bool)
    scores = GlobalScores(torch.zeros(4), {"harm": cost}, everywhere, applies)
    assert flat_groups(settings, scores) == [1]


def flat_prompt_signals(task: Any) -> RewardSignals:
    """Prompts with an odd number have a constant reward, all others that of the task."""

    def reward(rollout: Any) -> Any:
        even = [int(prompt.sample.id[1:]) % 2 == 0 for prompt in rollout.prompts]
        return torch.where(torch.tensor(even), task.reward(rollout), torch.tensor(1.0).double())

    return RewardSignals([FunctionSignal("half", reward)])


def test_flat_groups_are_replaced_by_other_prompts(make_trainer: Any, task: Any) -> None:
    changes = {"prompts": 8, "n": 4, "minibatch": 0, "signals": flat_prompt_signals(task)}
    plain = make_trainer("grpo", **changes).train_step()
    redrawn = make_trainer("grpo", dynamic_sampling=3, **changes).train_step()
    assert plain["flat_groups"] > 0
    assert redrawn["flat_groups"] < plain["flat_groups"]
    assert redrawn["redrawn_groups"] >= plain["flat_groups"]


def test_the_bound_is_kept_and_the_step_still_learns(make_trainer: Any) -> None:
    constant = RewardSignals(
        [FunctionSignal("flat", lambda rollout: torch.ones(len(rollout.texts)))]
    )
    metrics = make_trainer("grpo", dynamic_sampling=2, signals=constant).train_step()
    # Four prompts, redrawn twice, and none of them teaches anything.
    assert (metrics["redrawn_groups"], metrics["flat_groups"]) == (2.0, 1.0)


def test_a_redrawn_rollout_is_that_of_its_prompts(make_trainer: Any, task: Any) -> None:
    """Rows, texts, prompts, scores and log-probabilities stay together."""
    trainer = make_trainer(
        "grpo", prompts=8, n=2, dynamic_sampling=2, signals=flat_prompt_signals(task)
    )
    from truing.train.rl.dynamic_sampling import ScoredRollout
    from truing.train.rl.forward import answer_log_probs

    first = trainer.generate_rollout(0)
    drawn = trainer._redraw_flat_groups(ScoredRollout(first, *trainer.score_rollout(first)))
    rollout = drawn.rollout
    assert drawn.redrawn > 0
    assert rollout.global_rows == tuple(range(16))
    local, scores = trainer.signals.score_rollout(rollout), drawn.scores
    answered = torch.tensor([bool(text) for text in rollout.texts])
    special = torch.tensor(rollout.special)
    judged = answered & ~special
    assert torch.equal(local.reward[judged], scores.reward[judged])
    for row, prompt in enumerate(rollout.prompts):
        length = len(prompt.ids)
        start = rollout.answer_start
        assert tuple(rollout.input_ids[row, start - length : start].tolist()) == prompt.ids
        assert int(rollout.attention_mask[row, :start].sum()) == length
    with torch.no_grad():
        log_probs = answer_log_probs(trainer.models.trained["actor"], rollout)
    torch.testing.assert_close(log_probs, rollout.log_probs, rtol=1e-3, atol=1e-4)


def test_a_resumed_run_redraws_the_same(make_trainer: Any, task: Any, tmp_path: Path) -> None:
    changes = {"steps": 3, "save_every": 1, "dynamic_sampling": 2, "n": 3, "minibatch": 0}
    signals = flat_prompt_signals(task)
    make_trainer("grpo", out=str(tmp_path / "a"), signals=signals, **changes).run()
    make_trainer("grpo", out=str(tmp_path / "b"), signals=signals, **{**changes, "steps": 2}).run()
    make_trainer("grpo", out=str(tmp_path / "b"), signals=signals, **changes).run()
    logs = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in read_log(tmp_path / name)]
        for name in "ab"
    ]
    assert logs[0] == logs[1]


def test_methods_without_groups_have_none_to_redraw(make_trainer: Any) -> None:
    with pytest.raises(PlanError, match="are of rloo and grpo, not ppo"):
        make_trainer("ppo", dynamic_sampling=2)
