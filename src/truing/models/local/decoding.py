"""Continuous batching: requests join the batch when a slot is free and leave it when they end.

After Orca (Yu et al., OSDI 2022): the batch is formed anew at each step, without padding. Prompts
are prefilled packed; the head that they share (system message, few-shot examples) is prefilled once
and kept as one block of keys and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from truing.core.types import Sampling, TokenLogprob
from truing.models.local.attention import PackedStep, PrefixBlock
from truing.models.local.forward import PackedForward, group_causal_segments
from truing.models.local.kept_prefix import KeptPrefix
from truing.models.local.kv_cache import DecodeStep, KVCache
from truing.models.local.sampling import sample_tokens, top_logprobs
from truing.models.local.template import EncodedPrompt


@dataclass(eq=False)
class GenerationRequest:
    """One answer to generate.

    `on_text` is called with the text so far after each token, `on_finish` with the finished
    request; `shared_length` is the length of the shared head in front of the request's own tokens.
    With `kept_prefix`, that head is what this prompt has in common with the cached one, and this
    prompt is cached in its place. `block` holds the keys and values of the head while the request
    runs.
    """

    prompt: EncodedPrompt
    sampling: Sampling
    rng: np.random.Generator | None
    on_finish: Callable[[GenerationRequest], None]
    on_text: Callable[[str], None] | None = None
    kept_prefix: KeptPrefix | None = None
    shared_length: int = 0
    block: PrefixBlock | None = None
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str = ""
    text: str = ""
    failure: tuple[str, str] | None = None
    cancelled: bool = False

    @property
    def position(self) -> int:
        """The position of the next token."""
        return len(self.prompt.ids) + len(self.output_ids) - 1


class Decoder:
    """Generates answers with one `PackedForward`; one thread calls `step` repeatedly."""

    def __init__(
        self, forward: PackedForward, *, slots: int = 64, read: int = 2048, heads: int = 4
    ) -> None:
        self.forward = forward
        self.slots = slots
        self.read = read
        self.max_heads = heads
        self.rows = KVCache(slots)
        self.live: list[GenerationRequest] = []
        self.waiting: list[GenerationRequest] = []
        self._joining: list[GenerationRequest] = []

    @property
    def busy(self) -> bool:
        """Whether requests are running or waiting."""
        return bool(self.live or self.waiting)

    def add(self, requests: Sequence[GenerationRequest]) -> None:
        """Queues requests. The longest prompts go first, so that the rows of a batch are alike."""
        counts = Counter(
            r.prompt.ids[:h] for r in (*requests, *self.waiting) for h in r.prompt.heads[:1]
        )
        for request in requests:
            request.shared_length = self._choose_shared_head(request, counts)
            room_left = self.forward.window - len(request.prompt.ids)
            if room_left < 1:
                message = (
                    f"the prompt has {len(request.prompt.ids)} tokens, the model reads "
                    f"{self.forward.window}"
                )
                self._finish_request(request, "error", failure=("context", message))
            elif request.sampling.max_tokens < 1:
                self._finish_request(request, "length")
            else:
                self.waiting.append(request)
        self.waiting.sort(key=lambda r: len(r.prompt.ids) - r.shared_length)  # taken from the end

    def _choose_shared_head(
        self, request: GenerationRequest, counts: Counter[tuple[int, ...]]
    ) -> int:
        """Returns the length of the shared head: the history if several prompts have it, else the
        system message.
        """
        if request.kept_prefix is not None:
            return request.kept_prefix.match(request.prompt.ids)
        heads = request.prompt.heads
        if not heads:
            return 0
        longest = request.prompt.ids[: heads[0]]
        # Each distinct head costs a forward pass of its own, so the longer one must be shared by
        # several requests (or be computed already).
        if len(heads) == 1 or counts[longest] >= 4 or self.forward.has_prefix(longest):
            return heads[0]
        return heads[-1]

    def step(self) -> None:
        """Admits waiting requests if slots are free, then generates one token for each running
        request.
        """
        self._remove_finished()
        free_slots = self.slots - len(self.live)
        # Not for each free slot: prefilling a few prompts together is cheaper.
        if self.waiting and (
            free_slots >= max(1, self.slots // 8) or free_slots >= len(self.waiting)
        ):
            self._admit_requests(free_slots)
        if self.live:
            self._decode_step()

    def fail(self, kind: str, message: str) -> None:
        """Ends all requests with a failure (the forward pass raised)."""
        for request in (*self.live, *self._joining, *self.waiting):
            self._finish_request(request, "error", failure=(kind, message))
        self.live, self.waiting, self._joining = [], [], []
        self.rows = KVCache(self.slots)

    def _remove_finished(self) -> None:
        # From the end: `drop` moves the last row into the gap, and that row has been checked
        # already.
        for index in range(len(self.live) - 1, -1, -1):
            if self.live[index].finish_reason or self.live[index].cancelled:
                last = self.rows.drop(index)
                self.live[index] = self.live[last]
                self.live.pop()
        self.waiting = [r for r in self.waiting if not r.cancelled]

    def _admit_requests(self, free_slots: int) -> None:
        requests_by_head: dict[tuple[int, ...], list[GenerationRequest]] = {}
        live_blocks = {
            r.prompt.ids[: r.shared_length]: r.block for r in self.live if r.block is not None
        }
        live_heads = set(live_blocks)
        for _ in range(min(free_slots, len(self.waiting))):
            request = self.waiting.pop()
            # Until they are live, requests are kept here so that `fail` reaches them too.
            self._joining.append(request)
            if (
                request.shared_length
                and request.prompt.ids[: request.shared_length] not in live_heads
                and len(live_heads) >= self.max_heads
            ):
                # Too many different heads at once: this one is read with its row.
                request.shared_length = self._find_live_head(request, live_heads)
            head = request.prompt.ids[: request.shared_length]
            live_heads.update({head} if head else ())
            requests_by_head.setdefault(head, []).append(request)
        for head, requests in requests_by_head.items():
            block = live_blocks.get(head) or self._make_block(head, requests)
            for request in requests:
                request.block = block
            for batch in _split_by_tokens(requests, self.read):
                self._prefill(batch, block)
        self._joining.clear()

    @staticmethod
    def _find_live_head(request: GenerationRequest, live_heads: Collection[tuple[int, ...]]) -> int:
        """Returns the length of the longest head of a prompt that runs already; 0 if none does."""
        ids, heads = request.prompt.ids, request.prompt.heads
        if request.kept_prefix is not None:
            # The tokens behind the head are cached, and so those of the head must be.
            heads = tuple(h for h in heads if h <= request.shared_length)
        return next((h for h in heads if ids[:h] in live_heads), 0)

    def _make_block(
        self, head: tuple[int, ...], requests: Sequence[GenerationRequest]
    ) -> PrefixBlock | None:
        """Returns the keys and values of a head that the requests share; None for an empty one."""
        if not head:
            return None
        prefix = next((r.kept_prefix for r in requests if r.kept_prefix is not None), None)
        return self.forward.cached_prefix(head) if prefix is None else prefix.block(len(head))

    def _prefill(self, requests: list[GenerationRequest], block: PrefixBlock | None) -> None:
        """Prefills prompts packed; equal prompts (n > 1) are prefilled once."""
        row_of_prompt: dict[tuple[int, ...], int] = {}
        for request in requests:
            row_of_prompt.setdefault(request.prompt.ids, len(row_of_prompt))
        start = block.length if block is not None else 0
        parts = [ids[start:] for ids in row_of_prompt]
        lengths = [len(p) for p in parts]
        ends = np.cumsum(lengths)
        forward = self.forward
        index = torch.cat([torch.arange(start, start + n) for n in lengths]).to(forward.device)
        packed = PackedStep(group_causal_segments(lengths, forward.device), index, block, keep=True)
        hidden = forward.hidden(forward.tensor([t for p in parts for t in p]), index, packed)
        # Only the last token of each prompt predicts; logits of all would be [T, vocabulary].
        logits = forward.logits(hidden[torch.as_tensor(ends - 1, device=hidden.device)])
        prompt_rows = [row_of_prompt[r.prompt.ids] for r in requests]
        self.rows.add(
            packed.k, packed.v, [(int(ends[i]) - lengths[i], int(ends[i])) for i in prompt_rows]
        )
        for request, row in zip(requests, prompt_rows, strict=True):
            if request.kept_prefix is not None:
                own_tokens = slice(int(ends[row]) - lengths[row], int(ends[row]))
                new_keys, new_values = (
                    [t[:, own_tokens] for t in ts] for ts in (packed.k, packed.v)
                )
                request.kept_prefix.store(request.prompt.ids, start, new_keys, new_values)
        self.live += requests
        self._append_tokens(requests, logits[torch.tensor(prompt_rows, device=logits.device)])

    def _decode_step(self) -> None:
        live = [r for r in self.live if not r.finish_reason]
        if len(live) < len(self.live):  # some ended with their first token
            self._remove_finished()
            if not self.live:
                return
        forward = self.forward
        index = forward.tensor([r.position for r in self.live])
        step = DecodeStep(self.rows, index, self._shared_blocks())
        hidden = forward.hidden(forward.tensor([r.output_ids[-1] for r in self.live]), index, step)
        step.commit_tokens()
        self._append_tokens(self.live, forward.logits(hidden))

    def _shared_blocks(self) -> list[tuple[PrefixBlock, Tensor | None]]:
        # By identity: rows with the same head have the same block.
        rows_of_block: dict[int, tuple[PrefixBlock, list[int]]] = {}
        for row, request in enumerate(self.live):
            if request.block is not None:
                block = request.block
                rows_of_block.setdefault(id(block), (block, []))[1].append(row)
        return [
            (block, None if len(rows) == len(self.live) else self.forward.tensor(rows))
            for block, rows in rows_of_block.values()
        ]

    def _append_tokens(self, requests: Sequence[GenerationRequest], logits: Tensor) -> None:
        """Samples a token for each row and finishes the rows that are done."""
        # One draw for each token from the request's own generator: the composition of the batch
        # does not change an answer.
        uniform_draws = [r.rng.random() if r.rng is not None else 0.0 for r in requests]
        tokens = sample_tokens(logits, [r.sampling for r in requests], uniform_draws)
        for index, (request, token) in enumerate(zip(requests, tokens)):
            if token < 0:
                self._finish_request(
                    request, "error", failure=("nan", "the model returned NaN logits")
                )
                continue
            if request.sampling.logprobs is not None:
                self._record_logprobs(request, logits[index], token)
            if token in self.forward.ends:
                self._finish_request(request, "stop")
                continue
            request.output_ids.append(token)
            self._check_finished(request)

    def _record_logprobs(self, request: GenerationRequest, row: Tensor, token: int) -> None:
        tokenizer: Any = self.forward.tokenizer
        logprob, top = top_logprobs(row, token, request.sampling.logprobs or 0, tokenizer)
        request.logprobs.append(TokenLogprob(str(tokenizer.decode([token])), logprob, top))

    def _check_finished(self, request: GenerationRequest) -> None:
        """Finishes a request at a stop string, its token limit or the context window; reports the
        text so far.
        """
        stop = request.sampling.stop
        if stop or request.on_text is not None:
            # The whole answer is decoded each time: a stop string may span tokens, and a token
            # may end within a UTF-8 character.
            text = self.forward.decode(request.output_ids)
            cut = min((i for i in (text.find(s) for s in stop if s) if i >= 0), default=-1)
            if cut >= 0:
                self._finish_request(request, "stop", text=text[:cut])
                return
            if request.on_text is not None:
                request.on_text(text)
        full = len(request.prompt.ids) + len(request.output_ids) >= self.forward.window
        if len(request.output_ids) >= request.sampling.max_tokens or full:
            self._finish_request(request, "length")

    def _finish_request(
        self,
        request: GenerationRequest,
        finish: str,
        *,
        text: str | None = None,
        failure: tuple[str, str] | None = None,
    ) -> None:
        if request.finish_reason:
            return
        request.finish_reason, request.failure = finish, failure
        request.text = self.forward.decode(request.output_ids) if text is None else text
        request.on_finish(request)


def _split_by_tokens(
    requests: Sequence[GenerationRequest], tokens: int
) -> list[list[GenerationRequest]]:
    batches: list[list[GenerationRequest]] = []
    # Full from the start, so that the first request opens a batch; one longer than the limit gets
    # a batch of its own.
    used = tokens
    for request in requests:
        prompt_tokens = len(request.prompt.ids) - request.shared_length
        if used + prompt_tokens > tokens or not batches:
            batches.append([])
            used = 0
        batches[-1].append(request)
        used += prompt_tokens
    return batches
