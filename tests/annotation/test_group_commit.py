"""Group commit on SQLite: one commit for those who wait, nobody answered before it, nobody harmed by a neighbour."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from truing.annotation.group_commit import MAX_BATCH, GroupCommitQueue, WriteJob
from truing.annotation.store import RequestRejected, Store, Transaction, open_store
from truing.annotation.study import get_setting, put_setting
from truing.annotation.tables import Setting


class Held:
    """A store whose commits can be held up, and are counted."""

    def __init__(self, store: Store) -> None:
        self.store, self.commits = store, 0
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.fail_next = False
        sa.event.listen(store.engine, "commit", self._commit)

    def _commit(self, _: object) -> None:
        self.commits += 1
        self.waiting.set()
        assert self.gate.wait(20)
        if self.fail_next:
            self.fail_next = False
            raise sa.exc.OperationalError("COMMIT", {}, Exception("disk I/O error"))

    def at_once(self, works: list[Callable[[Transaction], Any]]) -> list[Any]:
        """Results (or errors) of works that all come while one commit is under way."""
        self.waiting.clear()
        self.gate.clear()
        first = threading.Thread(
            target=self.store.write, args=(lambda tx: put_setting(tx, "first", "1"),)
        )
        first.start()
        assert self.waiting.wait(20)
        out: list[Any] = [None] * len(works)

        def run(at: int) -> None:
            try:
                out[at] = self.store.write(works[at])
            except Exception as error:
                out[at] = error

        threads = [threading.Thread(target=run, args=(at,)) for at in range(len(works))]
        for t in threads:
            t.start()
        line = self.store._commit_queue._queue  # type: ignore[union-attr]
        while len(line) < len(works):
            threading.Event().wait(0.005)
        assert out == [None] * len(works)  # nobody is answered while nothing is on disk
        self.gate.set()
        for t in (first, *threads):
            t.join(20)
        return out


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    store = open_store(f"sqlite:///{tmp_path / 'x.sqlite'}")
    yield Held(store)
    store.close()


def put(name: str) -> Callable[[Transaction], str]:
    def work(tx: Transaction) -> str:
        put_setting(tx, name, "yes")
        return name

    return work


def stored(store: Store, *names: str) -> list[bool]:
    return [store.read(lambda tx, n=name: get_setting(tx, n)) == "yes" for name in names]  # type: ignore[misc]


def test_those_who_wait_share_one_commit(held: Held) -> None:
    names = [f"n{i}" for i in range(MAX_BATCH)]
    assert held.at_once([put(n) for n in names]) == names
    assert held.commits == 2  # the first, and one for all sixteen
    assert all(stored(held.store, *names))


def test_more_than_fit_are_carried_out_in_turn(held: Held) -> None:
    names = [f"n{i}" for i in range(2 * MAX_BATCH + 1)]
    assert held.at_once([put(n) for n in names]) == names
    assert held.commits == 4
    assert all(stored(held.store, *names))


def test_a_work_that_is_refused_leaves_no_trace_and_harms_nobody(held: Held) -> None:
    def half(tx: Transaction) -> None:
        put_setting(tx, "half", "yes")
        tx.session.flush()
        raise RequestRejected("late", "too late")

    before, refused, after = held.at_once([put("before"), half, put("after")])
    assert (before, after) == ("before", "after")
    assert isinstance(refused, RequestRejected) and refused.kind == "late"
    assert stored(held.store, "before", "half", "after") == [True, False, True]


def test_a_later_work_sees_what_an_earlier_one_of_its_batch_did(held: Held) -> None:
    def count(tx: Transaction) -> int:
        n = int(get_setting(tx, "count") or 0) + 1
        put_setting(tx, "count", str(n))
        return n

    assert sorted(held.at_once([count] * 8)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_commit_that_fails_is_tried_again_work_by_work(held: Held) -> None:
    real, batches = held.store._write_batch, []

    def failing(jobs: Any) -> None:
        batches.append(len(jobs))
        held.fail_next = True
        real(jobs)

    held.store._write_batch = failing  # type: ignore[method-assign]
    names = [f"n{i}" for i in range(4)]
    assert held.at_once([put(n) for n in names]) == names
    assert batches == [4]
    assert held.commits == 1 + 1 + 4  # the first, the one that failed, and one each
    assert all(stored(held.store, *names))


def test_two_who_clash_get_a_second_look(held: Held) -> None:
    tries: list[int] = []

    def clash(tx: Transaction) -> str:
        tries.append(1)
        if len(tries) == 1:  # as if somebody else's row came between looking and writing
            tx.session.add_all([Setting(name="same", value="a")])
            tx.session.flush()
            tx.session.execute(sa.text("INSERT INTO settings (name, value) VALUES ('same', 'b')"))
        return "second look"

    assert held.at_once([put("one"), clash, put("two")]) == ["one", "second look", "two"]
    assert len(tries) == 2 and stored(held.store, "one", "two") == [True, True]
    assert held.store.read(lambda tx: get_setting(tx, "same")) is None


def test_a_work_that_cannot_be_done_at_all_is_told_so_alone(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truing.annotation.store._RETRY_DELAYS", (0.0,))

    def away(tx: Transaction) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("disk I/O error"))

    one, error, two = held.at_once([put("one"), away, put("two")])
    assert (one, two) == ("one", "two") and "nothing was lost" in str(error)


def test_an_interrupt_leaves_nobody_waiting() -> None:
    together = GroupCommitQueue(lambda jobs: (_ for _ in ()).throw(KeyboardInterrupt()))
    other = WriteJob(lambda tx: None)
    together._queue.append(other)
    with pytest.raises(KeyboardInterrupt):
        together.run(lambda tx: None)
    assert other.done and isinstance(other.error, KeyboardInterrupt)
