"""Prefix trees: each distinct token is computed once, each target predicted behind its own tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.models.local.prefix_tree import CloseHead, PrefixTree, Segment, SharedHead

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=14)


@settings(max_examples=150, deadline=None)
@given(sequences, st.integers(1, 20), st.integers(1, 6), st.randoms(use_true_random=False))
def test_every_target_is_predicted_once_behind_its_own_tokens(
    rows: list[list[int]], most: int, head: int, random: Any
) -> None:
    reads = [np.array(r, dtype=np.int64) for r in rows]
    starts = [random.randrange(len(r)) for r in rows]
    targets = [
        np.arange(len(r) - s, dtype=np.int64) + 100 * i
        for i, (r, s) in enumerate(zip(rows, starts))
    ]
    tree = PrefixTree(reads, starts, targets)
    assert tree.tokens == len({tuple(r[: n + 1]) for r in rows for n in range(len(r))})
    found: dict[int, tuple[int, tuple[int, ...]]] = {}
    open_heads: list[list[int]] = []
    for part in tree.parts(most=most, head=head):
        before = [t for h in open_heads for t in h]
        if isinstance(part, CloseHead):
            open_heads.pop()
            continue
        sees = (
            np.tri(len(part.ids), dtype=bool)
            if isinstance(part, SharedHead) or part.visible is None
            else part.visible
        )
        assert len(part.ids) or isinstance(part, Segment)
        for row, target, place in zip(
            part.predictions.rows, part.predictions.targets, part.predictions.places
        ):
            assert int(place) not in found
            found[int(place)] = (
                int(target),
                (*before, *part.ids[np.flatnonzero(sees[row])].tolist()),
            )
        if isinstance(part, SharedHead):
            assert part.start == len(before)
            open_heads.append(part.ids.tolist())
        else:
            assert all(
                p == len(before) + int(sees[i].sum()) - 1 for i, p in enumerate(part.positions)
            )
    assert not open_heads
    place = 0
    for i, row in enumerate(rows):
        for k in range(starts[i], len(row)):
            assert found[place] == (int(targets[i][k - starts[i]]), tuple(row[: k + 1]))
            place += 1
    assert place == len(found)


def make_tree(*rows: list[int]) -> PrefixTree:
    """Returns the tree of these sequences; each predicts its last target only."""
    arrays = [np.array(row, dtype=np.int64) for row in rows]
    targets = [np.array([100 + i], dtype=np.int64) for i in range(len(rows))]
    return PrefixTree(arrays, [len(row) - 1 for row in rows], targets)


def test_sequences_are_sorted_and_know_what_they_share() -> None:
    tree = make_tree([1, 2, 4], [5], [1, 2, 3, 9])
    assert [row.tolist() for row in tree.rows] == [[1, 2, 3, 9], [1, 2, 4], [5]]
    assert tree.shared == [0, 2, 0]
    assert tree.places == [2, 0, 1]  # the places follow the order given
    assert tree.tokens == 6
    assert (tree.size(0, 2, 0), tree.size(0, 2, 2), tree.size(2, 3, 0)) == (5, 3, 1)


def test_a_small_tree_is_one_segment_with_a_visibility_mask() -> None:
    (part,) = make_tree([1, 2, 3], [1, 2, 4]).parts(most=16)
    assert isinstance(part, Segment)
    assert part.ids.tolist() == [1, 2, 3, 4]
    assert part.positions.tolist() == [0, 1, 2, 2]
    assert part.visible is not None
    assert part.visible.astype(int).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 0, 1],  # the second branch does not see the first
    ]
    assert part.predictions.rows.tolist() == [2, 3]
    assert part.predictions.targets.tolist() == [100, 101]
    assert part.predictions.places.tolist() == [0, 1]


def test_a_single_sequence_is_plainly_causal() -> None:
    (part,) = make_tree([1, 2, 3]).parts()
    assert isinstance(part, Segment) and part.visible is None


def test_a_long_shared_head_is_read_once_and_closed_after_its_segments() -> None:
    head = list(range(10, 18))
    parts = list(make_tree([*head, 1, 2, 3], [*head, 4, 5, 6]).parts(most=4, head=8))
    assert [type(part) for part in parts] == [SharedHead, Segment, Segment, CloseHead]
    shared, first, second, _ = parts
    assert isinstance(shared, SharedHead) and shared.ids.tolist() == head and shared.start == 0
    assert isinstance(first, Segment) and first.ids.tolist() == [1, 2, 3]
    assert isinstance(second, Segment) and second.positions.tolist() == [8, 9, 10]
    assert len(shared.predictions.rows) == 0


def test_no_sequences_no_parts() -> None:
    tree = PrefixTree([], [], [])
    assert tree.tokens == 0 and list(tree.parts()) == []
