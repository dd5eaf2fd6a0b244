"""Answers to one prompt share its forward pass: the same values and gradients as without."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core.types import Conversation, Sample
from truing.train.answer_log_probs import answer_log_probs as plain_log_probs
from truing.train.answer_log_probs import can_share_prompts
from truing.train.rl.forward import (
    answer_log_probs,
    micro_batches,
    shared_prompt_sizes,
)
from truing.train.rl.rollout import (
    GeneratedAnswers,
    Rollout,
    TokenizedPrompt,
    build_rollout,
)

GROUPS = [
    ((4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (3, 1, 2)),
    ((10, 11), (1, 3)),
    ((12, 13, 14, 15, 5), (2, 2, 1, 3)),
]


def make_rollout(task: Any, groups: Any) -> Rollout:
    """Answers of the given lengths to each prompt, `[(prompt ids, lengths)]`."""
    prompts, ids = [], []
    for number, (prompt_ids, lengths) in enumerate(groups):
        sample = Sample(conversation=Conversation.of("x"), id=str(number))
        prompts += [TokenizedPrompt(sample, tuple(prompt_ids))] * len(lengths)
        ids += [tuple(4 + (row + k) % 12 for k in range(n)) for row, n in enumerate(lengths)]
    width = max(map(len, ids))
    answers = GeneratedAnswers(tuple(ids), torch.zeros(len(ids), width), (False,) * len(ids))
    rows = range(len(ids))
    return build_rollout(prompts, rows, answers, task.tokenizer(), device="cpu", pad_id=0)


def without_sharing(model: Any, rollout: Rollout, temperature: float = 1.0) -> Any:
    return plain_log_probs(
        model,
        rollout.input_ids,
        rollout.attention_mask,
        rollout.answer_mask,
        temperature=temperature,
    )


def count_tokens(model: Any) -> list[int]:
    """Returns a list to which each forward pass of the model appends its number of tokens."""
    counts: list[int] = []

    def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        counts.append(inputs["input_ids"].numel())

    model.register_forward_pre_hook(count, with_kwargs=True)
    return counts


# transformers' own eager attention returns NaN in float64 for rows that are padded on the left.
@pytest.mark.parametrize(
    ("attention", "dtype", "tolerance"),
    [("eager", torch.float32, 1e-5), ("sdpa", torch.float64, 1e-12)],
)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_the_plain_forward_pass(
    task: Any, attention: str, dtype: Any, tolerance: float, temperature: float
) -> None:
    model = task.model(0, dtype=dtype)
    model.set_attn_implementation(attention)
    rollout = make_rollout(task, GROUPS)
    weights = torch.randn(rollout.answer_mask.shape, dtype=dtype)

    expected = without_sharing(model, rollout, temperature)
    (expected * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    counts = count_tokens(model)
    log_probs = answer_log_probs(model, rollout, temperature=temperature)
    (log_probs * weights).sum().backward()
    assert counts == [3 * 10, 9 * 2]  # three prompts, then the answers without their last token
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=tolerance)
    for name, parameter in model.named_parameters():
        # The norms of Llama compute in single precision, also in a model of doubles.
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=2e-6)


def test_adapters_get_the_same_gradients(task: Any) -> None:
    import peft

    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(task.model(0, dtype=torch.float64), config)
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # of zeros at first: the gradients of A would vanish
            torch.nn.init.normal_(parameter)
    model, rollout = wrapped.get_base_model(), make_rollout(task, GROUPS)
    gradients = []
    for function in (without_sharing, answer_log_probs):
        wrapped.zero_grad()
        function(model, rollout).square().sum().backward()
        gradients.append({n: p.grad for n, p in wrapped.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(2, 15), min_size=1, max_size=9),
            st.lists(st.integers(1, 4), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_groups_agree(task: Any, groups: Any) -> None:
    model, rollout = task.model(1, dtype=torch.float64), make_rollout(task, groups)
    with torch.no_grad():
        expected = without_sharing(model, rollout)
        torch.testing.assert_close(answer_log_probs(model, rollout), expected, rtol=0, atol=1e-12)
    sizes = shared_prompt_sizes(rollout)
    assert not sizes or sum(sizes) == len(rollout.texts)
    rows = [
        row
        for batch, _ in micro_batches(rollout, range(len(rollout.texts)), 3, by_prompt=True)
        for row in batch
    ]
    assert sorted(rows) == list(range(len(rollout.texts)))


def test_micro_batches_keep_long_prompts_together_and_not_short_ones(task: Any) -> None:
    long_prompts = make_rollout(task, [((4,) * 22, (1, 4, 2)), ((5,) * 21, (2, 3, 1))])
    batches = [rows for rows, _ in micro_batches(long_prompts, range(6), 3, by_prompt=True)]
    assert batches == [[1, 2, 0], [4, 3, 5]]
    short_prompts = make_rollout(task, [((4,), (1, 4)), ((5,), (4, 1))])
    batches = [rows for rows, _ in micro_batches(short_prompts, range(4), 2, by_prompt=True)]
    assert batches == [[1, 2], [0, 3]]


def test_models_that_cannot_share_read_all_rows_whole(task: Any) -> None:
    rollout = make_rollout(task, GROUPS)
    model = task.model(0)
    assert can_share_prompts(model)
    recomputing = copy.deepcopy(model)
    recomputing.gradient_checkpointing_enable()
    assert can_share_prompts(recomputing.eval())
    assert not can_share_prompts(recomputing.train())
    counts = count_tokens(recomputing)
    with torch.no_grad():
        answer_log_probs(recomputing, rollout)
    assert counts == [rollout.input_ids.numel()]
    capped = copy.deepcopy(model)
    capped.config.final_logit_softcapping = 30.0
    windowed = copy.deepcopy(model)
    windowed.config.sliding_window = 4
    windowed.config.layer_types = ["sliding_attention"] * 2
    assert not can_share_prompts(capped)
    assert not can_share_prompts(windowed)
