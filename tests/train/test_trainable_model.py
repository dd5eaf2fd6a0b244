"""Building a trainable model: adapters or all weights, the reference, dtypes, stored weights."""

from __future__ import annotations

import pytest
import torch
from tests.train.builders import make_example, make_settings

from truing.core.errors import PlanError
from truing.train.batches import ExampleEncoder, collate_examples
from truing.train.trainable_model import (
    TrainableModel,
    build_trainable_model,
    find_base_model,
    load_trainable_state,
    trainable_state,
    training_dtype,
)

CPU = torch.device("cpu")


def build(base: str, kind: str = "dpo", **fields: object) -> TrainableModel:
    return build_trainable_model(
        make_settings(kind, "out", base, **fields), find_base_model(base), CPU
    )


@pytest.mark.parametrize("lora", [0, 4])
def test_the_reference_is_the_model_before_training(base: str, lora: int) -> None:
    trainable = build(base, lora=lora)
    encoder = ExampleEncoder(trainable.tokenizer, trainable.settings)
    batch = collate_examples([encoder.encode(make_example(0))], trainable.pad_id)
    before = trainable.logits(trainable.model, batch)
    with torch.no_grad():
        for parameter in trainable.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    with trainable.reference() as model:
        reference = trainable.logits(model, batch)
    assert not reference.requires_grad
    torch.testing.assert_close(reference, before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        change = trainable.logits(trainable.model, batch) - before
    assert float(change.abs().max()) > 1e-3


def test_answer_log_probabilities_are_zero_outside_the_answer(base: str) -> None:
    trainable = build(base)
    encoder = ExampleEncoder(trainable.tokenizer, trainable.settings)
    example = encoder.encode(make_example(0))
    batch = collate_examples([example], trainable.pad_id)
    logps = trainable.answer_logps(trainable.model, batch)[0].detach()
    start = len(example.prompt) - 1
    assert bool((logps[:start] == 0).all())
    log_softmax = trainable.logits(trainable.model, batch)[0].detach().log_softmax(-1)
    assert float(logps[start]) == pytest.approx(
        float(log_softmax[start, example.answers[0][0]]), abs=1e-5
    )


def test_only_the_adapters_are_stored(base: str) -> None:
    trainable, other = build(base), build(base, seed=1)
    state = trainable_state(trainable.model)
    assert state and all("lora_" in name for name in state)
    load_trainable_state(other.model, state)
    loaded = trainable_state(other.model)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    with pytest.raises(PlanError, match="other weights than this run trains"):
        load_trainable_state(build(base, lora=2).model, state)


def test_a_window_beyond_the_context_is_refused(base: str) -> None:
    with pytest.raises(PlanError, match="max_length = 4096: .* reads 256 tokens at most"):
        build(base, max_length=4096)


def test_dtypes() -> None:
    assert training_dtype(make_settings("sft", "out", "base"), CPU) is torch.float32
    half = make_settings("sft", "out", "base", dtype="bfloat16")
    assert training_dtype(half, CPU) is torch.bfloat16
