"""Draws in one pass: a simple random sample, continued by later draws, mergeable by shard."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from truing.analysis.streamed_draws import RowName, draw_in_hash_order


def names(n: int) -> list[RowName]:
    return [RowName(f"s{i // 2}", i % 2) for i in range(n)]


@given(st.integers(0, 40), st.integers(0, 50), st.integers(0, 40), st.randoms())
def test_the_order_of_reading_does_not_count_and_draws_continue(
    n_rows: int, n: int, more: int, random: object
) -> None:
    rows = names(n_rows)
    drawn, counted = draw_in_hash_order(rows, n, 1, "harmful")
    assert counted == n_rows
    assert len(drawn) == len(set(drawn)) == min(n, n_rows)
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert draw_in_hash_order(rows, n, 1, "harmful")[0] == drawn
    assert draw_in_hash_order(rows, n + more, 1, "harmful")[0][: len(drawn)] == drawn
    # The draw of the draws of two halves is the draw of all.
    halves = [draw_in_hash_order(h, n, 1, "harmful")[0] for h in (rows[::2], rows[1::2])]
    assert draw_in_hash_order([*halves[0], *halves[1]], n, 1, "harmful")[0] == drawn


def test_each_row_has_its_probability() -> None:
    counts: Counter[RowName] = Counter()
    for seed in range(2000):
        counts.update(draw_in_hash_order(names(10), 3, seed, "harmful")[0])
    # Of 2000 draws with probability 0.3: five standard deviations are 103.
    assert all(abs(count - 600) < 103 for count in counts.values()) and len(counts) == 10
