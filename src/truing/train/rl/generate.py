"""Draws answers from the model in training: one reading a prompt, a key-value cache, rows that are done dropped.

Each answer draws from a random stream of its own (seed, step, place), so that neither the batch, nor the number of
processes, nor
a resumed run changes it.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from truing.core.errors import UserError
from truing.core.types import stream_seed
from truing.hf.loading import pad_rows, position_ids
from truing.train.rl.rollout import Answered


class Generator(Protocol):
    """Draws one answer for each row; `draws` `[B, A]` are uniform numbers, a row's own random stream."""

    def __call__(self, prompts: Sequence[Sequence[int]], draws: np.ndarray) -> Answered:
        """Equal prompts next to one another are read once."""
        ...


def streams(seed: int, step: int, index: Sequence[int], width: int) -> np.ndarray:
    """Uniform numbers `[B, width]`, each row keyed by (seed, step, its place among all processes)."""
    rows = [
        np.random.Generator(np.random.Philox(key=stream_seed(seed, "answer", step, at)))
        for at in index
    ]
    return np.stack([r.random(width) for r in rows]) if rows else np.zeros((0, width))


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Float32 (or float64) logits of the distribution that answers are drawn from."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide if temperature == 1.0 else wide / temperature


def choose(logits: Tensor, draw: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """A token for each row and its log-probability (of the whole distribution, whatever `top_p` left out)."""
    logs = torch.log_softmax(logits, -1)
    probs = logs.exp()
    if top_p < 1:
        top, where = probs.sort(-1, descending=True)
        top = torch.where(top.cumsum(-1) - top < top_p, top, torch.zeros_like(top))
        token = where.gather(-1, _invert(top, draw)).squeeze(-1)
    else:
        token = _invert(probs, draw).squeeze(-1)
    return token, logs.gather(-1, token.unsqueeze(-1)).squeeze(-1)


def _invert(probs: Tensor, draw: Tensor) -> Tensor:
    total = probs.cumsum(-1)
    at = draw.to(total).unsqueeze(-1) * total[:, -1:]
    # right=True: a draw of exactly 0 must not choose a first token of probability 0
    return torch.searchsorted(total, at, right=True).clamp(max=probs.shape[-1] - 1)


class LocalGenerator:
    """Generation by the model itself, in this process; `ends` are the ids that end an answer; temperature 0 is greedy."""

    def __init__(
        self,
        model: Any,
        ends: frozenset[int],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        fill: int = 0,
        rows: int = 64,
    ) -> None:
        if not ends:
            raise UserError("the tokenizer has no end token, so an answer would never stop")
        self.model, self.temperature, self.top_p, self.fill, self.rows = (
            model,
            temperature,
            top_p,
            fill,
            rows,
        )
        self.ends = torch.tensor(sorted(ends))
        # transformers renames the argument (`past_key_values` goes in 5.40)
        named = inspect.signature(type(model).forward).parameters
        self.cache = "cache" if "cache" in named else "past_key_values"

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Sequence[int]], draws: np.ndarray) -> Answered:
        """Answers of at most `draws.shape[1]` tokens."""
        begun = time.perf_counter()
        device = next(self.model.parameters()).device.type
        training = self.model.training
        self.model.eval()
        cuts = [slice(at, at + self.rows) for at in range(0, len(prompts), self.rows)]
        with torch.autocast(
            device, enabled=False
        ):  # one token a row at a time gains nothing from it
            parts = [self._some(prompts[c], draws[c]) for c in cuts]
        self.model.train(training)
        ids = tuple(row for p in parts for row in p[0])
        ended = tuple(e for p in parts for e in p[2])
        return Answered(ids, torch.cat([p[1] for p in parts]), ended, time.perf_counter() - begun)

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Any, Tensor]:
        """Logits of the first tokens, cache and mask; a run of equal prompts is read once."""
        device = next(self.model.parameters()).device
        heads = [
            at for at, p in enumerate(prompts) if at == 0 or tuple(p) != tuple(prompts[at - 1])
        ]
        counts = [b - a for a, b in zip(heads, [*heads[1:], len(prompts)])]
        ids, mask = (
            x.to(device) for x in pad_rows([prompts[h] for h in heads], self.fill, side="left")
        )
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask),
            use_cache=True,
            logits_to_keep=1,
        )
        logits, cache = out.logits[:, -1], getattr(out, self.cache)
        if max(counts) > 1:
            which = torch.repeat_interleave(torch.arange(len(heads)), torch.tensor(counts)).to(
                device
            )
            if len(set(counts)) == 1:
                cache.batch_repeat_interleave(counts[0])
            else:
                cache.batch_select_indices(which)
            logits, mask = logits[which], mask[which]
        return logits, cache, mask

    def _some(
        self, prompts: Sequence[Sequence[int]], draws: np.ndarray
    ) -> tuple[list[tuple[int, ...]], Tensor, list[bool]]:
        logits, cache, mask = self._prefill(prompts)
        device, count, longest = logits.device, len(prompts), draws.shape[1]
        uniform = torch.from_numpy(draws).to(device)
        tokens = torch.full((count, longest), self.fill, dtype=torch.long, device=device)
        log_probs = torch.zeros(
            (count, longest), dtype=tempered(logits[:1], 1.0).dtype, device=device
        )
        length = torch.zeros(count, dtype=torch.long, device=device)
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        live = torch.arange(count, device=device)
        ends = self.ends.to(device)
        for t in range(longest):
            if self.temperature == 0:
                chance, token = torch.log_softmax(tempered(logits, 1.0), -1).max(-1)
            else:
                token, chance = choose(
                    tempered(logits, self.temperature), uniform[live, t], self.top_p
                )
            if not bool(torch.isfinite(chance).all()):
                raise UserError(
                    "the model gave logits that are no numbers: the policy has diverged (lower the learning "
                    "rate)"
                )
            tokens[live, t], log_probs[live, t] = token, chance
            length[live] += 1
            stop = torch.isin(token, ends)
            ended[live[stop]] = True
            keep = ~stop
            if t + 1 == longest or not bool(keep.any()):
                break
            if bool(stop.any()):
                rows = keep.nonzero().squeeze(-1)
                cache.batch_select_indices(rows)
                live, token, mask = live[rows], token[rows], mask[rows]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            at = mask.sum(-1, keepdim=True) - 1
            out = self.model(
                input_ids=token.unsqueeze(-1),
                attention_mask=mask,
                position_ids=at,
                use_cache=True,
                **{self.cache: cache},
            )
            logits, cache = out.logits[:, -1], getattr(out, self.cache)
        rows_ = [tuple(r[:n]) for r, n in zip(tokens.tolist(), length.tolist())]
        return rows_, log_probs, ended.tolist()
