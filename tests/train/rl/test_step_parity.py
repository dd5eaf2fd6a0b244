"""Whole RL steps (advantages, λ, losses) against the numbers that safe-rlhf and TRL log.

Runs all cases of the parity folder (`TRUING_PARITY`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from tests.train.parity_cases import assert_close, float64, load_cases

from truing.distributed.process_group import ProcessGroup
from truing.train import losses as L
from truing.train.rl.advantages import (
    ScoreNormalizers,
    compute_advantages,
    critic_advantages,
    group_relative_advantages,
)
from truing.train.rl.constraint import CostConstraint
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.policy_loss import policy_loss
from truing.train.rl.policy_models import CRITICS_BY_METHOD, POLICY
from truing.train.rl.reward_signals import GlobalScores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings
from truing.train.rl.update import PolicyUpdater


def make_rollout(
    mask: Any, old_log_probs: Any, ref_log_probs: Any = None, *, ids: Any = None, start: int = 0
) -> Rollout:
    """A rollout of answers that begin at column `start`, all of them ended."""
    count = len(mask)
    return Rollout(
        prompts=(None,) * count,  # type: ignore[arg-type]
        global_rows=tuple(range(count)),
        input_ids=mask if ids is None else ids,
        attention_mask=mask,
        answer_mask=mask[:, start:],
        log_probs=old_log_probs,
        ended=(True,) * count,
        texts=("",) * count,
        ref_log_probs=ref_log_probs,
    )


class StoredOutput(torch.nn.Module):
    """A model whose output is a parameter."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = torch.nn.Parameter(output.clone())


class StoredModels:
    """Policy models that return stored logits and values for the rows of one rollout."""

    tokenizer = None
    device = torch.device("cpu")

    def __init__(self, rollout_ids: Any, logits: Any, values: dict[str, Any]) -> None:
        self.rollout_ids = rollout_ids
        self.critics = tuple(values)
        self.models = {POLICY: StoredOutput(logits)}
        self.models |= {critic: StoredOutput(stored) for critic, stored in values.items()}

    def _stored_rows(self, ids: Any, role: str) -> Any:
        """Returns the stored output of `ids`: rows of the rollout, reordered and trimmed."""
        stored, width = self.models[role].output, ids.shape[1]
        for first in range(self.rollout_ids.shape[1] - width + 1):
            rows: list[int] = []
            window = self.rollout_ids[:, first : first + width]
            for row_ids in ids:
                matches = [
                    row
                    for row in range(len(window))
                    if row not in rows and torch.equal(window[row], row_ids)
                ]
                rows += matches[:1]
            if len(rows) == len(ids):
                return stored[rows][:, first : first + width]
        raise AssertionError("the micro-batch is no part of the rollout")

    @contextlib.contextmanager
    def active(self, role: str) -> Iterator[Any]:
        if role != POLICY:
            yield lambda ids, mask: self._stored_rows(ids, role)
            return

        def policy(*, input_ids: Any, logits_to_keep: int, **_: Any) -> Any:
            logits = self._stored_rows(input_ids, role)
            return SimpleNamespace(logits=logits[:, -logits_to_keep:])

        yield policy

    def named_parameters(self, role: str) -> Any:
        return list(self.models[role].named_parameters())


def step_settings(inputs: Any, method: str, count: int, micro: int) -> RLSettings:
    hyper = inputs["hyperparameters"]
    return RLSettings(
        method=method,  # type: ignore[arg-type]
        out="",
        prompts=count,
        kl=hyper["kl_coeff"],
        clip=hyper["clip_range_ratio"],
        clip_score=hyper["clip_range_score"],
        clip_value=hyper["clip_range_value"],
        gamma=hyper["gamma"],
        gae_lambda=hyper["gae_lambda"],
        micro=micro,
        lr=1e-12,
        nu=inputs.get("lambda_value", 1.0),
        lambda_init=inputs.get("lambda_init", 1.0),
        lambda_control="gradient",
        lambda_lr=inputs.get("lambda_lr", 0.1),
        lambda_max=inputs.get("lambda_max"),
        threshold=inputs.get("threshold", 0.0),
        clip_norm=0.0,
    )


def method_of(inputs: Any) -> str:
    if "lambda_value" in inputs:
        return "reward-shaping"
    return "ppo-lag" if "lambda_init" in inputs else "ppo"


@pytest.mark.parametrize("case", load_cases("rl_step_end_to_end"))
@pytest.mark.parametrize("micro", [1, 3, 64])
def test_a_step_matches_safe_rlhf(case: Any, micro: int) -> None:
    inputs, expected = case["inputs"], case["expected"]
    method, start = method_of(inputs), inputs["prompt_length"]
    rollout = make_rollout(
        torch.tensor(inputs["attention_mask"]),
        float64(inputs["old_log_probs"])[:, start - 1 :],
        float64(inputs["ref_log_probs"])[:, start - 1 :],
        ids=torch.tensor(inputs["input_ids"]),
        start=start,
    )
    mask, count = rollout.answer_mask, len(rollout.texts)
    settings = step_settings(inputs, method, count, micro)
    new_values = {"reward_critic": inputs["reward_critic_scores_now"]}
    old_values = {"reward_critic": inputs["old_reward_values"]}
    if method == "ppo-lag":
        new_values["cost_critic"] = inputs["cost_critic_scores_now"]
        old_values["cost_critic"] = inputs["old_cost_values"]
    models = StoredModels(
        rollout.input_ids,
        float64(inputs["actor_logits_now"]),
        {critic: float64(new_values[critic]) for critic in CRITICS_BY_METHOD[method]},
    )
    constraint, costs = CostConstraint(settings), {}
    if "cost" in inputs:
        costs = {"cost": float64(inputs["cost"])}
        window = inputs.get("episode_cost_window")
        constraint.observe(costs["cost"] if window is None else float64(window))
    scored = torch.ones(count, dtype=torch.bool)
    constraints = ConstraintSet([constraint] if costs else [])

    advantages = compute_advantages(
        settings,
        rollout,
        GlobalScores(float64(inputs["reward"]), costs, scored),
        {
            critic: float64(values)[:, start - 1 : start - 1 + mask.shape[1]] * mask
            for critic, values in old_values.items()
        },
        kl_coefficient=settings.kl,
        constraints=constraints,
        normalizers=ScoreNormalizers.from_settings(settings),
        processes=ProcessGroup(),
    )
    metrics = (
        PolicyUpdater(models, settings, ProcessGroup())  # type: ignore[arg-type]
        .update(
            rollout,
            advantages,
            learned=scored,
            step=0,
            kl_coefficient=settings.kl,
            constraints=constraints,
        )
        .means()
    )

    assert_close(metrics["actor_loss"], expected["train/actor_loss"])
    assert_close(metrics["reward_critic_loss"], expected["train/reward_critic_loss"])
    shaped = "shaped_" if "train/shaped_reward_advantage" in expected else ""
    assert_close(
        L.masked_mean(advantages.reward.advantages, mask),
        expected[f"train/{shaped}reward_advantage"],
    )
    if method == "ppo-lag":
        assert_close(constraint.multiplier.value, expected["train/lambda"])
        assert_close(constraint.multiplier.episode_cost, expected["train/episode_cost"])
        assert_close(metrics["cost_critic_loss"], expected["train/cost_critic_loss"])
        assert_close(
            L.masked_mean(advantages.costs["cost"].advantages, mask),
            expected["train/cost_advantage"],
        )
        returns = advantages.critics["cost_critic"].returns
        assert_close(L.masked_mean(returns, mask), expected["train/cost_return"])
    kl = ((rollout.log_probs - rollout.ref_log_probs) * mask).sum(-1).mean()
    assert_close(kl, expected["train/kl_divergence"])


@pytest.mark.parametrize("case", load_cases("actor_loss"))
def test_combined_and_separate_surrogate(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    new_log_probs = float64(inputs["log_probs"]).requires_grad_()
    rollout = make_rollout(torch.tensor(inputs["mask"]), float64(inputs["old_log_probs"]))
    settings = RLSettings(method="ppo-lag", out="", clip=inputs["clip_range_ratio"])
    reward = float64(inputs["reward_advantages"])
    both = (reward, {"cost": float64(inputs["cost_advantages"])})
    multipliers = {"cost": inputs["lambda"]}

    loss = policy_loss(settings, new_log_probs, rollout, both, multipliers, 0.0)
    assert_close(loss, expected["ppo_lag_loss"])
    gradient = torch.autograd.grad(loss, new_log_probs)[0]
    assert_close(gradient, expected["ppo_lag_dloss_dlog_probs"])

    reward_loss = policy_loss(settings, new_log_probs, rollout, (reward, {}), {}, 0.0)
    assert_close(reward_loss, expected["ppo_loss_on_reward_advantages"])
    if case.get("reference_only"):
        separate = replace(settings, surrogate="separate")
        loss = policy_loss(separate, new_log_probs, rollout, both, multipliers, 0.0)
        assert_close(loss, case["reference_only"]["paper_separate_clip_loss"])


@pytest.mark.parametrize("case", load_cases("lambda_update"))
def test_constraint_updates_the_multiplier(case: Any) -> None:
    inputs = case["inputs"]
    settings = RLSettings(
        method="ppo-lag",
        out="",
        lambda_init=inputs["lambda_init"],
        lambda_control="gradient",
        lambda_lr=inputs["lambda_lr"],
        threshold=inputs["threshold"],
        lambda_max=inputs["lambda_max"],
        window=inputs["episode_cost_window_size"],
        delay=inputs["lambda_update_delay_steps"],
    )
    constraint = CostConstraint(settings)
    expected_states = iter(case["expected"]["after_each_rl_step"])
    for batch in inputs["cost_batches"]:
        constraint.observe(float64(batch))
        for _ in range(inputs["update_iters"]):
            expected = next(expected_states)
            assert_close(constraint.step(), expected["lambda"])
            assert_close(constraint.multiplier.episode_cost, expected["episode_cost"])


@pytest.mark.parametrize("case", load_cases("gae"))
def test_gae_of_the_answer_columns_alone(case: Any) -> None:
    """Arrays that begin with the answer give what safe-rlhf computes from whole rows."""
    inputs, expected = case["inputs"], case["expected"]
    start = inputs["start"]
    advantages, returns = L.gae(
        float64(inputs["values"])[:, start:],
        float64(inputs["rewards"])[:, start:],
        torch.tensor(inputs["sequence_mask"])[:, start:],
        0,
        gamma=inputs["gamma"],
        lam=inputs["gae_lambda"],
    )
    assert_close(advantages, expected["advantages"])
    assert_close(returns, expected["returns"])


@pytest.mark.parametrize("case", load_cases("trl_grpo_rloo_loss"))
def test_group_losses_match_trl(case: Any) -> None:
    inputs, expected = case["inputs"], case["expected"]
    mask = torch.tensor(inputs["completion_mask"])
    new_log_probs = float64(inputs["token_logps"]).requires_grad_()
    ref = inputs.get("ref_token_logps")
    rollout = make_rollout(
        mask,
        float64(inputs.get("old_token_logps", inputs.get("old_logps"))),
        None if ref is None else float64(ref),
    )
    kind = inputs.get("loss_type")
    settings = RLSettings(
        method="grpo" if kind else "rloo",
        out="",
        n=2,
        clip=inputs["epsilon"],
        loss=kind or "auto",
        max_new=inputs.get("max_completion_length") or mask.shape[1],
    )
    advantages = (float64(inputs["advantages"]), {})
    kl_coefficient = inputs.get("beta") or 0.0
    loss = policy_loss(settings, new_log_probs, rollout, advantages, {}, kl_coefficient)
    assert_close(loss, expected["loss"])
    assert_close(torch.autograd.grad(loss, new_log_probs)[0], expected["dloss_dlogps"])


@pytest.mark.parametrize("case", load_cases("trl_group_advantages"))
def test_group_advantages_match_trl(case: Any) -> None:
    inputs = case["inputs"]
    n = inputs["num_generations"]
    if "rewards_per_func" in inputs:
        weights = float64(inputs["reward_weights"])
        rewards = (float64(inputs["rewards_per_func"]) * weights).nansum(1)
        settings = RLSettings(method="grpo", out="", n=n, scale=inputs["scale_rewards"])
    else:
        rewards = float64(inputs["rewards"])
        scale = "batch" if inputs["normalize_advantages"] else "none"
        settings = RLSettings(method="rloo", out="", n=n, scale=scale)
    scored = torch.ones(len(rewards), dtype=torch.bool)
    advantages = group_relative_advantages(settings, rewards, scored)
    assert_close(advantages, case["expected"]["advantages"])


@pytest.mark.parametrize("case", load_cases("kl_penalised_rewards"))
def test_kl_penalty_of_reward_and_cost(case: Any) -> None:
    """With λ_GAE = 1, γ = 1 and values of 0 the first return is the sum of the token rewards."""
    inputs, expected = case["inputs"], case["expected"]
    mask = torch.tensor(inputs["sequence_mask"])
    rollout = make_rollout(mask, float64(inputs["log_probs"]), float64(inputs["ref_log_probs"]))
    settings = RLSettings(
        method="ppo-lag", out="", clip_score=inputs["clip_range_score"], gae_lambda=1.0
    )
    for score, sign, name in (("reward", 1, "ppo_lag_rewards"), ("cost", -1, "ppo_lag_costs")):
        side = critic_advantages(
            settings,
            rollout,
            float64(inputs[score]),
            torch.zeros_like(rollout.log_probs),
            kl_coefficient=inputs["kl_coeff"],
            sign=sign,
        )
        assert side.returns is not None
        token_rewards = float64(expected[name]) * mask
        assert_close(side.returns[:, 0], token_rewards.sum(-1).tolist())
