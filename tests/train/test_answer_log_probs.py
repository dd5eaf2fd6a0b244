"""Log-probabilities by chunks of answer tokens equal those of whole rows, in value and gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from truing.hf.loading import load_causal_lm, position_ids
from truing.train import answer_log_probs as module
from truing.train.answer_log_probs import answer_log_probs
from truing.train.frozen_base import hold_frozen

IDS = torch.tensor([[0, 0, 5, 9, 7, 8, 3], [4, 6, 5, 2, 7, 11, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
ANSWERS = torch.tensor([[1, 1, 1], [1, 1, 0]])
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, 9.0]])


@pytest.fixture
def model(base: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model of which the embeddings are trained; chunks of 16 tokens would not split."""
    loaded = load_causal_lm(base, dtype="float32", device="cpu").model
    monkeypatch.setattr(module, "max", lambda *_: 2, raising=False)  # chunks of two tokens
    loaded.get_input_embeddings().weight.requires_grad_(True)
    return loaded


def reference(model: Any, temperature: float) -> torch.Tensor:
    output = model(input_ids=IDS, attention_mask=MASK, position_ids=position_ids(MASK))
    logits = output.logits[:, -4:-1].float() / temperature
    chosen = logits.log_softmax(-1).gather(-1, IDS[:, -3:].unsqueeze(-1)).squeeze(-1)
    return chosen * ANSWERS


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("trained_head", [False, True])
def test_values_and_gradients(model: Any, temperature: float, trained_head: bool) -> None:
    head = model.get_output_embeddings()
    if not trained_head:
        # Its own frozen weight: the model shares it with the embeddings.
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    other = copy.deepcopy(model)
    expected = reference(other, temperature)
    values = answer_log_probs(model, IDS, MASK, ANSWERS, temperature=temperature)
    torch.testing.assert_close(values, expected)
    for name, result in (("", expected), ("chunked", values)):
        (result * WEIGHTS).sum().backward()
        assert name == "chunked" or result.requires_grad
    gradients = [m.get_input_embeddings().weight.grad for m in (model, other)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=2e-4)
    assert float(gradients[1].abs().sum()) > 0


def test_no_answer_token_gives_zeros_with_a_gradient(model: Any) -> None:
    values = answer_log_probs(model, IDS, MASK, torch.zeros_like(ANSWERS))
    assert not values.any()
    values.sum().backward()


def test_a_model_that_changes_its_logits_is_read_whole(model: Any) -> None:
    expected = reference(model, 1.0)
    model.config.logit_scale = 1.0
    assert module._find_head(model) is None
    torch.testing.assert_close(answer_log_probs(model, IDS, MASK, ANSWERS), expected)


def test_a_head_in_bfloat16_works_in_a_float32_forward_pass(base: str) -> None:
    model = load_causal_lm(base, dtype="float32", device="cpu").model
    model.to(torch.bfloat16).float()
    expected = reference(model, 1.0)
    hold_frozen(model, "bfloat16")
    assert module._find_head(model) is not None
    torch.testing.assert_close(answer_log_probs(model, IDS, MASK, ANSWERS), expected)
