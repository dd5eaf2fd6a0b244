"""Continuous batching: rows join when there is room, leave when they end, and no token is padding.

After Orca (Yu et al., OSDI 2022): the batch is remade at each step. Prompts are read packed; the head that they share
(system message, few-shot examples) is read once and kept as one block of keys and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from truing.core.types import Sampling, TokenLogprob
from truing.models.local.attention import Block, Packed
from truing.models.local.forward import Forward, causal
from truing.models.local.rows import Decode, Rows
from truing.models.local.sampling import likeliest, pick
from truing.models.local.template import Prompt


@dataclass(eq=False)
class Request:
    """One answer to write. `told` hears the text so far after each token, `ended` the finished request."""

    prompt: Prompt
    sampling: Sampling
    rng: np.random.Generator | None
    ended: Callable[[Request], None]
    told: Callable[[str], None] | None = None
    head: int = 0
    out: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str = ""
    text: str = ""
    failure: tuple[str, str] | None = None
    cancelled: bool = False

    @property
    def position(self) -> int:
        """The position of the token that is read next."""
        return len(self.prompt.ids) + len(self.out) - 1


class Decoder:
    """Writes answers on one `Forward`; `step` is called again and again by one thread."""

    def __init__(
        self, forward: Forward, *, slots: int = 64, read: int = 2048, heads: int = 4
    ) -> None:
        self.forward = forward
        self.slots = slots
        self.read = read
        self.max_heads = heads
        self.rows = Rows(slots)
        self.live: list[Request] = []
        self.waiting: list[Request] = []
        self._joining: list[Request] = []
        self._blocks: dict[tuple[int, ...], Block] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is left to write."""
        return bool(self.live or self.waiting)

    def add(self, requests: Sequence[Request]) -> None:
        """More answers to write. Longest prompts go first, so that rows of one time are alike."""
        counts = Counter(
            r.prompt.ids[:h] for r in (*requests, *self.waiting) for h in r.prompt.heads[:1]
        )
        for request in requests:
            request.head = self._choose(request, counts)
            room = self.forward.window - len(request.prompt.ids)
            if room < 1:
                words = f"the prompt has {len(request.prompt.ids)} tokens, the model reads {self.forward.window}"
                self._end(request, "error", failure=("context", words))
            elif request.sampling.max_tokens < 1:
                self._end(request, "length")
            else:
                self.waiting.append(request)
        self.waiting.sort(key=lambda r: len(r.prompt.ids) - r.head)  # taken from the end

    def _choose(self, request: Request, counts: Counter[tuple[int, ...]]) -> int:
        """The whole history as shared head only where several prompts have it; else the system message."""
        heads = request.prompt.heads
        if not heads:
            return 0
        longest = request.prompt.ids[: heads[0]]
        if len(heads) == 1 or counts[longest] >= 4 or self.forward.knows(longest):
            return heads[0]
        return heads[-1]

    def step(self) -> None:
        """Lets rows join if there is room, then writes one token in each."""
        self._leave()
        free = self.slots - len(self.live)
        if self.waiting and (free >= max(1, self.slots // 8) or free >= len(self.waiting)):
            self._join(free)
        if self.live:
            self._write()

    def fail(self, kind: str, words: str) -> None:
        """Ends everything with a failure (the forward pass broke)."""
        for request in (*self.live, *self._joining, *self.waiting):
            self._end(request, "error", failure=(kind, words))
        self.live, self.waiting, self._joining, self._blocks = [], [], [], {}
        self.rows = Rows(self.slots)

    def _leave(self) -> None:
        for at in range(len(self.live) - 1, -1, -1):
            if self.live[at].finish or self.live[at].cancelled:
                moved = self.rows.drop(at)
                self.live[at] = self.live[moved]
                self.live.pop()
        self.waiting = [r for r in self.waiting if not r.cancelled]
        if not self.live:
            self._blocks.clear()

    def _join(self, free: int) -> None:
        joining: dict[tuple[int, ...], list[Request]] = {}
        held = {r.prompt.ids[: r.head] for r in self.live if r.head}
        for _ in range(min(free, len(self.waiting))):
            request = self.waiting.pop()
            self._joining.append(request)
            if (
                request.head
                and request.prompt.ids[: request.head] not in held
                and len(held) >= self.max_heads
            ):
                ids = (
                    request.prompt.ids
                )  # too many different heads at once: this one is read with its row
                request.head = next((h for h in request.prompt.heads if ids[:h] in held), 0)
            head = request.prompt.ids[: request.head]
            held.update({head} if head else ())
            joining.setdefault(head, []).append(request)
        for head, requests in joining.items():
            if head and head not in self._blocks:
                self._blocks[head] = self.forward.stored(head)
            for batch in _by_budget(requests, self.read):
                self._read(batch, self._blocks.get(head))
        self._joining.clear()

    def _read(self, requests: list[Request], block: Block | None) -> None:
        """Reads prompts packed; answers to equal prompts (n > 1) share one reading."""
        first: dict[tuple[int, ...], int] = {}
        for request in requests:
            first.setdefault(request.prompt.ids, len(first))
        start = block.length if block is not None else 0
        parts = [ids[start:] for ids in first]
        lengths = [len(p) for p in parts]
        ends = np.cumsum(lengths)
        forward = self.forward
        at = torch.cat([torch.arange(start, start + n) for n in lengths]).to(forward.device)
        packed = Packed(causal(lengths, forward.device), at, block, keep=True)
        hidden = forward.hidden(forward.tensor([t for p in parts for t in p]), at, packed)
        logits = forward.logits(hidden[torch.as_tensor(ends - 1, device=hidden.device)])
        which = [first[r.prompt.ids] for r in requests]
        self.rows.add(
            packed.k, packed.v, [(int(ends[i]) - lengths[i], int(ends[i])) for i in which]
        )
        self.live += requests
        self._take(requests, logits[torch.tensor(which, device=logits.device)])

    def _write(self) -> None:
        live = [r for r in self.live if not r.finish]
        if len(live) < len(self.live):  # some ended with their first token
            self._leave()
            if not self.live:
                return
        forward = self.forward
        at = forward.tensor([r.position for r in self.live])
        step = Decode(self.rows, at, self._shared())
        hidden = forward.hidden(forward.tensor([r.out[-1] for r in self.live]), at, step)
        step.done()
        self._take(self.live, forward.logits(hidden))

    def _shared(self) -> list[tuple[Block, Tensor | None]]:
        heads = [r.prompt.ids[: r.head] for r in self.live]
        made: list[tuple[Block, Tensor | None]] = []
        for head in dict.fromkeys(h for h in heads if h):
            rows = [i for i, h in enumerate(heads) if h == head]
            every = len(rows) == len(heads)
            made.append((self._blocks[head], None if every else self.forward.tensor(rows)))
        return made

    def _take(self, requests: Sequence[Request], logits: Tensor) -> None:
        """Chooses a token for each row and ends the rows that are done."""
        draws = [r.rng.random() if r.rng is not None else 0.0 for r in requests]
        tokens = pick(logits, [r.sampling for r in requests], draws)
        for at, (request, token) in enumerate(zip(requests, tokens)):
            if token < 0:
                self._end(
                    request, "error", failure=("nan", "the model gave logits that are no numbers")
                )
                continue
            if request.sampling.logprobs is not None:
                self._note(request, logits[at], token)
            if token in self.forward.ends:
                self._end(request, "stop")
                continue
            request.out.append(token)
            self._look(request)

    def _note(self, request: Request, row: Tensor, token: int) -> None:
        tokenizer: Any = self.forward.tokenizer
        mass, top = likeliest(row, token, request.sampling.logprobs or 0, tokenizer)
        request.logprobs.append(TokenLogprob(str(tokenizer.decode([token])), mass, top))

    def _look(self, request: Request) -> None:
        """Ends a row at a stop string, its limit or the window; tells a listener the text so far."""
        stop = request.sampling.stop
        if stop or request.told is not None:
            text = self.forward.decode(request.out)
            cut = min((i for i in (text.find(s) for s in stop if s) if i >= 0), default=-1)
            if cut >= 0:
                self._end(request, "stop", text=text[:cut])
                return
            if request.told is not None:
                request.told(text)
        full = len(request.prompt.ids) + len(request.out) >= self.forward.window
        if len(request.out) >= request.sampling.max_tokens or full:
            self._end(request, "length")

    def _end(
        self,
        request: Request,
        finish: str,
        *,
        text: str | None = None,
        failure: tuple[str, str] | None = None,
    ) -> None:
        if request.finish:
            return
        request.finish, request.failure = finish, failure
        request.text = self.forward.decode(request.out) if text is None else text
        request.ended(request)


def _by_budget(requests: Sequence[Request], tokens: int) -> list[list[Request]]:
    made: list[list[Request]] = []
    used = tokens
    for request in requests:
        need = len(request.prompt.ids) - request.head
        if used + need > tokens or not made:
            made.append([])
            used = 0
        made[-1].append(request)
        used += need
    return made
