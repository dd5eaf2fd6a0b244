"""Validation, defaults and the digest of the RL settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.train.rl.settings import RLSettings


def test_all_faults_are_reported_at_once() -> None:
    settings = RLSettings(method="grpo", out="", n=1, top_p=0.0, lambda_init=9.0, minibatch=5)
    with pytest.raises(PlanError) as caught:
        settings.validated(costs=False)
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize(
    ("method", "costs", "message"),
    [
        ("ppo-lag", False, "needs a cost"),
        ("reward-shaping", False, "needs a cost"),
        ("ppo", True, "does not use a cost"),
        ("ppl", True, "did you mean"),
    ],
)
def test_faults_of_the_method(method: Any, costs: bool, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        RLSettings(method=method, out="").validated(costs=costs)


def test_one_answer_to_a_prompt_needs_the_baseline_of_a_step() -> None:
    settings = RLSettings(method="grpo", out="", n=1, baseline="step")
    assert settings.validated(costs=False).answers_per_step == settings.prompts
    with pytest.raises(PlanError, match="at least 2"):
        replace(settings, baseline="group").validated(costs=False)
    with pytest.raises(PlanError, match="baseline are of rloo and grpo, not ppo"):
        RLSettings(method="ppo", out="", baseline="step").validated(costs=False)


def test_adapters_from_a_layer_need_adapters() -> None:
    with pytest.raises(PlanError, match="lora_from = 3: there are no adapters with lora = 0"):
        RLSettings(method="ppo", out="", lora=0, lora_from=3).validated(costs=False)


def test_nan_is_a_fault() -> None:
    with pytest.raises(PlanError, match="kl = nan: must be at least 0"):
        RLSettings(method="ppo", out="", kl=float("nan")).validated(costs=False)


def test_learning_rates_by_default() -> None:
    adapters = RLSettings(method="ppo", out="")
    assert (adapters.policy_learning_rate, adapters.critic_learning_rate) == (1e-4, 5e-5)
    whole_models = RLSettings(method="ppo", out="", lora=0)
    assert whole_models.policy_learning_rate == 1e-5
    assert replace(whole_models, lr=2e-3, critic_lr=1.0).critic_learning_rate == 1.0


@pytest.mark.parametrize(
    ("method", "place", "in_loss"),
    [("grpo", "auto", True), ("ppo", "auto", False), ("ppo", "loss", True)],
)
def test_place_of_the_kl_penalty(method: Any, place: Any, in_loss: bool) -> None:
    assert RLSettings(method=method, out="", kl_place=place).kl_in_loss is in_loss


def test_sizes_of_a_step() -> None:
    settings = RLSettings(method="grpo", out="", prompts=3, n=4, minibatch=6)
    assert (settings.answers_per_step, settings.minibatch_size) == (12, 6)
    assert replace(settings, minibatch=0).minibatch_size == 12


def test_the_digest_ignores_what_does_not_change_the_result() -> None:
    settings = RLSettings(method="grpo", out="a")
    assert replace(settings, out="b", micro=1, steps=7).digest() == settings.digest()
    assert replace(settings, kl=0.3).digest() != settings.digest()
    # bnpo averages within micro-batches.
    bnpo = replace(settings, loss="bnpo")
    assert replace(bnpo, micro=1).digest() != bnpo.digest()


def test_a_run_of_an_older_version_keeps_its_digest_and_its_meaning() -> None:
    now = RLSettings(method="ppo-lag", out="")
    # What the manifest of an older version holds: no newer names, and its own defaults.
    newer = {*RLSettings.older_values, "lambda_control"}
    stored = {k: v for k, v in msgspec.to_builtins(now).items() if k not in newer}
    stored |= {"truncation_penalty": 0.0, "max_unscored": 0.2}
    begun = now.as_begun(stored)
    assert (begun.lambda_control, begun.truncation_penalty) == ("gradient", 0.0)
    assert (begun.empty_answer_score, begun.special_token_score) == ("unscored", "hidden")
    left_out = {*RLSettings.not_in_digest, "out", "save_every", "tensorboard", "track"}
    in_digest = {k: v for k, v in stored.items() if k not in left_out or k == "max_unscored"}
    assert begun.digest() == digest(*(f"{k}={in_digest[k]}" for k in sorted(in_digest)))
    assert replace(begun, max_unscored=1.0).digest() == begun.digest() != now.digest()
    assert begun.as_begun(msgspec.to_builtins(begun)) == begun
    asked = replace(now, empty_answer_score=-1.0, truncation_penalty=2.0).as_begun(stored)
    assert (asked.empty_answer_score, asked.truncation_penalty) == (-1.0, 2.0)


def test_a_run_of_this_version_goes_on_as_it_is() -> None:
    now = RLSettings(method="grpo", out="", n=2)
    assert now.as_begun(msgspec.to_builtins(now)) == now
