"""Forward passes over rollouts: log-probabilities and values of the answer tokens, micro-batches.

Both come for the answer tokens alone, `[B, A]`. The value at t is that of the state before answer
token t, as in safe-rlhf. Answers to one prompt share its forward pass where that saves work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from truing.train.answer_log_probs import answer_log_probs as compute_log_probs
from truing.train.answer_log_probs import can_share_prompts, grouped_answer_log_probs
from truing.train.rl.rollout import Rollout


def answer_log_probs(model: Any, rollout: Rollout, *, temperature: float = 1.0) -> Tensor:
    """Returns log π of the answer tokens, `[B, A]`; 0 where the answer mask is 0.

    The temperature is the one that the answers are sampled with: π is the sampling distribution.
    Adjacent answers to one prompt share its forward pass where that saves work.
    """
    sizes = shared_prompt_sizes(rollout)
    if sizes and can_share_prompts(model):
        return grouped_answer_log_probs(
            model,
            rollout.input_ids,
            rollout.attention_mask,
            rollout.answer_mask,
            sizes,
            temperature=temperature,
        )
    return compute_log_probs(
        model,
        rollout.input_ids,
        rollout.attention_mask,
        rollout.answer_mask,
        temperature=temperature,
    )


def shared_prompt_sizes(rollout: Rollout) -> list[int]:
    """Returns how many adjacent answers have the same prompt; none if sharing it does not pay."""
    count, width = rollout.answer_mask.shape
    groups = [list(group) for _, group in groupby(_prompt_numbers(rollout))]
    read = _tokens_read(len(groups), count, rollout.answer_start, width)
    return [len(group) for group in groups] if read < count * (rollout.answer_start + width) else []


def _prompt_numbers(rollout: Rollout) -> list[int]:
    """Returns a number for each answer, the same for equal prompts."""
    start = rollout.answer_start
    if not start:
        return list(range(len(rollout.texts)))
    # -1 for padding: a pad token may have the id of a token of the prompt.
    prompts = rollout.input_ids[:, :start].masked_fill(rollout.attention_mask[:, :start] == 0, -1)
    numbers: list[int] = torch.unique(prompts, dim=0, return_inverse=True)[1].tolist()
    return numbers


def _tokens_read(groups: int, answers: int, prompt_width: int, answer_width: int) -> int:
    """Returns the tokens of the forward passes over a micro-batch, padding included.

    Each group reads its prompt once, if that saves half of the tokens or more: two passes of the
    model have costs of their own (at 5 of 8 tokens a step took as long, at 3 of 10 two thirds).
    """
    plain = answers * (prompt_width + answer_width)
    shared = groups * prompt_width + answers * answer_width
    return shared if shared <= 0.5 * plain else plain


def answer_values(critic: Any, rollout: Rollout) -> Tensor:
    """Returns the value before each answer token, `[B, A]`; 0 where the answer mask is 0."""
    values: Tensor = critic(rollout.input_ids, rollout.attention_mask)
    # Under autocast the head computes in half precision; the value loss is taken in single.
    if values.dtype != torch.float64:
        values = values.float()
    return values[:, rollout.answer_start - 1 : -1] * rollout.answer_mask


def trim_padding(rollout: Rollout) -> Rollout:
    """Returns the rollout without the columns that are padding in all of its rows."""
    first = int(rollout.attention_mask.bool().any(0).to(torch.uint8).argmax())
    width = int(rollout.answer_lengths.max()) if rollout.texts else 0
    end = rollout.answer_start + width
    if first == 0 and end == rollout.input_ids.shape[1]:
        return rollout
    ref_log_probs, sampler_log_probs = rollout.ref_log_probs, rollout.sampler_log_probs
    return replace(
        rollout,
        input_ids=rollout.input_ids[:, first:end],
        attention_mask=rollout.attention_mask[:, first:end],
        answer_mask=rollout.answer_mask[:, :width],
        log_probs=rollout.log_probs[:, :width],
        ref_log_probs=None if ref_log_probs is None else ref_log_probs[:, :width],
        sampler_log_probs=None if sampler_log_probs is None else sampler_log_probs[:, :width],
    )


def micro_batches(
    rollout: Rollout, rows: Sequence[int], size: int, *, by_prompt: bool = False
) -> Iterator[tuple[list[int], Rollout]]:
    """Yields (rows, trimmed rollout of these rows), at most `size` rows each.

    Rows of similar length go together, the longest first: little padding, and a batch that does
    not fit into memory fails at once. With `by_prompt` the answers to one prompt go together
    instead, where fewer tokens are read so.
    """
    lengths = rollout.attention_mask.sum(-1).tolist()
    longest_first = sorted(rows, key=lambda row: (-lengths[row], row))
    batches = _split(longest_first, size)
    if by_prompt:
        batches = min(
            batches, _split(_by_prompt(rollout, longest_first), size), key=_token_counter(rollout)
        )
    for batch_rows in batches:
        yield batch_rows, trim_padding(rollout.select_rows(batch_rows))


def _split(rows: Sequence[int], size: int) -> list[list[int]]:
    return [list(rows[begin : begin + size]) for begin in range(0, len(rows), size)]


def _by_prompt(rollout: Rollout, rows: Sequence[int]) -> list[int]:
    """Returns the rows with those of a prompt together, in the order of their first ones."""
    numbers = _prompt_numbers(rollout)
    rows_of_prompt: dict[int, list[int]] = {}
    for row in rows:
        rows_of_prompt.setdefault(numbers[row], []).append(row)
    return [row for group in rows_of_prompt.values() for row in group]


def _token_counter(rollout: Rollout) -> Callable[[list[list[int]]], int]:
    """Returns a function that counts the tokens that are read in micro-batches of given rows."""
    numbers = _prompt_numbers(rollout)
    prompt_lengths = rollout.attention_mask[:, : rollout.answer_start].sum(-1).tolist()
    answer_lengths = rollout.answer_lengths.tolist()

    def count_tokens(batches: list[list[int]]) -> int:
        return sum(
            _tokens_read(
                len(list(groupby(numbers[row] for row in batch))),
                len(batch),
                max(prompt_lengths[row] for row in batch),
                max(answer_lengths[row] for row in batch),
            )
            for batch in batches
        )

    return count_tokens


@torch.no_grad()
def map_micro_batches(
    rollout: Rollout,
    size: int,
    function: Callable[[Rollout], Tensor],
    *,
    by_prompt: bool = False,
) -> Tensor:
    """Returns `function` `[b, a]` of all micro-batches, put together as `[B, A]`; no gradient."""
    result = torch.zeros_like(rollout.log_probs)
    rows_of_all = range(len(rollout.texts))
    for rows, micro_batch in micro_batches(rollout, rows_of_all, size, by_prompt=by_prompt):
        values = function(micro_batch)
        result[rows, : values.shape[1]] = values.to(result)
    return result
