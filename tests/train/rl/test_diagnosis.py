"""Which metrics give which warning, and how often."""

from __future__ import annotations

import math
from typing import Any

from truing.train.rl.diagnosis import RunDiagnosis
from truing.train.rl.settings import RLSettings


def new_diagnosis(method: str = "grpo", **changes: Any) -> RunDiagnosis:
    return RunDiagnosis(RLSettings(method=method, out="", **changes))  # type: ignore[arg-type]


def check_repeatedly(diagnosis: RunDiagnosis, metrics: dict[str, float], times: int) -> list[str]:
    return [warning for _ in range(times) for warning in diagnosis.check(metrics)]


def test_negative_kl_with_top_p() -> None:
    warnings = check_repeatedly(new_diagnosis(top_p=0.9), {"kl_k1": -0.5, "kl_k3": 0.6}, 6)
    assert len(warnings) == 1
    assert "top_p = 0.9 draws from a narrower distribution" in warnings[0]


def test_negative_kl_with_old_weights() -> None:
    warnings = check_repeatedly(new_diagnosis(), {"kl_k1": -0.5, "kl_k3": 0.6}, 6)
    assert len(warnings) == 1
    assert "newest weights" in warnings[0]


def test_a_slightly_negative_kl_is_chance() -> None:
    assert not check_repeatedly(new_diagnosis(), {"kl_k1": -0.03, "kl_k3": 0.6}, 6)


def test_reward_that_follows_length() -> None:
    diagnosis = new_diagnosis()
    warnings = [
        warning
        for k in range(12)
        for warning in diagnosis.check({"length": 10 + 2 * k, "length_reward": 0.8})
    ]
    assert len(warnings) == 1
    assert "reward follows length (r = 0.80)" in warnings[0]


def test_reward_hacking() -> None:
    diagnosis = new_diagnosis()
    assert not diagnosis.check({"reward_mean": 0.0, "measured_harmful": 0.1})
    warnings = diagnosis.check({"reward_mean": 1.0, "measured_harmful": 0.4})
    assert len(warnings) == 1
    assert "reward is being gamed" in warnings[0]
    assert "10% → 40%" in warnings[0]


def test_equal_answers() -> None:
    warnings = new_diagnosis().check({"distinct": 1 / 64, "entropy": 0.0})
    assert warnings[0].startswith("every answer of the step is the same")


def test_a_constraint_that_was_violated_once_does_bind() -> None:
    diagnosis = new_diagnosis("ppo-lag")
    metrics = {"lambda": 1.0, "lambda_at_bound": 0.0}
    warnings = diagnosis.check({**metrics, "violation": 0.5})
    warnings += check_repeatedly(diagnosis, {**metrics, "violation": -0.5}, 40)
    assert not any("does not bind" in warning for warning in warnings)


def test_a_multiplier_in_a_cycle_oscillates() -> None:
    diagnosis = new_diagnosis("ppo-lag", lambda_control="gradient")
    warnings = [
        warning
        for step in range(100)
        for warning in diagnosis.check({"lambda": math.exp(math.sin(step / 5)), "violation": -0.1})
        if "oscillates" in warning
    ]
    assert "λ oscillates: between 0.368 and 2.7" in warnings[-1]
    assert "lambda_control pid" in warnings[0]


def test_a_multiplier_that_overshoots_once_does_not_oscillate() -> None:
    diagnosis = new_diagnosis("ppo-lag")
    warnings = [
        warning
        for step in range(100)
        for warning in diagnosis.check(
            {"lambda": math.exp(math.exp(-step / 8) * math.sin(step / 5)), "violation": -0.1}
        )
    ]
    assert not any("oscillates" in warning for warning in warnings)


def test_a_bound_that_does_not_help_means_that_the_constraint_cannot_be_met() -> None:
    metrics = {"lambda": 5.0, "lambda_at_bound": 1.0, "violation": 0.4}
    warnings = check_repeatedly(new_diagnosis("ppo-lag"), metrics, 20)
    assert [warning[:27] for warning in warnings] == [
        "λ is at its bound (5) and t",
        "the constraint cannot be me",
    ]


def test_a_warning_is_repeated_at_growing_intervals() -> None:
    metrics = {"lambda": 1.0, "lambda_at_bound": 0.0, "violation": -0.5}
    diagnosis = new_diagnosis("ppo-lag")
    steps = [step for step in range(1, 101) if diagnosis.check(metrics)]
    assert steps == [20, 40, 80]


def test_the_state_is_restored() -> None:
    metrics = {"kl_k1": -0.5, "kl_k3": 0.6}
    first, second = new_diagnosis(), new_diagnosis()
    first.check({"lambda": 1.0})
    check_repeatedly(first, metrics, 4)
    second.load_state_dict(first.state_dict())
    assert list(second.multipliers[""]) == [1.0]
    assert second.check(metrics) == first.check(metrics) != []


def test_each_of_several_constraints_is_diagnosed_by_name() -> None:
    diagnosis = new_diagnosis("ppo-lag")
    warnings = [
        warning
        for step in range(100)
        for warning in diagnosis.check(
            {
                "lambda": 1.0,
                "violation": -0.1,
                "lambda/harm": math.exp(math.sin(step / 5)),
                "violation/harm": 0.1,
                "lambda/refusal": 5.0,
                "lambda_at_bound/refusal": 1.0,
                "violation/refusal": 0.4,
            }
        )
    ]
    assert any(w.startswith("constraint harm: λ oscillates") for w in warnings)
    assert any(w.startswith("constraint refusal: the constraint cannot be met") for w in warnings)
    assert not any("refusal: λ oscillates" in w or "does not bind" in w for w in warnings)


def test_an_older_checkpoint_holds_the_multipliers_of_one_constraint() -> None:
    diagnosis = new_diagnosis()
    diagnosis.load_state_dict({**new_diagnosis().state_dict(), "lambdas": [1.0, 2.0]})
    assert list(diagnosis.multipliers[""]) == [1.0, 2.0]
