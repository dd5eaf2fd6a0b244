"""The database: migrations, old and foreign schemas, the clock, concurrent writers, invalid URLs."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from tests.annotation.databases import BACKENDS, database

from truing.annotation.store import (
    Clock,
    DatabaseUnavailable,
    Store,
    Transaction,
    make_engine,
    migrate,
    open_store,
    schema_version,
)
from truing.annotation.study import get_setting, new_id, put_setting
from truing.annotation.tables import ReviewItem, Slot, TableBase
from truing.core.errors import UserError


def test_migrations_and_models_agree(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, TableBase.metadata) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_old_schema_is_upgraded_on_request(backend: str, tmp_path: Path) -> None:
    with database(backend, tmp_path, empty=True) as url:
        engine = make_engine(url)
        migrate(engine, "0001")
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO settings (name, value) VALUES ('kept', 'yes')"))
        engine.dispose()
        with pytest.raises(UserError, match=r"schema is old \(0001.*--migrate"):
            open_store(url)
        store = open_store(url, upgrade=True)
        assert schema_version(store.engine)[0] == schema_version(store.engine)[1] != "0001"
        assert store.read(lambda tx: get_setting(tx, "kept")) == "yes"
        store.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_newer_schema_and_a_foreign_database_are_rejected(backend: str, tmp_path: Path) -> None:
    # A connection that `open_store` left open would be reported by pytest as a ResourceWarning.
    with database(backend, tmp_path, empty=True) as url:
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE invoices (id INTEGER)"))
        with pytest.raises(UserError, match="not truing's"):
            open_store(url)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE invoices"))
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
        with pytest.raises(UserError, match="newer than this version"):
            open_store(url)
        gc.collect()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://somebody@host/db", "sqlite:///FILE or postgresql"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////no/such/folder/x.db", "there is no folder"),
        ("postgresql://nobody:hush@127.0.0.1:1/none", "cannot be opened"),
        ("what://:", "database URL"),
    ],
)
def test_invalid_urls(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_store(url)
    assert "hush" not in str(caught.value)


def test_a_new_database_is_private_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_umask = os.umask(0)
    try:
        store = open_store(str(tmp_path / "study.sqlite"))
        store.write(lambda tx: put_setting(tx, "name", "value"))
        files = sorted(tmp_path.iterdir())
        modes = {path.name: path.stat().st_mode & 0o777 for path in files}
        assert modes == dict.fromkeys(
            ("study.sqlite", "study.sqlite-shm", "study.sqlite-wal"), 0o600
        )
        for path in files:
            path.chmod(0o644)  # as an earlier version left it
        store.close()
        open_store(str(tmp_path / "study.sqlite")).close()
        assert (tmp_path / "study.sqlite").stat().st_mode & 0o777 == 0o600
        (tmp_path / "study.sqlite").chmod(0o660)  # shared with a group on purpose
        open_store(str(tmp_path / "study.sqlite")).close()
        assert (tmp_path / "study.sqlite").stat().st_mode & 0o777 == 0o660
        monkeypatch.setenv("TRUING_FILE_MODE", "0640")
        open_store(str(tmp_path / "group.sqlite")).close()
        assert (tmp_path / "group.sqlite").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old_umask)


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and no database at all " * 50)
    with pytest.raises(UserError, match=r"notes\.txt: cannot be opened \(file is not a database\)"):
        open_store(str(path))


def test_the_clock_advances_with_the_monotonic_clock() -> None:
    seconds = [50.0]
    clock = Clock(1_000.0, lambda: seconds[0])
    assert clock() == 1_000.0
    seconds[0] += 7.5  # whatever the wall clock does meanwhile
    assert clock() == 1_007.5


def test_leases_far_in_the_future_are_shortened(url: str) -> None:
    store = open_store(url)

    def add_far_lease(tx: Transaction) -> None:
        item = ReviewItem(
            id=new_id(),
            source="x",
            source_key="x",
            conversation="{}",
            targets="[]",
            sorted=True,
            severity=1.0,
            rank=0.0,
            created=tx.now,
        )
        tx.session.add(item)
        tx.session.flush()
        tx.session.add(
            Slot(
                id="s",
                item_id=item.id,
                number=0,
                state="leased",
                person_id="p",
                expires=tx.now + 10**9,
            )
        )

    store.write(add_far_lease)
    store.close()
    reopened = open_store(url)
    assert reopened.read(
        lambda tx: tx.session.get_one(Slot, "s").expires - tx.now
    ) == pytest.approx(7200, abs=60)
    reopened.close()


def test_a_write_is_all_or_nothing(store: Store) -> None:
    def fail_half_way(tx: Transaction) -> None:
        put_setting(tx, "half", "done")
        tx.session.flush()
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        store.write(fail_half_way)
    assert store.read(lambda tx: get_setting(tx, "half")) is None


def test_concurrent_writers_lose_nothing(store: Store) -> None:
    store.write(lambda tx: put_setting(tx, "count", "0"))

    def work(tx: Transaction) -> None:
        count = tx.session.execute(
            sa.text(
                "SELECT value FROM settings WHERE name = 'count'"
                + (" FOR UPDATE" if tx.dialect == "postgresql" else "")
            )
        ).scalar_one()
        tx.session.execute(
            sa.text("UPDATE settings SET value = :v WHERE name = 'count'"),
            {"v": str(int(count) + 1)},
        )

    threads = [
        threading.Thread(target=lambda: [store.write(work) for _ in range(10)]) for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert store.read(lambda tx: get_setting(tx, "count")) == "80"


def test_a_database_that_stays_away_is_unavailable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truing.annotation.store._RETRY_DELAYS", (0.0, 0.0))
    calls = []

    def fail(tx: Transaction) -> None:
        calls.append(1)
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection"))

    with pytest.raises(DatabaseUnavailable, match="nothing was lost"):
        store.write(fail)
    assert len(calls) == 3


def test_writes_survive_lost_connections(store: Store) -> None:
    """Every pooled connection is cut by the server; the next write goes through."""
    if store.dialect != "postgresql":
        store.engine.dispose()
    else:
        other = sa.create_engine(store.engine.url, isolation_level="AUTOCOMMIT")
        with other.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
        other.dispose()
    store.write(lambda tx: put_setting(tx, "after", "here"))
    assert store.read(lambda tx: get_setting(tx, "after")) == "here"
