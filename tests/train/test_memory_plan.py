"""Predicted memory: the parts add up, and follow the settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.train.builders import make_settings

from truing.hf.loading import load_causal_lm
from truing.train.memory_plan import MemoryPlan, plan_memory
from truing.train.rl.constraint_settings import ConstraintSettings
from truing.train.rl.settings import RLSettings
from truing.train.settings import REFERENCE_FREE_LOSSES
from truing.train.trainable_model import build_trainable_model, find_base_model

CPU = torch.device("cpu")


def plan_of(base: str, kind: str = "sft", **fields: Any) -> MemoryPlan:
    return plan_memory(
        make_settings(kind, "out", base, **fields), find_base_model(base).weights, CPU
    )


def test_weights_are_counted_as_they_are_held(base: str) -> None:
    model = load_causal_lm(base, dtype="float32", device="cpu").model
    size = sum(p.numel() for p in model.parameters())
    whole = plan_of(base, lora=0)
    assert whole.weights == 4 * size and whole.optimizer == 12 * size
    adapters = plan_of(base, lora=4)
    assert 0 < adapters.weights - 4 * size == adapters.optimizer // 3
    late = plan_of(base, lora=4, lora_from=model.config.num_hidden_layers - 1)
    assert late.optimizer * model.config.num_hidden_layers == adapters.optimizer
    assert late.activations < adapters.activations
    narrow = plan_of(base, base_dtype="int8")
    assert narrow.weights < 0.7 * adapters.weights
    assert plan_of(base, "dpo", lora=0).weights == 8 * size  # and the reference
    for loss in REFERENCE_FREE_LOSSES:
        settings = make_settings("dpo", "out", base, lora=0, loss=loss)
        assert plan_of(base, "dpo", lora=0, loss=loss).weights == 4 * size
        trainable = build_trainable_model(settings, find_base_model(base), CPU)
        assert trainable.reference_model is None


def test_activations_follow_rows_and_length(base: str) -> None:
    one, two = plan_of(base, micro=2), plan_of(base, micro=4)
    assert two.activations == pytest.approx(2 * one.activations, rel=0.1)
    assert plan_of(base, "dpo", micro=2).activations == pytest.approx(two.activations, rel=0.1)
    assert plan_of(base, micro=4, checkpointing=True).activations < two.activations
    half = plan_of(base, micro=4, dtype="bfloat16")
    assert half.activations < two.activations


def test_an_rl_run_holds_adapters_for_each_role(base: str) -> None:
    weights = find_base_model(base).weights
    fields: dict[str, Any] = {"out": "out", "base": base, "lora": 4, "dtype": "float32"}
    ppo, lag = (
        plan_memory(RLSettings(method=method, **fields), weights, CPU)  # type: ignore[arg-type]
        for method in ("ppo", "ppo-lag")
    )
    assert lag.weights > ppo.weights and lag.optimizer == pytest.approx(1.5 * ppo.optimizer)
    limits = tuple(ConstraintSettings(name=name) for name in ("harm", "refusal"))
    settings = RLSettings(method="ppo-lag", constraints=limits, **fields)
    three = plan_memory(settings, weights, CPU)  # critics: the reward, the cost, two constraints
    assert three.optimizer == pytest.approx(2.5 * ppo.optimizer)
    two = plan_memory(settings, weights, CPU, costs=False)
    assert two.optimizer == pytest.approx(2 * ppo.optimizer)
    assert lag.total >= lag.step >= lag.runtime + lag.weights + lag.optimizer + lag.sampling
