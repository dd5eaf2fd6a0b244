"""Log-probabilities of continuations under a local model; each shared prefix is computed once.

The requests form one tree of tokens (`prefix_tree.PrefixTree`): what choices of one question,
questions of one context and prompts of one header have in common is computed once. Logits are
computed only at the positions that predict a continuation, in slices; only attention pads. Context
and continuation are tokenised as in lm-evaluation-harness, so that the numbers agree with it.
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
from truing.models.local.attention import PackedStep, PrefixBlock, SegmentGroup
from truing.models.local.forward import PackedForward, group_causal_segments
from truing.models.local.prefix_tree import (
    CloseHead,
    Ints,
    PredictionTargets,
    PrefixTree,
    Segment,
    SharedHead,
)
from truing.models.local.template import ChatTemplate


@dataclass(frozen=True)
class ScoreQuery:
    """One prefix and the continuations to score after it."""

    prefix: Conversation | str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class PassBudget:
    """Limits of one forward pass: tokens, tokens of one tree, the shortest cached head, bytes of
    logits.
    """

    tokens: int = 2048
    tree: int = 256
    head: int = 32
    logits: int = 64 << 20


class LikelihoodScorer:
    """Scores queries with one `PackedForward`; not thread-safe."""

    def __init__(
        self, forward: PackedForward, template: ChatTemplate, budget: PassBudget | None = None
    ) -> None:
        self.forward = forward
        self.template = template
        large = PassBudget(tokens=16384, tree=1024, logits=512 << 20)
        self.budget = budget or (large if forward.device.type == "cuda" else PassBudget())

    def score(self, queries: Sequence[ScoreQuery]) -> list[list[ContinuationScores]]:
        """Returns the scores of every continuation of every query, in order."""
        encoded = self._encode(queries)
        encoded_ok = [e for e in encoded if e.failure is None]
        # One tree over all queries: prefixes are shared across queries as well as within one.
        tree = PrefixTree(
            [e.read for e in encoded_ok],
            [e.start for e in encoded_ok],
            [e.targets for e in encoded_ok],
        )
        out = _TreeRun(self, int(sum(len(e.targets) for e in encoded_ok))).run(tree)
        scores: list[ContinuationScores] = []
        position = 0
        for e in encoded:
            if e.failure is not None:
                scores.append(ContinuationScores((), e.cut, e.merged, e.failure))
                continue
            scores.append(
                ContinuationScores(
                    tuple(out[position : position + len(e.targets)].tolist()), e.cut, e.merged
                )
            )
            position += len(e.targets)
        sizes = np.cumsum([0, *(len(q.continuations) for q in queries)])
        return [scores[a:b] for a, b in itertools.pairwise(sizes)]

    def _encode(self, queries: Sequence[ScoreQuery]) -> list[_Encoded]:
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
                    # lm-evaluation-harness moves trailing spaces of the context to the
                    # continuation, because tokenizers of the GPT-2 kind put a space at the start
                    # of the next word.
                    context[0][: _end(*context)],
                    *(context[0] + c for c in query.continuations),
                ]
        ids = iter(self._tokens(texts))
        scores: list[_Encoded] = []
        for query, context in zip(queries, contexts):
            if isinstance(context, Failure):
                scores += [_Encoded(failure=context) for _ in query.continuations]
                continue
            before = next(ids)
            scores += [self._pair(context[0], before, next(ids)) for _ in query.continuations]
        return scores

    def _context(self, prefix: Conversation | str) -> tuple[str, bool]:
        """Returns the text before the continuation, and whether spaces at its end belong to the
        continuation.
        """
        return (prefix, True) if isinstance(prefix, str) else (self.template.render(prefix), False)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Returns token ids with the tokenizer's special tokens, unless the text begins with
        them.
        """
        tokenizer: Any = self.forward.tokenizer
        opening = tokenizer.bos_token or ""
        has_bos = [bool(opening) and t.startswith(opening) for t in texts]
        scores: list[list[int]] = [[]] * len(texts)
        for special in (True, False):
            members = [i for i, m in enumerate(has_bos) if m is not special]
            if members:
                encoded = tokenizer(
                    [texts[i] for i in members], add_special_tokens=special
                ).input_ids
                for i, row in zip(members, encoded):
                    scores[i] = row
        return scores

    def _pair(self, context: str, before: list[int], encoded_ok: list[int]) -> _Encoded:
        """Returns context and continuation as ids: the whole is tokenised and split where the
        context would end.

        If a token spans the split, the continuation starts after it (`merged`), as in
        lm-evaluation-harness. An empty context is the BOS (or EOS) token. A context that is too
        long is cut at the left.
        """
        if not context:
            tokenizer: Any = self.forward.tokenizer
            offsets = (
                tokenizer.bos_token_id
                if tokenizer.bos_token_id is not None
                else tokenizer.eos_token_id
            )
            before = [offsets]
            encoded_ok = encoded_ok if encoded_ok[:1] == before else [offsets, *encoded_ok]
        n = len(before)
        after = encoded_ok[n:]
        merged = encoded_ok[:n] != before
        if not after:
            return _Encoded(
                failure=Failure("model", "empty", "the continuation has no token of its own"),
                merged=merged,
            )
        # The last token is a target only and is never fed to the model, hence the -1.
        cut = max(0, n + len(after) - 1 - self.forward.window)
        if cut >= n:
            message = (
                f"the continuation has {len(after)} tokens, the model reads {self.forward.window}"
            )
            return _Encoded(failure=Failure("model", "context", message))
        # Position i predicts token i + 1: the inputs are ids[:-1], and the first prediction is
        # made at the last token of the context.
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


class _TreeRun:
    """Walks through a tree: computes heads, packs segments into passes, fills the output."""

    def __init__(self, engine: LikelihoodScorer, size: int) -> None:
        self.forward = engine.forward
        self.budget = engine.budget
        self.out = np.full(size, np.nan, dtype=np.float64)
        self.heads: list[PrefixBlock] = []
        self.waiting: list[Segment] = []

    def run(self, tree: PrefixTree) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Returns the log-probability of every target, by place."""
        used = 0
        for part in tree.parts(most=self.budget.tree, head=self.budget.head):
            if isinstance(part, Segment):
                if self.waiting and used + len(part.ids) > self.budget.tokens:
                    used = self._flush()
                self.waiting.append(part)
                used += len(part.ids)
                continue
            used = self._flush()
            # The waiting segments attended to the heads so far, so they were run first.
            if isinstance(part, SharedHead):
                self._open(part)
            elif isinstance(part, CloseHead):
                self.heads.pop()
        self._flush()
        return self.out

    @property
    def _block(self) -> PrefixBlock | None:
        return self.heads[-1] if self.heads else None

    def _open(self, head: SharedHead) -> None:
        forward = self.forward
        positions = torch.arange(head.start, head.start + len(head.ids), device=forward.device)
        step = PackedStep(
            group_causal_segments([len(head.ids)], forward.device),
            positions,
            self._block,
            keep=True,
        )
        hidden = forward.hidden(torch.from_numpy(head.ids).to(forward.device), positions, step)
        self._fill(hidden, [head.predictions], [0])
        block = self._block
        if block is not None:
            self.heads.append(block.then(step.k, step.v))
        else:
            keys, values = (
                [t.unsqueeze(0).contiguous() for t in tensors] for tensors in (step.k, step.v)
            )
            self.heads.append(PrefixBlock(keys, values))

    def _flush(self) -> int:
        parts, self.waiting = self.waiting, []
        if parts:
            forward = self.forward
            offsets = np.cumsum([0, *(len(p.ids) for p in parts)])
            ids = torch.from_numpy(np.concatenate([p.ids for p in parts])).to(forward.device)
            positions = torch.from_numpy(np.concatenate([p.positions for p in parts])).to(
                forward.device
            )
            step = PackedStep(_groups(parts, offsets, forward.device), positions, self._block)
            self._fill(
                forward.hidden(ids, positions, step), [p.predictions for p in parts], offsets
            )
        return 0

    def _fill(
        self,
        hidden: Tensor,
        predictions: Sequence[PredictionTargets],
        offsets: Sequence[int] | Ints,
    ) -> None:
        rows = np.concatenate([w.rows + f for w, f in zip(predictions, offsets)])
        if not len(rows):
            return
        targets = np.concatenate([w.targets for w in predictions])
        places = np.concatenate([w.places for w in predictions])
        # Choices that differ only after a position share its row: its logits are computed once.
        distinct, row_of_target = np.unique(rows, return_inverse=True)
        order = np.argsort(row_of_target, kind="stable")
        row_of_target, targets, places = row_of_target[order], targets[order], places[order]
        # Rows of float32 logits (4 bytes each, one for each entry of the vocabulary) in one
        # slice.
        size = max(1, self.budget.logits // (4 * int(self.forward.head.out_features)))
        device = hidden.device
        for start_row in range(0, len(distinct), size):
            end_row = min(start_row + size, len(distinct))
            logits = self.forward.logits(
                hidden[torch.from_numpy(distinct[start_row:end_row]).to(device)]
            )
            log_normaliser = torch.logsumexp(logits, dim=-1)
            a, b = np.searchsorted(row_of_target, (start_row, end_row))
            row = torch.from_numpy(row_of_target[a:b] - start_row).to(device)
            target_logprobs = (
                logits[row, torch.from_numpy(targets[a:b]).to(device)] - log_normaliser[row]
            )
            self.out[places[a:b]] = target_logprobs.double().cpu().numpy()


def _groups(
    parts: Sequence[Segment], starts: Ints, device: torch.device, waste: float = 0.2
) -> list[SegmentGroup]:
    """Groups segments of similar length; token trees are kept apart from plain rows.

    At most a share `waste` of a group's attention is padding.
    """
    groups: list[SegmentGroup] = []
    for trees in (False, True):
        members = [i for i, p in enumerate(parts) if (p.visible is not None) is trees]
        members.sort(key=lambda i: -len(parts[i].ids))
        while members:
            longest = len(parts[members[0]].ids)
            count = sum(len(parts[i].ids) >= longest * (1 - waste) - 8 for i in members)
            chosen = members[:count]
            group_starts = [int(starts[i]) for i in chosen]
            groups.append(_group([parts[i] for i in chosen], group_starts, longest, device))
            members = members[count:]
    return groups


def _group(
    parts: Sequence[Segment], starts: Sequence[int], longest: int, device: torch.device
) -> SegmentGroup:
    sizes = np.array([len(p.ids) for p in parts])[:, None]
    offsets = np.arange(longest)[None]
    # Padding repeats the last token of a segment; `real` masks it.
    index = np.array(starts)[:, None] + np.minimum(offsets, sizes - 1)
    real = torch.from_numpy(offsets < sizes).to(device)
    sees = None
    if parts[0].visible is not None:
        visible = np.zeros((len(parts), longest, longest), dtype=bool)
        for row, part in enumerate(parts):
            length = len(part.ids)
            visible[row, :length, :length] = part.visible
        sees = torch.from_numpy(visible).to(device)
    return SegmentGroup(torch.from_numpy(index).to(device), real, sees)
