"""Choosing the next token: each answer draws from a random stream of its own, so that no neighbour changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from truing.core.types import Conversation, Sampling


def stream(seed: int, conversation: Conversation, index: int) -> np.random.Generator:
    """The random stream of the `index`-th answer: a counter-based generator keyed by seed, content and index."""
    text = msgspec.json.encode([seed, conversation, index], order="deterministic")
    key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def pick(logits: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> list[int]:
    """One token for each row of float32 logits `[n, V]`; -1 where the row holds no number.

    Temperature 0 takes the first of the highest. Else the draw in [0, 1) is looked up in the row's cumulative
    distribution, restricted to its nucleus where `top_p` < 1 (Holtzman et al. 2020, arXiv:1904.09751).
    """
    best, chosen = logits.max(dim=-1)
    bad = torch.isnan(best)
    hot = [i for i, s in enumerate(samplings) if s.temperature > 0]
    if hot:
        rows = torch.tensor(hot, device=logits.device)
        heat = torch.tensor(
            [samplings[i].temperature for i in hot], dtype=torch.float32, device=logits.device
        )
        share = torch.tensor(
            [samplings[i].top_p for i in hot], dtype=torch.float32, device=logits.device
        )
        draw = torch.tensor([draws[i] for i in hot], dtype=torch.float32, device=logits.device)
        some = logits if len(hot) == len(samplings) else logits[rows]
        probs = torch.softmax(torch.nan_to_num(some) / heat[:, None].clamp(min=1e-5), dim=-1)
        chosen[rows] = (
            _nucleus(probs, share, draw) if bool((share < 1).any()) else _invert(probs, draw)
        )
    chosen = torch.where(bad, torch.full_like(chosen, -1), chosen)
    return [int(t) for t in chosen.tolist()]


def _invert(probs: Tensor, draw: Tensor) -> Tensor:
    total = probs.cumsum(dim=-1)
    # right=True: a draw of exactly 0 must not choose a first token of probability 0
    found = torch.searchsorted(total, (draw * total[:, -1])[:, None], right=True)
    return found.squeeze(1).clamp(max=probs.shape[-1] - 1)


def _nucleus(probs: Tensor, share: Tensor, draw: Tensor, first: int = 512) -> Tensor:
    """The smallest set of tokens whose mass reaches `share`; most nuclei lie within the first few hundred."""
    size = probs.shape[-1]
    top, where = probs.topk(min(first, size), dim=-1)
    if bool((top.sum(-1) < share).any()):
        top, where = probs.sort(dim=-1, descending=True)
    before = top.cumsum(dim=-1) - top
    kept = torch.where(before < share[:, None], top, torch.zeros_like(top))
    return where.gather(1, _invert(kept, draw)[:, None]).squeeze(1)


def likeliest(
    logits: Tensor, token: int, count: int, tokenizer: Any
) -> tuple[float, tuple[tuple[str, float], ...]]:
    """The log-probability of the chosen token and the `count` likeliest tokens, of one row of logits."""
    logs = torch.log_softmax(logits.float(), dim=-1)
    values, ids = logs.topk(count) if count else (logs[:0], torch.empty(0, dtype=torch.long))
    names = [str(tokenizer.decode([int(i)])) for i in ids.tolist()]
    return float(logs[token]), tuple(zip(names, (float(v) for v in values.tolist())))
