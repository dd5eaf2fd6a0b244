"""Counts of rows in clusters (the answers to one prompt) that can be merged: exact totals, and an
interval that is exact up to a number of clusters and from a random sample of them beyond.

Up to `bound` clusters all are held, so that two sketches merge into the very sketch of all rows.
Beyond, those with the smallest hashes are held: a simple random sample of all clusters, complete in
each of its members (bottom-k sampling: Cohen & Kaplan 2007, PODC). Totals stay exact; the design
effect is that of the sample. Merging is associative and commutative in either case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from truing.stats.intervals import Interval, clustered_wilson, wilson_at

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

DEFAULT_BOUND = 1 << 16
"""Clusters that are held; the standard error of a design effect from a sample of them is about 1 %
for rates between 5 and 95 %."""

_LARGEST_HASH = 2**64 - 1


class _SmallestHashes:
    """The clusters with the smallest hashes, `bound` at most, and their counts.

    Attributes:
        hashes: of the clusters that are held, in order.
        counts: events, scored rows and all rows of each of them.
        is_complete: whether all clusters are held.
        dropped_from: the smallest hash that was dropped: what lies below it is complete.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.hashes: Hashes = np.zeros(0, np.uint64)
        self.counts: Counts = np.zeros((0, 3), np.int64)
        self.is_complete = True
        self.dropped_from = _LARGEST_HASH

    def add(self, hashes: Hashes, counts: Counts) -> None:
        """Adds rows by cluster, and drops the largest hashes beyond the bound."""
        if not self.is_complete:
            # Before they are sorted: of a later part of many, hardly any is below.
            below = hashes < np.uint64(self.dropped_from)
            hashes, counts = hashes[below], counts[below]
        all_hashes = np.concatenate([self.hashes, hashes])
        all_counts = np.concatenate([self.counts, counts])
        unique, places = np.unique(all_hashes, return_inverse=True)
        sums = np.zeros((len(unique), 3), np.int64)
        np.add.at(sums, places, all_counts)
        if len(unique) > self._bound:
            self.dropped_from, self.is_complete = int(unique[self._bound]), False
            unique, sums = unique[: self._bound], sums[: self._bound]
        self.hashes, self.counts = unique, sums

    def merge(self, other: _SmallestHashes) -> None:
        """Adds the clusters of another one."""
        self.dropped_from = min(self.dropped_from, other.dropped_from)
        self.is_complete = self.is_complete and other.is_complete
        below = self.hashes < np.uint64(self.dropped_from)
        if not self.is_complete:
            self.hashes, self.counts = self.hashes[below], self.counts[below]
        self.add(other.hashes, other.counts)


class ClusterSketch:
    """Events, scored rows and all rows, over clusters that are known by 64-bit hashes.

    Clusters with a verdict are held apart from all clusters: where few rows have one, a sample of
    all clusters may hold none of them.

    Attributes:
        totals: events, scored rows and all rows, of all clusters.
        clusters: those with the smallest hashes.
        scored_clusters: those with the smallest hashes of the clusters with a scored row.
    """

    def __init__(self, bound: int = DEFAULT_BOUND) -> None:
        if bound < 2:
            raise ValueError(f"a sketch of {bound} clusters: give 2 or more")
        self.bound = bound
        self.totals: Counts = np.zeros(3, np.int64)
        self.clusters, self.scored_clusters = _SmallestHashes(bound), _SmallestHashes(bound)

    @property
    def is_complete(self) -> bool:
        """Whether all clusters are held."""
        return self.clusters.is_complete

    def add(self, hashes: Hashes, events: Counts, scored: Counts, rows: Counts) -> None:
        """Adds rows by cluster; a cluster may occur several times, and in several calls."""
        counts = np.stack([events, scored, rows], axis=1).astype(np.int64)
        self.totals = self.totals + counts.sum(axis=0)
        for clusters, column in ((self.clusters, 2), (self.scored_clusters, 1)):
            filled = counts[:, column] > 0
            clusters.add(hashes[filled], counts[filled])

    def merge(self, other: ClusterSketch) -> ClusterSketch:
        """Returns the sketch of the rows of both, with the smaller bound."""
        merged = ClusterSketch(min(self.bound, other.bound))
        merged.totals = self.totals + other.totals
        for sketch in (self, other):
            merged.clusters.merge(sketch.clusters)
            merged.scored_clusters.merge(sketch.scored_clusters)
        return merged

    @property
    def events(self) -> int:
        """Number of rows with the event."""
        return int(self.totals[0])

    @property
    def scored(self) -> int:
        """Number of rows with a verdict."""
        return int(self.totals[1])

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.totals[2])

    @property
    def prompts(self) -> int:
        """Number of clusters: exact if all are held, else estimated from the hashes.

        The relative standard error of the estimate is 1 / sqrt(bound - 2).
        """
        n_held = len(self.clusters.hashes)
        if self.is_complete or not n_held:
            return n_held
        return round(n_held / (self.clusters.dropped_from / 2**64))

    def interval(self, level: float = 0.95) -> Interval | None:
        """Returns the interval of events per scored row over clusters; None without scored rows.

        With more clusters with a verdict than the bound: Wilson's form at the effective size, whose
        design effect is that of the ones that are held.
        """
        if not self.scored:
            return None
        counts = self.scored_clusters.counts[:, :2]
        distinct, times = np.unique(counts, axis=0, return_counts=True)
        events, sizes = distinct[:, 0].tolist(), distinct[:, 1].tolist()
        repeats: Sequence[int] = [int(t) for t in times]
        if self.scored_clusters.is_complete:
            return clustered_wilson(events, sizes, level, times=repeats)
        rate = self.events / self.scored
        effect = _design_effect(events, sizes, repeats, rate)
        effective = self.scored / max(1.0, effect)
        return wilson_at(rate, effective, level, "cluster-robust wilson, sampled clusters")


def _design_effect(
    events: Sequence[int], sizes: Sequence[int], times: Sequence[int], rate: float
) -> float:
    """Returns the cluster-robust variance over the binomial one, per row, of a sample of clusters.

    With a rate of 0 or 1 there is no variance: then the mean size of a cluster, as if all its rows
    were alike.
    """
    n = sum(m * t for m, t in zip(sizes, times))
    n_clusters = sum(times)
    if n_clusters < 2 or n == 0:
        return math.inf if n == 0 else n / n_clusters
    if rate in (0.0, 1.0):
        return n / n_clusters
    squares = sum(t * (e - rate * m) ** 2 for e, m, t in zip(events, sizes, times))
    return squares * n_clusters / (n_clusters - 1) / n / (rate * (1 - rate))
