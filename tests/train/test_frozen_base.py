"""Frozen weights in bfloat16 and int8: same results, less memory, float32 again for the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tests.train.builders import make_settings, make_training_set

from truing.core.errors import PlanError
from truing.hf.loading import load_causal_lm
from truing.train.frozen_base import (
    FrozenLinear,
    dense_weight,
    hold_frozen,
    merge_adapters,
    storage_dtype,
)
from truing.train.supervised import train_supervised
from truing.train.training_log import read_log

IDS = torch.tensor([[5, 9, 7, 8, 3, 2]])


@pytest.fixture
def model(base: str) -> Any:
    """A tiny model with a tied head, exact in bfloat16, as most small published models are."""
    loaded = load_causal_lm(base, dtype="float32", device="cpu").model
    loaded.get_output_embeddings().weight = loaded.get_input_embeddings().weight
    return loaded.to(torch.bfloat16).float()


def logits_in_bfloat16(model: Any) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return model(input_ids=IDS).logits


def bytes_of(model: Any) -> int:
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def test_bfloat16_halves_the_memory_and_changes_no_bit(model: Any) -> None:
    before, size = logits_in_bfloat16(model), bytes_of(model)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    hold_frozen(model, "bfloat16")
    assert torch.equal(logits_in_bfloat16(model), before)
    assert bytes_of(model) < 0.56 * size
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with_adapters = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    assert merge_adapters(with_adapters, "default", torch.float32) is model
    assert not any(isinstance(m, FrozenLinear) for m in model.modules())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])


def test_embeddings_that_bfloat16_would_round_stay(model: Any) -> None:
    embeddings = model.get_input_embeddings()
    embeddings.weight.data += 1e-4
    before = logits_in_bfloat16(model)
    hold_frozen(model, "bfloat16")
    assert embeddings.weight.dtype is torch.float32
    assert torch.equal(logits_in_bfloat16(model), before)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_products_and_gradients_are_those_of_the_rounded_weight(dtype: Any) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 17).requires_grad_(False)
    frozen = FrozenLinear.from_linear(linear, dtype)
    rounded = dense_weight(frozen)
    tolerance = 0.01 if dtype == "int8" else 0.004
    assert float((rounded - linear.weight).abs().max()) < tolerance * float(
        linear.weight.abs().max()
    )
    x, y = (torch.ones(3, 24, requires_grad=True) for _ in range(2))
    product = frozen(x)
    expected = torch.nn.functional.linear(y, rounded, linear.bias)
    torch.testing.assert_close(product, expected)
    product.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_the_backward_pass_keeps_no_widened_copy() -> None:
    frozen = FrozenLinear.from_linear(torch.nn.Linear(64, 64).requires_grad_(False), "int8")
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        frozen(torch.ones(2, 64, requires_grad=True))
    assert {t.dtype for t in kept if t.numel() == 64 * 64} == {torch.int8}


def test_which_type_a_base_is_held_in() -> None:
    half = torch.bfloat16
    assert storage_dtype("auto", half, lora=4) == "bfloat16"
    assert storage_dtype("auto", torch.float32, lora=4) == "float32"
    assert storage_dtype("int8", None, lora=4) == "int8"
    assert storage_dtype("auto", half, lora=0) == "float32"
    assert storage_dtype("auto", half, lora=4, shard=True) == "float32"


@pytest.mark.parametrize("base_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_training_on_a_narrow_base_exports_what_was_trained(
    kind: str, base_dtype: str, base: str, tmp_path: Path
) -> None:
    losses = {}
    for dtype in ("float32", base_dtype):
        out = tmp_path / dtype
        settings = make_settings(kind, str(out), base, base_dtype=dtype, export_dtype="float32")
        train_supervised(settings, [make_training_set()])
        losses[dtype] = [row["loss"] for row in read_log(out)]
        weights = load_file(out / "model.safetensors")
        assert {t.dtype for t in weights.values()} == {torch.float32}
    assert losses[base_dtype] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_dtype": "int4"}, "base_dtype = 'int4': must be one of auto, float32"),
        ({"base_dtype": "int8", "lora": 0}, "only a frozen base"),
        ({"base_dtype": "int8", "shard": True}, "--shard holds the base in float32"),
    ],
)
def test_faults(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_settings("sft", "out", "smollm2", **fields).checked()
