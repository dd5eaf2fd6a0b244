"""How likely a local model finds given continuations, at one reading of each shared prefix.

Many requests are one tree of tokens (`prefix.Tree`): what choices of one question, questions of one context and prompts
of one header have in common is read once. Logits are made at the positions that predict a continuation, in slices, and
nowhere else; nothing is padded but inside attention. Text becomes tokens as lm-evaluation-harness has it
(`encode`), so that numbers agree with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from truing.core.errors import UserError
from truing.core.types import ContinuationScores, Conversation, Failure
from truing.models.local.attention import Block, Group, Packed
from truing.models.local.forward import Forward, causal
from truing.models.local.prefix import Close, Head, Ints, Segment, Tree, Wanted
from truing.models.local.template import Template


@dataclass(frozen=True)
class Query:
    """One prefix and the continuations to score after it."""

    prefix: Conversation | str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """Limits of one pass: tokens read together, tokens of one tree, the shortest kept head, bytes of logits."""

    tokens: int = 2048
    tree: int = 256
    head: int = 32
    logits: int = 64 << 20


class Likelihood:
    """Scores queries on one `Forward`; not for several threads at once."""

    def __init__(self, forward: Forward, template: Template, budget: Budget | None = None) -> None:
        self.forward = forward
        self.template = template
        large = Budget(tokens=16384, tree=1024, logits=512 << 20)
        self.budget = budget or (large if forward.device.type == "cuda" else Budget())

    def score(self, queries: Sequence[Query]) -> list[list[ContinuationScores]]:
        """The scores of every continuation of every query, in their order."""
        encoded = self._encode(queries)
        whole = [e for e in encoded if e.failure is None]
        tree = Tree([e.read for e in whole], [e.start for e in whole], [e.targets for e in whole])
        out = _Run(self, int(sum(len(e.targets) for e in whole))).all(tree)
        made: list[ContinuationScores] = []
        place = 0
        for e in encoded:
            if e.failure is not None:
                made.append(ContinuationScores((), e.cut, e.merged, e.failure))
                continue
            made.append(
                ContinuationScores(
                    tuple(out[place : place + len(e.targets)].tolist()), e.cut, e.merged
                )
            )
            place += len(e.targets)
        sizes = np.cumsum([0, *(len(q.continuations) for q in queries)])
        return [made[a:b] for a, b in itertools.pairwise(sizes)]

    def _encode(self, queries: Sequence[Query]) -> list[_Encoded]:
        contexts: list[tuple[str, bool] | Failure] = []
        for query in queries:
            try:
                contexts.append(self._context(query.prefix))
            except (UserError, ValueError) as error:
                contexts.append(Failure("model", "template", str(error)))
        texts: list[str] = []
        for query, context in zip(queries, contexts):
            if not isinstance(context, Failure):
                texts += [
                    context[0][: _end(*context)],
                    *(context[0] + c for c in query.continuations),
                ]
        ids = iter(self._tokens(texts))
        made: list[_Encoded] = []
        for query, context in zip(queries, contexts):
            if isinstance(context, Failure):
                made += [_Encoded(failure=context) for _ in query.continuations]
                continue
            before = next(ids)
            made += [self._pair(context[0], before, next(ids)) for _ in query.continuations]
        return made

    def _context(self, prefix: Conversation | str) -> tuple[str, bool]:
        """The text before the continuation, and whether spaces at its end go to the continuation."""
        return (prefix, True) if isinstance(prefix, str) else (self.template.render(prefix), False)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids with the special tokens that the tokenizer adds by itself, unless the text begins with them."""
        tokenizer: Any = self.forward.tokenizer
        opening = tokenizer.bos_token or ""
        mute = [bool(opening) and t.startswith(opening) for t in texts]
        made: list[list[int]] = [[]] * len(texts)
        for special in (True, False):
            chosen = [i for i, m in enumerate(mute) if m is not special]
            if chosen:
                some = tokenizer([texts[i] for i in chosen], add_special_tokens=special).input_ids
                for i, row in zip(chosen, some):
                    made[i] = row
        return made

    def _pair(self, context: str, before: list[int], whole: list[int]) -> _Encoded:
        """Context and continuation as ids: the whole is tokenised, and cut where the context alone would end.

        Where a token reaches over that place the continuation keeps what comes after it (`merged`), as in
        lm-evaluation-harness. An empty context is the begin (or end) token. Too long a context loses its first tokens.
        """
        if not context:
            tokenizer: Any = self.forward.tokenizer
            first = (
                tokenizer.bos_token_id
                if tokenizer.bos_token_id is not None
                else tokenizer.eos_token_id
            )
            before = [first]
            whole = whole if whole[:1] == before else [first, *whole]
        n = len(before)
        after = whole[n:]
        merged = whole[:n] != before
        if not after:
            return _Encoded(
                failure=Failure("model", "empty", "the continuation has no token of its own"),
                merged=merged,
            )
        cut = max(0, n + len(after) - 1 - self.forward.window)
        if cut >= n:
            words = (
                f"the continuation has {len(after)} tokens, the model reads {self.forward.window}"
            )
            return _Encoded(failure=Failure("model", "context", words))
        ids = np.array([*before[cut:], *after], dtype=np.int64)
        start = n - cut - 1
        return _Encoded(ids[:-1], start, ids[start + 1 :], cut, merged)


def _end(context: str, moves: bool) -> int:
    return len(context.rstrip()) if moves else len(context)


def _none() -> Ints:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class _Encoded:
    read: Ints = field(default_factory=_none)
    start: int = 0
    targets: Ints = field(default_factory=_none)
    cut: int = 0
    merged: bool = False
    failure: Failure | None = None


class _Run:
    """One walk through a tree: opens heads, gathers segments into passes, fills the output."""

    def __init__(self, engine: Likelihood, size: int) -> None:
        self.forward = engine.forward
        self.budget = engine.budget
        self.out = np.full(size, np.nan, dtype=np.float64)
        self.heads: list[Block] = []
        self.waiting: list[Segment] = []

    def all(self, tree: Tree) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The log-probability of every target, by place."""
        used = 0
        for part in tree.parts(most=self.budget.tree, head=self.budget.head):
            if isinstance(part, Segment):
                if self.waiting and used + len(part.ids) > self.budget.tokens:
                    used = self._flush()
                self.waiting.append(part)
                used += len(part.ids)
                continue
            used = self._flush()
            if isinstance(part, Head):
                self._open(part)
            elif isinstance(part, Close):
                self.heads.pop()
        self._flush()
        return self.out

    @property
    def _block(self) -> Block | None:
        return self.heads[-1] if self.heads else None

    def _open(self, head: Head) -> None:
        forward = self.forward
        at = torch.arange(head.start, head.start + len(head.ids), device=forward.device)
        step = Packed(causal([len(head.ids)], forward.device), at, self._block, keep=True)
        hidden = forward.hidden(torch.from_numpy(head.ids).to(forward.device), at, step)
        self._fill(hidden, [head.wanted], [0])
        block = self._block
        if block is not None:
            self.heads.append(block.then(step.k, step.v))
        else:
            keys, values = (
                [t.unsqueeze(0).contiguous() for t in kept] for kept in (step.k, step.v)
            )
            self.heads.append(Block(keys, values))

    def _flush(self) -> int:
        parts, self.waiting = self.waiting, []
        if parts:
            forward = self.forward
            first = np.cumsum([0, *(len(p.ids) for p in parts)])
            ids = torch.from_numpy(np.concatenate([p.ids for p in parts])).to(forward.device)
            at = torch.from_numpy(np.concatenate([p.at for p in parts])).to(forward.device)
            step = Packed(_groups(parts, first, forward.device), at, self._block)
            self._fill(forward.hidden(ids, at, step), [p.wanted for p in parts], first)
        return 0

    def _fill(self, hidden: Tensor, wanted: Sequence[Wanted], first: Sequence[int] | Ints) -> None:
        rows = np.concatenate([w.rows + f for w, f in zip(wanted, first)])
        if not len(rows):
            return
        targets = np.concatenate([w.targets for w in wanted])
        places = np.concatenate([w.places for w in wanted])
        distinct, which = np.unique(rows, return_inverse=True)
        order = np.argsort(which, kind="stable")
        which, targets, places = which[order], targets[order], places[order]
        size = max(1, self.budget.logits // (4 * int(self.forward.head.weight.shape[0])))
        device = hidden.device
        for low in range(0, len(distinct), size):
            high = min(low + size, len(distinct))
            logits = self.forward.logits(hidden[torch.from_numpy(distinct[low:high]).to(device)])
            mass = torch.logsumexp(logits, dim=-1)
            a, b = np.searchsorted(which, (low, high))
            row = torch.from_numpy(which[a:b] - low).to(device)
            found = logits[row, torch.from_numpy(targets[a:b]).to(device)] - mass[row]
            self.out[places[a:b]] = found.double().cpu().numpy()


def _groups(
    parts: Sequence[Segment], first: Ints, device: torch.device, waste: float = 0.2
) -> list[Group]:
    """Segments of similar length together, trees apart from plain rows."""
    made: list[Group] = []
    for trees in (False, True):
        chosen = [i for i, p in enumerate(parts) if (p.sees is not None) is trees]
        chosen.sort(key=lambda i: -len(parts[i].ids))
        while chosen:
            wide = len(parts[chosen[0]].ids)
            n = sum(len(parts[i].ids) >= wide * (1 - waste) - 8 for i in chosen)
            made.append(
                _group(
                    [parts[i] for i in chosen[:n]],
                    [int(first[i]) for i in chosen[:n]],
                    wide,
                    device,
                )
            )
            chosen = chosen[n:]
    return made


def _group(
    parts: Sequence[Segment], first: Sequence[int], wide: int, device: torch.device
) -> Group:
    sizes = np.array([len(p.ids) for p in parts])[:, None]
    offsets = np.arange(wide)[None]
    index = np.array(first)[:, None] + np.minimum(offsets, sizes - 1)
    real = torch.from_numpy(offsets < sizes).to(device)
    sees = None
    if parts[0].sees is not None:
        whole = np.zeros((len(parts), wide, wide), dtype=bool)
        for at, part in enumerate(parts):
            t = len(part.ids)
            whole[at, :t, :t] = part.sees
        sees = torch.from_numpy(whole).to(device)
    return Group(torch.from_numpy(index).to(device), real, sees)
