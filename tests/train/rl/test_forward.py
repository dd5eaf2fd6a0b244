"""Log-probabilities and values of answer tokens, trimming, micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from truing.train.rl.forward import (
    answer_log_probs,
    answer_values,
    map_micro_batches,
    micro_batches,
    trim_padding,
)
from truing.train.rl.rollout import GeneratedAnswers, build_rollout


@pytest.fixture
def rollout(task: Any) -> Any:
    """Four answers of 1, 3, 2 and 1 tokens to prompts of different lengths."""
    answers = GeneratedAnswers(
        ((4,), (5, 6, 7), (8, 1), (9,)), torch.zeros(4, 3), (False, False, True, False)
    )
    return build_rollout(
        task.prompts(4), range(4), answers, task.tokenizer(), device="cpu", pad_id=0
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probs_equal_those_of_each_row_without_padding(
    task: Any, rollout: Any, temperature: float
) -> None:
    model = task.model(0, dtype=torch.float64)
    with torch.no_grad():
        log_probs = answer_log_probs(model, rollout, temperature=temperature)
    answers = [(4,), (5, 6, 7), (8, 1), (9,)]
    for row, (prompt, answer) in enumerate(zip(rollout.prompts, answers)):
        ids = torch.tensor([[*prompt.ids, *answer]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0] / temperature
        expected = torch.log_softmax(logits, -1)[len(prompt.ids) - 1 : -1]
        expected = expected[torch.arange(len(answer)), torch.tensor(answer)]
        torch.testing.assert_close(log_probs[row, : len(answer)], expected)
        assert not log_probs[row, len(answer) :].any()


def test_values_are_those_before_the_answer_tokens(rollout: Any) -> None:
    columns = torch.arange(rollout.input_ids.shape[1], dtype=torch.float32)
    values = answer_values(lambda ids, mask: columns.expand(ids.shape), rollout)
    first = rollout.answer_start - 1
    assert values[1].tolist() == [first, first + 1, first + 2]
    assert values[0].tolist() == [first, 0, 0]


def test_trimming_drops_common_padding_alone(rollout: Any) -> None:
    rows = [0, 2]
    trimmed = trim_padding(rollout.select_rows(rows))
    assert trimmed.attention_mask.sum() == rollout.attention_mask[rows].sum()
    assert trimmed.attention_mask[:, 0].any()
    assert trimmed.attention_mask[:, -1].any()
    assert trimmed.answer_mask.tolist() == [[1, 0], [1, 1]]
    assert trim_padding(rollout) is rollout


def test_micro_batches_hold_every_row_once_longest_first(rollout: Any) -> None:
    batches = list(micro_batches(rollout, [0, 1, 3], 2))
    assert sorted(row for rows, _ in batches for row in rows) == [0, 1, 3]
    assert [len(rows) for rows, _ in batches] == [2, 1]
    lengths = rollout.attention_mask.sum(-1)
    order = [int(lengths[row]) for rows, _ in batches for row in rows]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_mapped_micro_batches_come_back_in_order(rollout: Any, size: int) -> None:
    result = map_micro_batches(rollout, size, lambda micro: micro.answer_ids * micro.answer_mask)
    assert torch.equal(result, (rollout.answer_ids * rollout.answer_mask).to(result))
