"""Group commit on SQLite: shared commits, no answer before the commit, isolated failures."""

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


class PausedCommits:
    """A store whose commits a test can pause; counts them."""

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

    def run_during_commit(self, writes: list[Callable[[Transaction], Any]]) -> list[Any]:
        """Runs writes that all arrive while one commit is under way; returns results or errors."""
        self.waiting.clear()
        self.gate.clear()
        first = threading.Thread(
            target=self.store.write, args=(lambda tx: put_setting(tx, "first", "1"),)
        )
        first.start()
        assert self.waiting.wait(20)
        results: list[Any] = [None] * len(writes)

        def run(index: int) -> None:
            try:
                results[index] = self.store.write(writes[index])
            except Exception as error:
                results[index] = error

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(writes))]
        for t in threads:
            t.start()
        queued = self.store._commit_queue._queue  # type: ignore[union-attr]
        while len(queued) < len(writes):
            threading.Event().wait(0.005)
        assert results == [None] * len(writes)  # no caller returns before the commit
        self.gate.set()
        for t in (first, *threads):
            t.join(20)
        return results


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[PausedCommits]:
    store = open_store(f"sqlite:///{tmp_path / 'x.sqlite'}")
    yield PausedCommits(store)
    store.close()


def write_setting(name: str) -> Callable[[Transaction], str]:
    def work(tx: Transaction) -> str:
        put_setting(tx, name, "yes")
        return name

    return work


def are_stored(store: Store, *names: str) -> list[bool]:
    return [store.read(lambda tx, n=name: get_setting(tx, n)) == "yes" for name in names]  # type: ignore[misc]


def test_waiting_writes_share_one_commit(paused: PausedCommits) -> None:
    names = [f"n{i}" for i in range(MAX_BATCH)]
    assert paused.run_during_commit([write_setting(n) for n in names]) == names
    assert paused.commits == 2  # the first, and one for all sixteen
    assert all(are_stored(paused.store, *names))


def test_more_writes_than_a_batch_need_several_commits(paused: PausedCommits) -> None:
    names = [f"n{i}" for i in range(2 * MAX_BATCH + 1)]
    assert paused.run_during_commit([write_setting(n) for n in names]) == names
    assert paused.commits == 4
    assert all(are_stored(paused.store, *names))


def test_a_rejected_write_is_undone_alone(paused: PausedCommits) -> None:
    def write_and_reject(tx: Transaction) -> None:
        put_setting(tx, "half", "yes")
        tx.session.flush()
        raise RequestRejected("late", "too late")

    before, refused, after = paused.run_during_commit(
        [write_setting("before"), write_and_reject, write_setting("after")]
    )
    assert (before, after) == ("before", "after")
    assert isinstance(refused, RequestRejected) and refused.kind == "late"
    assert are_stored(paused.store, "before", "half", "after") == [True, False, True]


def test_a_write_sees_earlier_writes_of_its_batch(paused: PausedCommits) -> None:
    def count(tx: Transaction) -> int:
        n = int(get_setting(tx, "count") or 0) + 1
        put_setting(tx, "count", str(n))
        return n

    assert sorted(paused.run_during_commit([count] * 8)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_after_a_failed_commit_each_write_runs_alone(paused: PausedCommits) -> None:
    original, batches = paused.store._write_batch, []

    def failing(jobs: Any) -> None:
        batches.append(len(jobs))
        paused.fail_next = True
        original(jobs)

    paused.store._write_batch = failing  # type: ignore[method-assign]
    names = [f"n{i}" for i in range(4)]
    assert paused.run_during_commit([write_setting(n) for n in names]) == names
    assert batches == [4]
    assert paused.commits == 1 + 1 + 4  # the first, the one that failed, and one each
    assert all(are_stored(paused.store, *names))


def test_a_conflicting_write_runs_again(paused: PausedCommits) -> None:
    tries: list[int] = []

    def clash(tx: Transaction) -> str:
        tries.append(1)
        if len(tries) == 1:  # as if another process inserted the row between a read and a write
            tx.session.add_all([Setting(name="same", value="a")])
            tx.session.flush()
            tx.session.execute(sa.text("INSERT INTO settings (name, value) VALUES ('same', 'b')"))
        return "second look"

    assert paused.run_during_commit([write_setting("one"), clash, write_setting("two")]) == [
        "one",
        "second look",
        "two",
    ]
    assert len(tries) == 2 and are_stored(paused.store, "one", "two") == [True, True]
    assert paused.store.read(lambda tx: get_setting(tx, "same")) is None


def test_only_the_failing_write_gets_its_error(
    paused: PausedCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truing.annotation.store._RETRY_DELAYS", (0.0,))

    def fail(tx: Transaction) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("disk I/O error"))

    one, error, two = paused.run_during_commit([write_setting("one"), fail, write_setting("two")])
    assert (one, two) == ("one", "two") and "nothing was lost" in str(error)


def test_an_interrupt_ends_every_wait() -> None:
    commit_queue = GroupCommitQueue(lambda jobs: (_ for _ in ()).throw(KeyboardInterrupt()))
    other = WriteJob(lambda tx: None)
    commit_queue._queue.append(other)
    with pytest.raises(KeyboardInterrupt):
        commit_queue.run(lambda tx: None)
    assert other.done and isinstance(other.error, KeyboardInterrupt)
