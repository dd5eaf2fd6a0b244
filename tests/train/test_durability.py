"""The benchmark's measures of how deep a change reaches: KL by position, int8, openings."""

from __future__ import annotations

import copy
import math

import pytest
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
from truing.hf.loading import LoadedModel, load_causal_lm

PAIRS = [
    (Conversation.of(f"How do I true wheel {k}?"), "Turn it slowly. " * (k + 1)) for k in range(5)
]


def add_system_prompt(conversation: Conversation) -> Conversation:
    return Conversation((Message("system", "Be short."), *conversation.messages))


def load(base: str) -> LoadedModel:
    return load_causal_lm(base, dtype="float32", device="cpu")


def test_kl_is_that_of_the_whole_next_token_distribution(base: str) -> None:
    original = load(base)
    changed = copy.copy(original)
    object.__setattr__(changed, "model", copy.deepcopy(original.model))
    kl_of_itself = kl_by_position(original, changed, PAIRS)
    assert all(abs(kl) < 1e-6 for row in kl_of_itself for kl in row)

    head = changed.model.lm_head.weight
    with torch.no_grad():
        head.add_(0.05 * torch.randn_like(head))
    kl_by_pair = kl_by_position(original, changed, PAIRS, depth=6, batch=2)
    tokenizer = ChatTokenizer(original.tokenizer)
    for (conversation, text), kl in zip(PAIRS, kl_by_pair):
        prompt = tokenizer.encode_prompt(conversation.messages)
        answer = tokenizer.encode_answer(conversation.messages, text)[:6]
        for position in range(len(kl)):
            ids = torch.tensor([[*prompt, *answer[:position]]])
            with torch.no_grad():
                p, q = (
                    m.model(ids).logits[0, -1].double().log_softmax(-1) for m in (changed, original)
                )
            expected = float((p.exp() * (p - q)).sum())
            assert kl[position] == pytest.approx(expected, abs=1e-5)
    means = mean_by_position(kl_by_pair, 8)
    assert means[0][1] == 5 and means[0][0] > 0 and math.isnan(means[7][0])


def test_a_prompted_model_is_compared_with_itself_without_the_prompt(base: str) -> None:
    model = load(base)
    kl_by_pair = kl_by_position(model, model, PAIRS, depth=4, wrap=add_system_prompt)
    assert all(kl > 1e-4 for row in kl_by_pair for kl in row)
    with pytest.raises(AnswerTooLong, match="none of 1"):
        kl_by_position(model, model, [(Conversation.of("wheel " * 900), "x")])


def test_int8_has_255_levels_a_row_and_rounds_to_the_nearest(base: str) -> None:
    model = load(base).model
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert round_int8(model) > 10
    rounded = model.model.layers[0].mlp.up_proj.weight
    exact = before["model.layers.0.mlp.up_proj.weight"]
    step = exact.abs().amax(1, keepdim=True) / 127
    error = (rounded - exact).abs()
    assert float(error.max()) > 0 and bool((error <= step / 2 + 1e-7).all())
    assert all(len(row.unique()) <= 255 for row in rounded)


def test_next_token_probabilities_sum_to_1(base: str) -> None:
    model = load(base)
    logps = next_token_logps(model, [[5, 6, 7]], [[8, 9]])[0]
    assert logps.shape == (2, model.model.config.vocab_size)
    assert torch.allclose(logps.exp().sum(-1), torch.ones(2))


def test_an_opening_is_the_beginning_of_the_answer(base: str) -> None:
    tokenizer = ChatTokenizer(load(base).tokenizer)
    conversation, text = PAIRS[0]
    assert answer_opening(tokenizer, conversation, text, 0) == ""
    three_tokens = answer_opening(tokenizer, conversation, text, 3)
    assert three_tokens and text.startswith(three_tokens)
    assert answer_opening(tokenizer, conversation, text, 999) == text
