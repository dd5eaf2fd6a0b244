"""A prefix tree of many sequences, split into forward passes in which each distinct token is
computed once.

Sequences are sorted, so that neighbours share their heads. A part of the tree that is small enough
is one `Segment` (its tokens, each seeing its ancestors alone); a long head of a larger part becomes
a `SharedHead`, whose keys and values are kept while the parts below it are computed. After
SpecInfer's token trees (Miao et al. 2024, arXiv:2305.09781) and Hydragen's shared blocks (Juravsky
et al. 2024, arXiv:2402.05099).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PredictionTargets:
    """The predictions wanted of a part: token indexes within it, target ids, and places in the
    output.
    """

    rows: Ints
    targets: Ints
    places: Ints


@dataclass(frozen=True)
class SharedHead:
    """Tokens that all parts below share; they follow the heads in use."""

    ids: Ints
    start: int
    predictions: PredictionTargets


@dataclass(frozen=True)
class Segment:
    """Tokens `[t]` at their positions; `visible` `[t, t]`, or None if each sees all before it."""

    ids: Ints
    positions: Ints
    visible: NDArray[np.bool_] | None
    predictions: PredictionTargets


@dataclass(frozen=True)
class CloseHead:
    """Ends the newest head: nothing below it follows."""


Part = SharedHead | Segment | CloseHead


class PrefixTree:
    """Sorted sequences with the length that each shares with the one before it.

    `rows[i]` are the tokens that sequence i reads; from position `starts[i]` on, each predicts the
    next of `targets[i]`, and the results go to consecutive places from `places[i]` on.
    """

    def __init__(
        self, rows: Sequence[Ints], starts: Sequence[int], targets: Sequence[Ints]
    ) -> None:
        # Big-endian bytes compare like the numbers themselves, and faster than lists of integers.
        order = sorted(range(len(rows)), key=lambda i: rows[i].astype(">u4").tobytes())
        sizes = np.array([len(t) for t in targets], dtype=np.int64)
        first = np.concatenate(([0], np.cumsum(sizes)))[:-1] if len(sizes) else sizes
        self.rows = [rows[i] for i in order]
        self.starts = [starts[i] for i in order]
        self.targets = [targets[i] for i in order]
        self.places = [int(first[i]) for i in order]
        self.shared = [0, *(_common(a, b) for a, b in zip(self.rows, self.rows[1:]))]
        new = [len(r) - s for r, s in zip(self.rows, self.shared)]
        self._new = np.concatenate(([0], np.cumsum(np.array(new, dtype=np.int64))))

    @property
    def tokens(self) -> int:
        """The number of distinct tokens in the tree: the least that must be computed."""
        return int(self._new[-1])

    def size(self, low: int, high: int, depth: int) -> int:
        """Returns the distinct tokens of sequences `low` to `high` beyond `depth`, up to which they
        are equal.
        """
        return len(self.rows[low]) - depth + int(self._new[high] - self._new[low + 1])

    def parts(self, *, most: int = 256, head: int = 32) -> Iterator[Part]:
        """Yields the parts in order: segments of at most `most` tokens where possible, heads of at
        least `head`.
        """
        # An explicit stack: the depth of the tree may exceed Python's recursion limit. None
        # closes a head after everything below it.
        todo: list[tuple[int, int, int] | None] = [(0, len(self.rows), 0)] if self.rows else []
        while todo:
            task = todo.pop()
            if task is None:
                yield CloseHead()
                continue
            low, high, base = task
            if high - low == 1 or self.size(low, high, base) <= most:
                yield self._segment(low, high, base)
                continue
            # In sorted order the common prefix of a range is the shortest one between neighbours.
            common = min(len(self.rows[low]), min(self.shared[low + 1 : high]))
            # a shorter one pays where it would else stand again in each of many segments
            repeated = common - base >= head // 4 and self.size(low, high, base) >= 4 * most
            if common - base >= head or (repeated and common > base):
                yield SharedHead(
                    self.rows[low][base:common], base, self._within(low, high, base, common)
                )
                todo.append(None)
                base = common
            todo += [(a, b, base) for a, b in reversed(self._split(low, high, common, most, base))]

    def _split(
        self, low: int, high: int, common: int, most: int, base: int
    ) -> list[tuple[int, int]]:
        """Returns the children of a branching point; small neighbours stay together if they would
        repeat tokens.
        """
        cuts = [low, *(i for i in range(low + 1, high) if self.shared[i] <= common), high]
        spans = list(itertools.pairwise(cuts))
        if common == base:  # what ends here was read with the head
            return [(a, b) for a, b in spans if len(self.rows[a]) > base]
        children: list[tuple[int, int]] = []
        for a, b in spans:
            if children and self.size(children[-1][0], b, base) <= most:
                children[-1] = (children[-1][0], b)
            else:
                children.append((a, b))
        return children

    def _within(self, low: int, high: int, base: int, end: int) -> PredictionTargets:
        rows, targets, places = [], [], []
        for i in range(low, high):
            start = max(self.starts[i], base)
            if start < end:
                skip = start - self.starts[i]
                rows.append(np.arange(start - base, end - base))
                targets.append(self.targets[i][skip : skip + end - start])
                places.append(np.arange(end - start) + self.places[i] + skip)
        return _prediction_targets(rows, targets, places)

    def _segment(self, low: int, high: int, base: int) -> Segment:
        ids, positions, rows, targets, places = [], [], [], [], []
        spans: list[tuple[int, Ints]] = []  # first new token, path of each sequence
        path = np.empty(0, dtype=np.int64)
        count = 0
        for i in range(low, high):
            row = self.rows[i]
            fresh = base if i == low else max(base, self.shared[i])
            new = np.arange(count, count + len(row) - fresh)
            # `path` lists the ancestors of the newest token; sequences branch where they differ.
            path = np.concatenate((path[: fresh - base], new))
            spans.append((count, path))
            ids.append(row[fresh:])
            positions.append(np.arange(fresh, len(row)))
            count += len(new)
            start = max(self.starts[i], base)
            rows.append(path[start - base :])
            targets.append(self.targets[i][start - self.starts[i] :])
            places.append(np.arange(start, len(row)) - self.starts[i] + self.places[i])
        visible = None if high - low == 1 else _sight(spans, count)
        return Segment(
            np.concatenate(ids),
            np.concatenate(positions),
            visible,
            _prediction_targets(rows, targets, places),
        )


def _common(a: Ints, b: Ints) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _prediction_targets(
    rows: list[Ints], targets: list[Ints], places: list[Ints]
) -> PredictionTargets:
    if not rows:
        none = np.empty(0, dtype=np.int64)
        return PredictionTargets(none, none, none)
    return PredictionTargets(np.concatenate(rows), np.concatenate(targets), np.concatenate(places))


def _sight(spans: Sequence[tuple[int, Ints]], count: int) -> NDArray[np.bool_]:
    visible = np.zeros((count, count), dtype=bool)
    for first, path in spans:
        old = path[path < first]
        end = int(path[-1]) + 1 if len(path) else first
        if end > first:
            visible[first:end, old] = True
            # Causal among a sequence's new tokens; of the earlier ones it sees its ancestors
            # only.
            visible[first:end, first:end] = np.tri(end - first, dtype=bool)
    return visible
