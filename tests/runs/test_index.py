"""The compact indexes, compared with dicts and with the files themselves."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import RunError
from truing.runs.index import IdIndex, LineSpans, SampleStore


def test_id_index_equals_a_dict_of_first_positions() -> None:
    rng = random.Random(0)
    index = IdIndex()
    known: dict[str, int] = {}
    for position in range(20_000):
        id_ = f"s{rng.randrange(12_000)}"
        assert index.add(id_, position) is (id_ not in known)
        known.setdefault(id_, position)
    assert len(index) == len(known)
    assert all(index.get(id_) == position for id_, position in known.items())
    assert index.get("absent") is None


def test_id_with_hash_zero_is_found() -> None:
    class Zero(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 0

    index = IdIndex()
    assert index.get(Zero("z")) is None
    assert index.add(Zero("z"), 7)
    assert index.get(Zero("z")) == 7


def test_id_index_takes_at_most_32_bytes_an_id() -> None:
    index = IdIndex()
    for i in range(100_000):
        index.add(f"sample-{i}", i)
    assert index.get("sample-77777") == 77_777
    assert index._slots * 12 <= 3_200_000


@given(st.lists(st.integers(0, 30), max_size=60))
def test_spans_track_order_and_duplicates(keys: list[int]) -> None:
    spans, offset = LineSpans(31), 0
    first: dict[int, int] = {}
    for key in keys:
        assert spans.add(key, offset, 5) is (key not in first)
        first.setdefault(key, offset)
        offset += 5
    assert spans.count == len(first)
    assert spans.ordered is (keys == sorted(set(keys)))
    assert {k: spans.starts[k] for k in range(31) if k in spans} == first
    for key in list(first):
        spans.remove(key)
        spans.remove(key)
    assert spans.count == 0
    assert not spans.ordered or not keys


def test_sample_store_reads_by_position(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    rows = [
        {"id": f"i{k}", "conversation": {"messages": [{"role": "user", "content": "ä" * k}]}}
        for k in range(50)
    ]
    file.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
    )
    store = SampleStore(file)
    assert len(store) == 50
    for k in (49, 0, 17):
        assert (store.read(k).id, store.read(k).prompt) == (f"i{k}", "ä" * k)
        assert store.ids.get(f"i{k}") == k
    store.close()
    store.close()
    file.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]) + "\n")
    with pytest.raises(RunError, match="the id 'i0' occurs more than once"):
        SampleStore(file)
