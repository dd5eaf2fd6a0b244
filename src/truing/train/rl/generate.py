"""Samples answers from the policy in training.

Equal prompts are prefilled once, decoding uses a key-value cache, and finished rows are dropped
from the batch. Each answer has a random stream of its own (keyed by seed, step and global row), so
that neither the batch size, nor the number of processes, nor a resume changes the answers.
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
from truing.core.ids import stream_seed
from truing.hf.loading import pad_rows, position_ids
from truing.train.rl.rollout import GeneratedAnswers


class AnswerGenerator(Protocol):
    """Samples one answer for each prompt."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], uniform_draws: np.ndarray
    ) -> GeneratedAnswers:
        """Samples the answers; `uniform_draws` `[B, A]`: one number per token."""
        ...


def uniform_draws(seed: int, step: int, global_rows: Sequence[int], width: int) -> np.ndarray:
    """Returns uniform numbers in [0, 1), `[B, width]`; each row has its own Philox stream."""
    if not global_rows:
        return np.zeros((0, width))
    streams = [
        np.random.Generator(np.random.Philox(key=stream_seed(seed, "answer", step, row)))
        for row in global_rows
    ]
    return np.stack([stream.random(width) for stream in streams])


def scale_logits(logits: Tensor, temperature: float) -> Tensor:
    """Returns logits / temperature in float32 (float64 stays), as the answers are sampled from."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits if temperature == 1.0 else logits / temperature


def sample_tokens(logits: Tensor, uniform_draws: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Returns one token for each row of `[B, V]` logits, and its log-probability.

    The log-probability is that of the whole distribution, also where `top_p` narrowed the sampling
    (Holtzman et al. 2020): it is what training computes again.
    """
    log_probs = torch.log_softmax(logits, -1)
    probs = log_probs.exp()
    if top_p < 1:
        sorted_probs, token_ids = probs.sort(dim=-1, descending=True, stable=True)
        # Keep each token whose predecessors have less than top_p together: the first always stays.
        mass_before = sorted_probs.cumsum(-1) - sorted_probs
        nucleus = torch.where(mass_before < top_p, sorted_probs, torch.zeros_like(sorted_probs))
        tokens = token_ids.gather(-1, _invert_cdf(nucleus, uniform_draws)).squeeze(-1)
    else:
        tokens = _invert_cdf(probs, uniform_draws).squeeze(-1)
    return tokens, log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _invert_cdf(weights: Tensor, uniform_draws: Tensor) -> Tensor:
    """Returns `[B, 1]` indices drawn by inverse transform sampling; weights need not sum to 1."""
    cdf = weights.cumsum(-1)
    thresholds = uniform_draws.to(cdf).unsqueeze(-1) * cdf[:, -1:]
    # right=True: a uniform of exactly 0 must not choose a first token of probability 0.
    return torch.searchsorted(cdf, thresholds, right=True).clamp(max=weights.shape[-1] - 1)


class LocalGenerator:
    """Samples with the model itself, in this process.

    `end_ids` are the token ids that end an answer; temperature 0 is greedy decoding; `rows` is the
    largest decoding batch.
    """

    def __init__(
        self,
        model: Any,
        end_ids: frozenset[int],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        pad_id: int = 0,
        rows: int = 64,
    ) -> None:
        if not end_ids:
            raise UserError("the tokenizer has no end token, so an answer would never stop")
        self.model = model
        self.temperature = temperature
        self.top_p = top_p
        self.pad_id = pad_id
        self.rows = rows
        self.end_ids = torch.tensor(sorted(end_ids))
        # transformers renames the argument (`past_key_values` is removed in 5.40).
        parameters = inspect.signature(type(model).forward).parameters
        self.cache_argument = "cache" if "cache" in parameters else "past_key_values"

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[Sequence[int]], uniform_draws: np.ndarray
    ) -> GeneratedAnswers:
        """Samples answers of at most `uniform_draws.shape[1]` tokens."""
        started = time.perf_counter()
        device_type = next(self.model.parameters()).device.type
        was_training = self.model.training
        self.model.eval()
        slices = [slice(begin, begin + self.rows) for begin in range(0, len(prompts), self.rows)]
        # Autocast converts weights at each call; with one token per row that does not pay.
        with torch.autocast(device_type, enabled=False):
            batches = [self._decode_batch(prompts[rows], uniform_draws[rows]) for rows in slices]
        self.model.train(was_training)
        return GeneratedAnswers(
            ids=tuple(ids for batch in batches for ids in batch.ids),
            log_probs=torch.cat([batch.log_probs for batch in batches]),
            ended=tuple(ended for batch in batches for ended in batch.ended),
            seconds=time.perf_counter() - started,
        )

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Any, Tensor]:
        """Returns the logits of the first answer token, the key-value cache, the attention mask.

        Adjacent equal prompts (the group of GRPO and RLOO) are read once and their cache repeated.
        """
        device = next(self.model.parameters()).device
        group_starts = [
            row
            for row, prompt in enumerate(prompts)
            if row == 0 or tuple(prompt) != tuple(prompts[row - 1])
        ]
        group_ends = [*group_starts[1:], len(prompts)]
        group_sizes = [end - start for start, end in zip(group_starts, group_ends)]
        ids, mask = pad_rows([prompts[row] for row in group_starts], self.pad_id, side="left")
        ids, mask = ids.to(device), mask.to(device)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask),
            use_cache=True,
            logits_to_keep=1,
        )
        logits, cache = output.logits[:, -1], getattr(output, self.cache_argument)
        if max(group_sizes) == 1:
            return logits, cache, mask
        groups = torch.arange(len(group_starts))
        group_of_row = torch.repeat_interleave(groups, torch.tensor(group_sizes)).to(device)
        if len(set(group_sizes)) == 1:
            cache.batch_repeat_interleave(group_sizes[0])
        else:
            cache.batch_select_indices(group_of_row)
        return logits[group_of_row], cache, mask[group_of_row]

    def _next_tokens(self, logits: Tensor, uniform_draws: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next token of each row and its log-probability."""
        if self.temperature == 0:
            log_probs, tokens = torch.log_softmax(scale_logits(logits, 1.0), -1).max(-1)
        else:
            scaled = scale_logits(logits, self.temperature)
            tokens, log_probs = sample_tokens(scaled, uniform_draws, self.top_p)
        if not bool(torch.isfinite(log_probs).all()):
            raise UserError(
                "the model's logits are not finite: the policy has diverged (lower the learning "
                "rate)"
            )
        return tokens, log_probs

    def _decode_batch(
        self, prompts: Sequence[Sequence[int]], uniform_draws: np.ndarray
    ) -> GeneratedAnswers:
        """Decodes one batch; rows whose answer has ended leave it."""
        logits, cache, mask = self._prefill(prompts)
        device, (count, max_tokens) = logits.device, uniform_draws.shape
        tokens = torch.full((count, max_tokens), self.pad_id, dtype=torch.long, device=device)
        log_prob_dtype = scale_logits(logits[:1], 1.0).dtype
        # Cast on the CPU: MPS has no float64.
        draws = torch.from_numpy(uniform_draws).to(log_prob_dtype).to(device)
        log_probs = torch.zeros((count, max_tokens), dtype=log_prob_dtype, device=device)
        lengths = torch.zeros(count, dtype=torch.long, device=device)
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        end_ids = self.end_ids.to(device)
        active_rows = torch.arange(count, device=device)
        for t in range(max_tokens):
            next_tokens, next_log_probs = self._next_tokens(logits, draws[active_rows, t])
            tokens[active_rows, t] = next_tokens
            log_probs[active_rows, t] = next_log_probs
            lengths[active_rows] += 1
            stops = torch.isin(next_tokens, end_ids)
            ended[active_rows[stops]] = True
            if t + 1 == max_tokens or bool(stops.all()):
                break
            if bool(stops.any()):
                going_on = (~stops).nonzero().squeeze(-1)
                cache.batch_select_indices(going_on)
                active_rows = active_rows[going_on]
                next_tokens, mask = next_tokens[going_on], mask[going_on]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            output = self.model(
                input_ids=next_tokens.unsqueeze(-1),
                attention_mask=mask,
                # Prompts are padded on the left, so a position is a count of real tokens.
                position_ids=mask.sum(-1, keepdim=True) - 1,
                use_cache=True,
                **{self.cache_argument: cache},
            )
            logits, cache = output.logits[:, -1], getattr(output, self.cache_argument)
        ids = tuple(tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist()))
        return GeneratedAnswers(ids, log_probs, tuple(ended.tolist()))
