"""Samples the next token; each answer has a random generator of its own, so that its neighbours do
not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from truing.core.types import Conversation, Sampling

BLOCK = 128
"""Columns that `find_largest` looks at together; a vocabulary of 150,000 has 1,200 blocks."""


def make_generator(seed: int, conversation: Conversation, index: int) -> np.random.Generator:
    """Returns the generator of the `index`-th answer: counter-based, keyed by seed, content and
    index.
    """
    # Keyed by content, not by the order of arrival: concurrency does not change an answer.
    text = msgspec.json.encode([seed, conversation, index], order="deterministic")
    key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
    # Philox takes a 128-bit key, hence the first 16 bytes.
    return np.random.Generator(np.random.Philox(key=key))


def sample_tokens(
    logits: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]
) -> list[int]:
    """Returns a token for each row of float32 logits `[n, V]`; -1 for rows with NaN.

    Temperature 0 takes the argmax. Else the uniform draw in [0, 1) is looked up in the row's
    cumulative distribution, restricted to its nucleus where `top_p` < 1 (Holtzman et al. 2020,
    arXiv:1904.09751).
    """
    # max() propagates NaN, so one reduction finds both the argmax and the invalid rows.
    best, chosen = logits.max(dim=-1)
    invalid_rows = torch.isnan(best)
    if bool(invalid_rows.any()):
        logits = torch.nan_to_num(logits)
    # Rows of one kind at a time: a row without top p needs the whole distribution.
    for narrowed in (False, True):
        rows = [
            i for i, s in enumerate(samplings) if s.temperature > 0 and (s.top_p < 1) == narrowed
        ]
        if not rows:
            continue
        temperatures, top_p, uniform_draws = (
            torch.tensor(values, dtype=torch.float32, device=logits.device)
            for values in (
                [samplings[i].temperature for i in rows],
                [samplings[i].top_p for i in rows],
                [draws[i] for i in rows],
            )
        )
        index = torch.tensor(rows, device=logits.device)
        row_logits = logits if len(rows) == len(samplings) else logits[index]
        probs = torch.softmax(row_logits / temperatures[:, None].clamp(min=1e-5), dim=-1)
        chosen[index] = (
            _nucleus(probs, top_p, uniform_draws) if narrowed else _invert(probs, uniform_draws)
        )
    chosen = torch.where(invalid_rows, torch.full_like(chosen, -1), chosen)
    return [int(t) for t in chosen.tolist()]


def _invert(probs: Tensor, uniform_draws: Tensor) -> Tensor:
    cumulative = probs.cumsum(dim=-1)
    # right=True: a draw of exactly 0 must not choose a first token of probability 0
    index = torch.searchsorted(cumulative, (uniform_draws * cumulative[:, -1])[:, None], right=True)
    return index.squeeze(1).clamp(max=probs.shape[-1] - 1)


def _nucleus(
    probs: Tensor, top_p: Tensor, uniform_draws: Tensor, counts: Sequence[int] = (64, 512)
) -> Tensor:
    """Samples from the smallest set of tokens whose mass reaches `top_p`.

    Looks for it among the `counts` largest probabilities; a distribution that is flatter than that
    is sorted whole. Of equal probabilities the lower token id comes first, so that neither `counts`
    nor the other rows change a token.
    """
    chosen = torch.zeros(len(probs), dtype=torch.long, device=probs.device)
    rows = torch.arange(len(probs), device=probs.device)
    for count in (*counts, probs.shape[-1]):
        top, token_ids = _sort_largest(probs if len(rows) == len(probs) else probs[rows], count)
        # Mass before the token, so the one that crosses `top_p` belongs to the nucleus.
        mass_before = top.cumsum(dim=-1) - top
        is_in = mass_before < top_p[rows, None]
        tokens = _invert(torch.where(is_in, top, torch.zeros_like(top)), uniform_draws[rows])
        # Which of the tokens as rare as the last one are among the largest is left to chance.
        is_settled = ~(is_in & (top == top[:, -1:])).any(dim=-1)
        if top.shape[-1] == probs.shape[-1]:
            is_settled = torch.ones_like(is_settled)
        chosen[rows[is_settled]] = token_ids.gather(1, tokens[:, None]).squeeze(1)[is_settled]
        rows = rows[~is_settled]
        if not len(rows):
            break
    return chosen


def _sort_largest(probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` largest values of each row and their columns, equal ones by column."""
    if count >= probs.shape[-1]:
        return probs.sort(dim=-1, descending=True, stable=True)
    columns = find_largest(probs, count)[1].sort(dim=-1).values
    top, order = probs.gather(1, columns).sort(dim=-1, descending=True, stable=True)
    return top, columns.gather(1, order)


def find_largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` largest values of each row `[n, V]`, largest first, and their columns.

    As `topk`, several times as fast for a large vocabulary: each of the largest values lies in one
    of the `count` blocks with the largest maxima, or in the rest behind the last whole block.
    """
    size = values.shape[-1]
    n_blocks = size // BLOCK
    if n_blocks <= 2 * count:
        return values.topk(min(count, size), dim=-1)
    whole = values[:, : n_blocks * BLOCK].unflatten(1, (n_blocks, BLOCK))
    blocks = whole.amax(dim=-1).topk(count, dim=-1).indices
    columns = (blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=values.device)).flatten(1)
    last_positions = torch.arange(n_blocks * BLOCK, size, device=values.device).expand(
        len(values), -1
    )
    columns = torch.cat([columns, last_positions], dim=1)
    top, index = values.gather(1, columns).topk(count, dim=-1)
    return top, columns.gather(1, index)


def top_logprobs(
    logits: Tensor, token: int, count: int, tokenizer: Any
) -> tuple[float, tuple[tuple[str, float], ...]]:
    """Returns the log-probability of the chosen token and the `count` most probable tokens with
    theirs.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    values, ids = (
        logprobs.topk(count) if count else (logprobs[:0], torch.empty(0, dtype=torch.long))
    )
    texts = [str(tokenizer.decode([int(i)])) for i in ids.tolist()]
    return float(logprobs[token]), tuple(zip(texts, (float(v) for v in values.tolist())))
