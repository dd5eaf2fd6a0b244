"""The compact index, spans of lines, random access: against dicts and the files themselves."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import RunError
from truing.core.jsonl import read_complete_lines, read_located_records
from truing.runs.index import IdIndex, LineSpans, ResponseKey, SampleStore


def test_an_index_is_a_dict_of_first_positions() -> None:
    rng = random.Random(0)
    index, known = IdIndex(), {}
    for position in range(20_000):
        id_ = f"s{rng.randrange(12_000)}"
        assert index.add(id_, position) is (id_ not in known)
        known.setdefault(id_, position)
    assert len(index) == len(known)
    assert all(index.get(id_) == at for id_, at in known.items())
    assert index.get("absent") is None


def test_an_id_whose_hash_is_zero_is_found() -> None:
    class Zero(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 0

    index = IdIndex()
    assert index.get(Zero("z")) is None
    assert index.add(Zero("z"), 7)
    assert index.get(Zero("z")) == 7


def test_lines_whole_torn_and_wrong(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert list(read_complete_lines(file)) == []
    file.write_bytes(b'{"sample_id":"a"}\n{"sample_id":"b","index":1,"more":[1]}\n{"sample_id":"c"')
    assert list(read_complete_lines(file)) == [
        (0, b'{"sample_id":"a"}\n'),
        (18, b'{"sample_id":"b","index":1,"more":[1]}\n'),
    ]
    assert [
        (at, n, k.sample_id, k.index) for at, n, k in read_located_records(file, ResponseKey)
    ] == [(0, 18, "a", 0), (18, 39, "b", 1)]
    file.write_bytes(b'{"sample_id":"a"}\n{"index":1}\n')
    with pytest.raises(RunError, match=r"a\.jsonl:2: .*missing required field `sample_id`"):
        list(read_located_records(file, ResponseKey))
    file.write_bytes(b'{"sample_id":"\xff"}\n')
    with pytest.raises(RunError, match=r"a\.jsonl:1:"):
        list(read_located_records(file, ResponseKey))


@given(st.lists(st.integers(0, 30), max_size=60))
def test_spans_know_their_order_and_their_doubles(keys: list[int]) -> None:
    spans, at, first = LineSpans(31), 0, {}
    for key in keys:
        assert spans.add(key, at, 5) is (key not in first)
        first.setdefault(key, at)
        at += 5
    assert spans.count == len(first)
    assert spans.ordered is (keys == sorted(set(keys)))
    assert {k: spans.starts[k] for k in range(31) if k in spans} == first
    for key in list(first):
        spans.remove(key)
        spans.remove(key)
    assert spans.count == 0
    assert not spans.ordered or not keys


def test_samples_by_position(tmp_path: Path) -> None:
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
