"""How deep a change reaches: KL along answers against a direct computation, int8 rounding, openings."""

from __future__ import annotations

import copy
import math

import pytest

pytest.importorskip("torch")
import torch
from benchmarks.alignment.depth import (
    answer_opening,
    kl_by_position,
    mean_by_position,
    next_token_logps,
    round_int8,
)

from truing.core.types import Conversation, Message
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import load_causal_lm

PAIRS = [
    (Conversation.of(f"How do I true wheel {k}?"), "Turn it slowly. " * (k + 1)) for k in range(5)
]


def wrap(conversation: Conversation) -> Conversation:
    return Conversation((Message("system", "Be short."), *conversation.messages))


def test_kl_is_that_of_the_whole_next_token_distribution(base: str) -> None:
    one = load_causal_lm(base, dtype="float32", device="cpu")
    other = copy.copy(one)
    object.__setattr__(other, "model", copy.deepcopy(one.model))
    assert all(abs(x) < 1e-6 for row in kl_by_position(one, other, PAIRS) for x in row)
    with torch.no_grad():
        other.model.lm_head.weight.add_(0.05 * torch.randn_like(other.model.lm_head.weight))
    found = kl_by_position(one, other, PAIRS, depth=6, batch=2)
    turns = ChatTokenizer(one.tokenizer)
    for (conversation, text), row in zip(PAIRS, found):
        prompt, answer = (
            turns.encode_prompt(conversation.messages),
            turns.encode_answer(conversation.messages, text)[:6],
        )
        for at in range(len(row)):
            ids = torch.tensor([[*prompt, *answer[:at]]])
            with torch.no_grad():
                p, q = (m.model(ids).logits[0, -1].double().log_softmax(-1) for m in (other, one))
            assert row[at] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-5)
    means = mean_by_position(found, 8)
    assert means[0][1] == 5 and means[0][0] > 0 and math.isnan(means[7][0])


def test_a_prompted_model_is_compared_with_its_bare_self(base: str) -> None:
    one = load_causal_lm(base, dtype="float32", device="cpu")
    found = kl_by_position(one, one, PAIRS, depth=4, wrap=wrap)
    assert all(x > 1e-4 for row in found for x in row)
    with pytest.raises(AnswerTooLong, match="none of 1"):
        kl_by_position(one, one, [(Conversation.of("wheel " * 900), "x")])


def test_int8_has_255_levels_a_row_and_is_near(base: str) -> None:
    one = load_causal_lm(base, dtype="float32", device="cpu")
    before = {n: p.clone() for n, p in one.model.named_parameters()}
    assert round_int8(one.model) > 10
    layer = one.model.model.layers[0].mlp.up_proj.weight
    old = before["model.layers.0.mlp.up_proj.weight"]
    step = old.abs().amax(1, keepdim=True) / 127
    assert float((layer - old).abs().max()) > 0 and bool(
        ((layer - old).abs() <= step / 2 + 1e-7).all()
    )
    assert all(len(row.unique()) <= 255 for row in layer)
    left = next_token_logps(one, [[5, 6, 7]], [[8, 9]])[0]
    assert left.shape == (2, one.model.config.vocab_size) and torch.allclose(
        left.exp().sum(-1), torch.ones(2)
    )


def test_openings(base: str) -> None:
    turns = ChatTokenizer(load_causal_lm(base, dtype="float32", device="cpu").tokenizer)
    conversation, text = PAIRS[0]
    assert answer_opening(turns, conversation, text, 0) == ""
    assert text.startswith(answer_opening(turns, conversation, text, 3)) and answer_opening(
        turns, conversation, text, 3
    )
    assert answer_opening(turns, conversation, text, 999) == text
