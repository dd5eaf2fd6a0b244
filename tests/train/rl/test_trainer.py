"""The loop on the tiny task: log, micro-batches, resume, warnings, stops, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from truing.core.errors import PlanError, RunError
from truing.train.losses import kl_penalised_rewards
from truing.train.rl.policy_models import POLICY, SeparateModels
from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
from truing.train.rl.settings import METHODS
from truing.train.rl.step_metrics import compute_step_metrics
from truing.train.rl.trainer import TrainerOptions
from truing.train.training_log import read_log

CONTRACT_KEYS = {"step", "loss", "reward_mean", "kl_k1", "kl_k3", "clip_fraction", "entropy"}
CONSTRAINT_KEYS = {"lambda", "cost_mean", "cost_positive", "cost_cvar10", "worst_category"}


def trained_weights(trainer: Any) -> list[Any]:
    models = trainer.models
    return [
        parameter.detach().clone()
        for role in (POLICY, *models.critics)
        for _, parameter in models.named_parameters(role)
    ]


def assert_equal_weights(left: list[Any], right: list[Any], **tolerance: float) -> None:
    assert left
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def run_warnings(trainer: Any) -> str:
    trainer.run()
    return " ".join(str(row.get("warning", "")) for row in read_log(trainer.settings.out))


def constant_signal(value: float) -> FunctionSignal:
    return FunctionSignal("flat", lambda rollout: torch.full((len(rollout.texts),), value))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_logs_the_keys_of_the_contract(make_trainer: Any, method: str) -> None:
    trainer = make_trainer(method)
    trainer.run()
    rows = list(read_log(trainer.settings.out))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) >= CONTRACT_KEYS
    if method != "ppo":
        assert set(rows[0]) >= CONSTRAINT_KEYS
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert all(math.isfinite(number) for number in numbers)
    assert rows[0]["kl_k1"] == pytest.approx(0, abs=1e-5)  # the policy is still the reference
    assert rows[1]["kl_k3"] > 0


@pytest.mark.parametrize("method", ["ppo-lag", "grpo", "rloo"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"reduction": "token", "whiten": True, "loss": "dapo", "surrogate": "separate"}],
)
def test_micro_batches_do_not_change_a_step(
    make_trainer: Any, method: str, changes: dict[str, Any]
) -> None:
    whole = make_trainer(method, dtype=torch.float64, micro=64, score_micro=64, **changes)
    split = make_trainer(method, dtype=torch.float64, micro=1, score_micro=3, **changes)
    whole.train_step()
    split.train_step()
    assert_equal_weights(trained_weights(whole), trained_weights(split), rtol=1e-7, atol=1e-9)


def test_the_logged_kl_is_the_kl_of_the_reward(make_trainer: Any) -> None:
    trainer = make_trainer("ppo", dtype=torch.float64, kl=0.3)
    trainer.train_step()
    rollout = trainer.generate_rollout(1)
    local_scores, scores = trainer.score_rollout(rollout)
    metrics = compute_step_metrics(
        trainer.settings, rollout, local_scores, scores, trainer.processes
    )
    token_rewards = kl_penalised_rewards(
        rollout.log_probs,
        rollout.ref_log_probs,
        scores.reward,
        rollout.answer_mask,
        coefficient=0.3,
    )
    penalty = scores.reward.mean() - (token_rewards * rollout.answer_mask).sum(-1).mean()
    assert metrics["kl_k1"] == pytest.approx(float(penalty) / 0.3, rel=1e-9)
    assert abs(metrics["kl_k1"]) > 1e-6


@pytest.mark.parametrize("method", ["ppo-lag", "grpo"])
def test_a_resumed_run_takes_the_same_next_steps(
    make_trainer: Any, method: str, tmp_path: Path
) -> None:
    changes = {
        "steps": 5,
        "save_every": 2,
        "kl_target": 1.0,
        "normalise_reward": "ema",
        "normalise_cost": "running",
    }
    uninterrupted = make_trainer(method, out=str(tmp_path / "uninterrupted"), **changes)
    uninterrupted.run()

    def interrupt(row: dict[str, Any]) -> None:
        if row["step"] == 3:  # one step after the checkpoint: it is repeated
            raise KeyboardInterrupt

    out = str(tmp_path / "resumed")
    with pytest.raises(KeyboardInterrupt):
        make_trainer(method, out=out, options=TrainerOptions(on_log=interrupt), **changes).run()
    resumed = make_trainer(method, out=out, **changes)
    resumed.run()

    assert_equal_weights(trained_weights(uninterrupted), trained_weights(resumed), rtol=0, atol=0)
    constraint_states = [t.training_state()["constraint"] for t in (uninterrupted, resumed)]
    assert constraint_states[0] == constraint_states[1]
    logs = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in read_log(folder)]
        for folder in (tmp_path / "uninterrupted", out)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 5


def test_a_run_with_other_settings_does_not_resume(make_trainer: Any) -> None:
    make_trainer("grpo", save_every=1).run()
    with pytest.raises(PlanError, match="other settings"):
        make_trainer("grpo", save_every=1, kl=0.5).run()
    with pytest.raises(PlanError, match="a grpo run, this one is ppo"):
        make_trainer("ppo", save_every=1).run()


def test_a_run_with_more_steps_resumes(make_trainer: Any) -> None:
    make_trainer("grpo", save_every=1).run()
    trainer = make_trainer("grpo", save_every=1, steps=3)
    trainer.run()
    assert [row["step"] for row in read_log(trainer.settings.out)] == [1, 2, 3]


def test_equal_rewards_warn(make_trainer: Any) -> None:
    trainer = make_trainer("grpo", signals=RewardSignals([constant_signal(1.0)]))
    assert "all rewards of the step are equal" in run_warnings(trainer)


@pytest.mark.parametrize(("cost", "warning"), [(5.0, "does not fall"), (-5.0, "does not bind")])
def test_costs_that_never_cross_the_threshold_warn(
    make_trainer: Any, task: Any, cost: float, warning: str
) -> None:
    trainer = make_trainer(
        "grpo",
        signals=RewardSignals([FunctionSignal("gold", task.reward)], [constant_signal(cost)]),
        steps=21,
        epochs=1,
        minibatch=0,
        lambda_max=None,
        lambda_lr=0.001,
    )
    assert warning in run_warnings(trainer)


def test_a_multiplier_at_its_bound_warns(make_trainer: Any, task: Any) -> None:
    signals = RewardSignals([FunctionSignal("gold", task.reward)], [constant_signal(5.0)])
    trainer = make_trainer("ppo-lag", signals=signals, lambda_max=1.01)
    assert "λ is at its bound" in run_warnings(trainer)


def test_unscored_answers_stop_the_run_before_an_update(make_trainer: Any) -> None:
    trainer = make_trainer("ppo", signals=RewardSignals([constant_signal(math.nan)]))
    before = trained_weights(trainer)
    with pytest.raises(RunError, match="never counts as safe"):
        trainer.run()
    assert_equal_weights(before, trained_weights(trainer), rtol=0, atol=0)


def test_a_few_unscored_answers_warn(make_trainer: Any) -> None:
    rewards = torch.tensor([math.nan] + [1.0, 2.0] * 3 + [0.0])
    signals = RewardSignals([FunctionSignal("some", lambda rollout: rewards)])
    warnings = run_warnings(make_trainer("grpo", signals=signals))
    assert "12% of the answers could not be scored" in warnings


def test_kl_step_limit_ends_the_passes_over_a_rollout(make_trainer: Any) -> None:
    trainer = make_trainer("ppo", epochs=8, lr=0.05, kl_step_limit=0.01)
    trainer.run()
    assert max(row["stopped_after"] for row in read_log(trainer.settings.out)) < 16


def test_kl_limit_ends_the_run_with_a_checkpoint(make_trainer: Any) -> None:
    trainer = make_trainer("ppo", steps=50, lr=0.01, kl_limit=0.5)
    trainer.run()
    rows = list(read_log(trainer.settings.out))
    last_step = rows[-1]["step"]
    assert last_step < 50
    assert "kl_limit" in rows[-1]["halted"]
    mark = Path(trainer.settings.out) / f"checkpoint-{last_step}" / "mark.json"
    assert json.loads(mark.read_text())["step"] == last_step


def test_pre_training_text_is_learned(make_trainer: Any) -> None:
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 1]])
    options = TrainerOptions(pretraining_batches=lambda step: (ids, torch.ones_like(ids), ids))
    trainer = make_trainer(
        "ppo", options=options, ptx=4.0, steps=25, lr=3e-3, epochs=1, minibatch=0
    )
    trainer.run()
    rows = list(read_log(trainer.settings.out))
    assert rows[-1]["ptx_loss"] < 0.6 * rows[0]["ptx_loss"]


def test_in_half_precision_the_policy_reads_the_answers_again(make_trainer: Any, task: Any) -> None:
    models = SeparateModels(
        task.model(0), task.tokenizer(), ("reward_critic",), compute_dtype=torch.bfloat16
    )
    metrics = make_trainer("ppo", models=models).train_step()
    assert 0 < metrics["drift"] < 0.05
    assert metrics["importance_mean"] == pytest.approx(1.0, abs=0.05)
    assert metrics["importance_cut"] == 0.0
    dtypes = {parameter.dtype for _, parameter in models.named_parameters(POLICY)}
    assert dtypes == {torch.float32}


def test_with_one_gradient_step_no_forward_pass_repeats_the_policy(
    make_trainer: Any, task: Any
) -> None:
    """The loss is that of recomputed log-probabilities; the drift is measured in the step."""
    losses = []
    for reuse in (True, False):
        models = SeparateModels(task.model(0), task.tokenizer(), compute_dtype=torch.bfloat16)
        trainer = make_trainer("grpo", models=models, epochs=1, minibatch=0, importance_cap=0.0)
        if not reuse:
            trainer.sampler.with_policy_log_probs = trainer.sampler.recompute_log_probs
        roles: list[str] = []
        compute = trainer.sampler.log_probs_of

        def note_role(role: str, rollout: Any, roles: Any = roles, compute: Any = compute) -> Any:
            roles.append(role)
            return compute(role, rollout)

        trainer.sampler.log_probs_of = note_role
        metrics = trainer.train_step()
        assert roles == (["reference"] if reuse else ["actor", "reference"])
        assert 0 < metrics["drift"] < 0.05
        assert metrics["kl_step"] == pytest.approx(0.0, abs=1e-6)
        losses.append(trained_weights(trainer))
    assert_equal_weights(*losses, rtol=1e-3, atol=2e-3)


def test_without_a_kl_penalty_there_is_no_pass_of_the_reference(
    make_trainer: Any, task: Any
) -> None:
    for method in ("ppo", "grpo"):
        trainer = make_trainer(method, kl=0.0)
        roles: list[str] = []
        trainer.sampler.log_probs_of = lambda role, rollout: roles.append(role)  # noqa: B023
        metrics = trainer.train_step()
        assert roles == []
        assert metrics["kl_k1"] is None
    limited = make_trainer("grpo", kl=0.0, kl_limit=5.0)
    assert limited.train_step()["kl_k1"] == pytest.approx(0.0, abs=1e-5)


def test_answers_that_were_cut_can_be_left_out_of_the_gradient(make_trainer: Any) -> None:
    rows = []
    for masked in (False, True):
        trainer = make_trainer("grpo", n=4, max_new=2, mask_truncated=masked)
        before = trained_weights(trainer)
        rollout = trainer.generate_rollout(0)
        scores = trainer.score_rollout(rollout)[1]
        cut = torch.tensor([not ended for ended in rollout.ended])
        assert bool(cut.any()) and not bool(cut.all())
        assert torch.equal(scores.learned(trainer.settings), ~cut if masked else scores.scored)
        trainer.train_step()
        rows.append([float((a - b).abs().sum()) for a, b in zip(before, trained_weights(trainer))])
    assert rows[0] != rows[1]
