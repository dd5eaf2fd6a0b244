"""Ids of rows: equal content has an equal id, and ids that occur twice are found."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from truing.bulk.row_files import InputRow
from truing.bulk.row_ids import find_duplicate_ids, hash_row, hash_row_id, pack_hashes
from truing.core.types import Conversation


def test_the_order_of_fields_does_not_count() -> None:
    assert hash_row({"a": 1, "b": [None]}) == hash_row({"b": [None], "a": 1})
    assert hash_row({"a": 1}) != hash_row({"a": "1"})


def test_rows_without_an_id_have_no_hash() -> None:
    rows = [InputRow(1, {"id": id_}, Conversation(), None) for id_ in ("x", None, "", 3)]
    hashes = [hash_row_id(row) for row in rows]
    assert [h is None for h in hashes] == [False, True, True, False]


@given(
    st.lists(
        st.lists(st.one_of(st.integers(0, 6), st.integers(2**64 - 3, 2**64 - 1)), max_size=8),
        max_size=5,
    )
)
def test_duplicates_are_counted_over_all_shards(shards: list[list[int]]) -> None:
    duplicates = find_duplicate_ids(map(pack_hashes, shards))
    counts = Counter(h for shard in shards for h in shard)
    assert duplicates.rows == sum(n - 1 for n in counts.values())
    doubled = {h for h, n in counts.items() if n > 1}
    assert set(duplicates.shards) == {i for i, shard in enumerate(shards) if doubled & set(shard)}
