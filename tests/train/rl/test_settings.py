"""Validation, defaults and the digest of the RL settings."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import msgspec
from msgspec.structs import replace

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.train.rl.settings import _NOT_IN_DIGEST, RLSettings


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


def test_nan_is_a_fault() -> None:
    with pytest.raises(PlanError, match="kl = nan: at least 0"):
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


def test_a_run_by_gradient_keeps_the_digest_of_before_pid_control() -> None:
    by_gradient = RLSettings(method="ppo-lag", out="", lambda_control="gradient")
    by_pid = RLSettings(method="ppo-lag", out="")
    plain = {k: v for k, v in msgspec.to_builtins(by_gradient).items() if k not in _NOT_IN_DIGEST}
    del plain["lambda_control"]
    assert by_gradient.digest() == digest(*(f"{k}={plain[k]}" for k in sorted(plain)))
    assert by_pid.digest() != by_gradient.digest()
