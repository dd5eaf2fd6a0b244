"""Import of the rows of a run, drawn rows and gold items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select
from tests.annotation.test_queue import claim, submit

from truing.annotation.imports import import_gold, import_run, read_draws
from truing.annotation.store import Store
from truing.annotation.study import Study
from truing.annotation.tables import ItemHarm, ReviewItem
from truing.core.errors import DataError, RunError
from truing.core.types import Answer, Conversation, Message, Response, Sample
from truing.runs.folder import Manifest, Run, RunWriter


@pytest.fixture
def run(tmp_path: Path) -> Run:
    writer = RunWriter(tmp_path / "run", Manifest(plan_hash="p", model="m", created="now"))
    for n in range(6):
        prompt = Conversation((Message("system", "be kind"), Message("user", f"question {n}")))
        writer.append(
            "samples.jsonl",
            Sample(id=f"s{n}", conversation=prompt, harms=("self_harm",) if n else ()),
        )
        answer = Answer.failed("timeout", "no answer") if n == 5 else Answer.of(f"answer {n}")
        for index in (0, 1):
            writer.append("responses.jsonl", Response.of(f"s{n}", index, "m", answer))
    writer.close()
    return Run(tmp_path / "run")


def test_every_response_becomes_one_item(store: Store, study: Study, run: Run) -> None:
    assert import_run(store, run, study) == 10  # the failed ones are none
    assert import_run(store, run, study) == 0
    items = store.read(
        lambda tx: tx.session.scalars(select(ReviewItem).order_by(ReviewItem.source_key)).all()
    )
    assert [i.source_key for i in items][:3] == ["s0#0", "s0#1", "s1#0"]
    assert "be kind" not in items[0].conversation and not items[0].sorted and items[2].sorted
    harms = store.read(
        lambda tx: tx.session.scalars(
            select(ItemHarm.category).where(ItemHarm.item_id == items[2].id)
        ).all()
    )
    assert harms == ["self_harm"]


def test_drawn_rows_keep_their_order_and_probabilities(
    store: Store, study: Study, run: Run, tmp_path: Path, add_person: Callable[..., str]
) -> None:
    draws = tmp_path / "run" / "labels" / "draws.jsonl"
    draws.parent.mkdir()
    rows = [
        ("s3", 1, "harmful", 0.5),
        ("s1", 0, "refused", 0.2),
        ("s2", 0, "harmful", 0.25),
        ("s4", 0, "harmful", 1.0),
    ]
    lines = [
        {"sample_id": s, "index": i, "question": q, "probability": p, "batch": 0, "rows": 10}
        for s, i, q, p in rows
    ]
    draws.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n")
    assert import_run(store, run, study) == 3
    probabilities = store.read(
        lambda tx: dict(
            tx.session.execute(select(ReviewItem.source_key, ReviewItem.probability)).all()
        )
    )
    assert probabilities == {"s3#1": 0.5, "s2#0": 0.25, "s4#0": 1.0}
    person, rated = add_person("rater-1"), []
    while (leased := claim(store, study, person)) is not None:
        rated.append(leased.targets[0].sample_id)
        submit(store, study, person, leased)
    assert rated == ["s3", "s2", "s4"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "draws.jsonl:1"),
        ('{"index": 1}', "draws.jsonl:1"),
        ('{"sample_id": "s", "probability": 0}', r"not in \(0, 1\]"),
    ],
)
def test_invalid_draws_are_reported_by_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "draws.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read_draws(path)


def test_missing_files(store: Store, study: Study, run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file of draws"):
        import_run(store, run, study, tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no such file of gold"):
        import_gold(store, tmp_path / "none.jsonl", study)


def test_gold_items_report_all_faults_at_once(store: Store, study: Study, tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    valid = {"prompt": "hello", "response": "hi", "low": 1, "high": 2, "category": "self_harm"}
    faulty = [
        valid | {"low": 4},
        valid | {"prompt": None},
        valid | {"category": "gossip"},
        {"response": "x"},
    ]
    path.write_bytes(b"\n".join(msgspec.json.encode(r) for r in [valid, *faulty]))
    with pytest.raises(DataError) as caught:
        import_gold(store, path, study)
    assert [f.split(": ")[0].rsplit(":", 1)[1] for f in caught.value.faults] == ["2", "3", "4", "5"]
    assert store.read(lambda tx: tx.session.scalars(select(ReviewItem)).all()) == []
    path.write_bytes(msgspec.json.encode(valid))
    assert [import_gold(store, path, study) for _ in range(2)] == [1, 0]
    item = store.read(lambda tx: tx.session.scalars(select(ReviewItem)).one())
    assert item.source == "gold" and item.gold == '{"low":1,"high":2}' and item.sorted
