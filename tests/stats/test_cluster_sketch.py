"""Sketches of clusters: merging is associative and equals one pass; exact up to the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.stats.cluster_sketch import ClusterSketch
from truing.stats.intervals import clustered_wilson, wilson_at

Rows = list[tuple[int, int, int, int]]
ROW = st.tuples(
    st.integers(0, 30).map(lambda k: k * (2**64 // 31) + 5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
).map(lambda r: (r[0], r[1], r[1] + r[2], r[1] + r[2] + r[3]))
ROWS = st.lists(ROW, max_size=25)
BOUND = st.sampled_from([2, 5, 64])


def sketch(rows: Rows, bound: int) -> ClusterSketch:
    of_rows = ClusterSketch(bound)
    columns = [
        np.array([row[i] for row in rows], np.uint64 if i == 0 else np.int64) for i in range(4)
    ]
    of_rows.add(*columns)
    return of_rows


def state(of: ClusterSketch) -> tuple[object, ...]:
    held = [
        (c.hashes.tolist(), c.counts.tolist(), c.is_complete)
        for c in (of.clusters, of.scored_clusters)
    ]
    return (of.totals.tolist(), held, of.prompts)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, ROWS, BOUND)
def test_merging_in_any_order_is_one_pass(a: Rows, b: Rows, c: Rows, bound: int) -> None:
    one = state(sketch(a + b + c, bound))
    x, y, z = (sketch(rows, bound) for rows in (a, b, c))
    assert state(x.merge(y).merge(z)) == one
    assert state(x.merge(y.merge(z))) == one
    assert state(z.merge(x).merge(y)) == one
    x.add(*(np.array([r[i] for r in b + c], np.uint64 if i == 0 else np.int64) for i in range(4)))
    assert state(x) == one


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_up_to_the_bound_the_interval_is_that_of_all_clusters(rows: Rows) -> None:
    of_rows = sketch(rows, 64)
    clusters: dict[int, list[int]] = {}
    for key, events, scored, _ in rows:
        sums = clusters.setdefault(key, [0, 0])
        sums[0] += events
        sums[1] += scored
    filled = [c for c in clusters.values() if c[1]]
    interval = of_rows.interval()
    if not filled:
        assert interval is None
        return
    assert interval is not None
    expected = clustered_wilson([c[0] for c in filled], [c[1] for c in filled])
    # Equal clusters are summed as one, so that the last digits may differ.
    bounds = (expected.estimate, expected.lower, expected.upper)
    assert (interval.estimate, interval.lower, interval.upper) == pytest.approx(bounds, abs=1e-12)


def test_beyond_the_bound_counts_are_exact_and_the_interval_close() -> None:
    source = np.random.default_rng(0)
    n_clusters = 40_000
    hashes = source.integers(0, 2**64, n_clusters, np.uint64)
    sizes = source.integers(1, 6, n_clusters)
    rates = source.beta(1, 4, n_clusters)
    events = source.binomial(sizes, rates)
    whole, sampled = ClusterSketch(1 << 17), ClusterSketch(4096)
    for start in range(0, n_clusters, 7000):
        part = slice(start, start + 7000)
        for of_part in (whole, sampled):
            of_part.add(hashes[part], events[part], sizes[part], sizes[part])
    assert whole.is_complete and not sampled.is_complete
    assert (sampled.events, sampled.scored) == (whole.events, whole.scored)
    assert sampled.prompts == pytest.approx(n_clusters, rel=4 / 64)
    exact, close = whole.interval(), sampled.interval()
    assert exact is not None and close is not None
    assert close.estimate == exact.estimate
    assert close.width == pytest.approx(exact.width, rel=0.05)
    assert close.method == "cluster-robust wilson, sampled clusters"


def test_rates_of_0_and_1_are_read_with_caution() -> None:
    none = ClusterSketch(2)
    ones = np.ones(5, np.int64)
    none.add(np.arange(5).astype(np.uint64) * np.uint64(2**61), 0 * ones, 4 * ones, 4 * ones)
    interval = none.interval()
    # Four answers a prompt that are alike count as one.
    assert interval == wilson_at(0.0, 5, method="cluster-robust wilson, sampled clusters")


def test_few_scored_rows_among_many_clusters_have_their_interval() -> None:
    sampled = ClusterSketch(16)
    n_clusters = 20_000
    hashes = np.random.default_rng(0).integers(0, 2**64, n_clusters, np.uint64)
    # The verdicts are on the clusters that a sample of all clusters drops first.
    is_scored = (hashes >= np.sort(hashes)[-8]).astype(np.int64)
    ones = np.ones(n_clusters, np.int64)
    sampled.add(hashes, is_scored * (hashes % np.uint64(2)).astype(np.int64), is_scored, ones)
    assert not sampled.is_complete and sampled.scored == 8
    assert sampled.interval() == clustered_wilson(
        [1] * sampled.events + [0] * (8 - sampled.events), [1] * 8
    )


def test_bounds_that_are_none() -> None:
    with pytest.raises(ValueError, match="give 2 or more"):
        ClusterSketch(1)
    with pytest.raises(ValueError, match="no interval"):
        wilson_at(0.5, 0)
