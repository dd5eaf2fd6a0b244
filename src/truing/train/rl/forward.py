"""Forward passes over rollouts: log-probabilities and values of the answer tokens, micro-batches.

Both come for the answer tokens alone, `[B, A]`. The value at t is that of the state before answer
token t, as in safe-rlhf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from truing.train.answer_log_probs import answer_log_probs as compute_log_probs
from truing.train.rl.rollout import Rollout


def answer_log_probs(model: Any, rollout: Rollout, *, temperature: float = 1.0) -> Tensor:
    """Returns log π of the answer tokens, `[B, A]`; 0 where the answer mask is 0.

    The temperature is the one that the answers are sampled with: π is the sampling distribution.
    """
    return compute_log_probs(
        model,
        rollout.input_ids,
        rollout.attention_mask,
        rollout.answer_mask,
        temperature=temperature,
    )


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
    rollout: Rollout, rows: Sequence[int], size: int
) -> Iterator[tuple[list[int], Rollout]]:
    """Yields (rows, trimmed rollout of these rows), at most `size` rows each.

    Rows of similar length go together, the longest first: little padding, and a batch that does
    not fit into memory fails at once.
    """
    lengths = rollout.attention_mask.sum(-1).tolist()
    longest_first = sorted(rows, key=lambda row: (-lengths[row], row))
    for begin in range(0, len(longest_first), size):
        batch_rows = longest_first[begin : begin + size]
        yield batch_rows, trim_padding(rollout.select_rows(batch_rows))


@torch.no_grad()
def map_micro_batches(rollout: Rollout, size: int, function: Callable[[Rollout], Tensor]) -> Tensor:
    """Returns `function` `[b, a]` of all micro-batches, put together as `[B, A]`; no gradient."""
    result = torch.zeros_like(rollout.log_probs)
    for rows, micro_batch in micro_batches(rollout, range(len(rollout.texts)), size):
        values = function(micro_batch)
        result[rows, : values.shape[1]] = values.to(result)
    return result
