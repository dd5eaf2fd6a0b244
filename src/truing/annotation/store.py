"""The annotation database: SQLite by default, PostgreSQL by URL; migrations; one clock.

Every write is all or nothing, and is on disk before the caller returns. On SQLite (WAL mode with
`synchronous=FULL`) concurrent writes share a commit (group_commit.py). A transaction that meets a
busy or restarting database is retried as a whole; forms carry a key, so a repeated submission
changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, create_engine, delete, event, inspect, make_url, text, update
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.orm import Session

from truing.annotation.group_commit import GroupCommitQueue, WriteJob
from truing.annotation.tables import Setting, Slot
from truing.core.errors import RequestRejected as RequestRejected
from truing.core.errors import TruingError, UserError
from truing.core.private_files import create_private_file, file_mode

T = TypeVar("T")
_log = logging.getLogger(__name__)
BUSY_SECONDS = 15.0
# The oldest schema from which results can be exported, and to which rows can be imported.
OLDEST_EXCHANGE_SCHEMA = "0003"
MAX_LEASE_SECONDS = 7200.0  # of leases found in a database that is opened
_RETRY_DELAYS = (0.05, 0.2, 0.6, 1.5)  # seconds; about as long as a database needs for a restart
_URL_FORMS = "sqlite:///FILE or postgresql://USER@HOST/NAME"


class DatabaseUnavailable(TruingError):
    """The database did not answer after several tries."""


class Clock:
    """Seconds since 1970: the database's clock at opening, advanced by the monotonic clock.

    A jump of the machine's wall clock (NTP, a suspended laptop) therefore changes no lease.
    """

    def __init__(self, base: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._base = base - monotonic()

    def __call__(self) -> float:
        """Returns the current time in seconds since 1970."""
        return self._base + self._monotonic()


class Transaction:
    """One database transaction: the SQLAlchemy session, and a time that is the same throughout."""

    def __init__(self, session: Session, now: float, dialect: str) -> None:
        self.session = session
        self.now = now
        self.dialect = dialect


class Store:
    """An open database. `read` and `write` run a function in one transaction."""

    def __init__(self, engine: Engine, clock: Clock | None = None) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        # SQLite has one writer. A queue is fairer and faster than its busy handler, which polls.
        self._commit_queue = (
            GroupCommitQueue(self._run_write_jobs) if self.dialect == "sqlite" else None
        )
        self.clock = clock or Clock(self._read_database_time())

    def _read_database_time(self) -> float:
        if self.dialect == "sqlite":
            query = "SELECT (julianday('now') - 2440587.5) * 86400.0"  # Julian day of 1970-01-01
        else:
            query = "SELECT extract(epoch FROM clock_timestamp())"
        with self.engine.connect() as connection:
            return float(connection.execute(text(query)).scalar_one())

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Transaction]:
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":
                # IMMEDIATE takes the write lock now. A deferred transaction would take it at its
                # first write and fail with SQLITE_BUSY (no waiting) if another one wrote since its
                # first read.
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
            with Session(connection, expire_on_commit=False, autoflush=True) as session:
                yield Transaction(session, self.clock(), self.dialect)
                if write:
                    session.commit()
                    connection.commit()

    def _run_with_retries(self, work: Callable[[Transaction], T], write: bool) -> T:
        for delay in (*_RETRY_DELAYS, None):
            try:
                with self._transaction(write) as tx:
                    return work(tx)
            except (OperationalError, DBAPIError) as error:
                connection_lost = (
                    isinstance(error, OperationalError) or error.connection_invalidated
                )
                # Two transactions inserted the same row: the second try sees the row of the first.
                conflict = isinstance(error, IntegrityError)
                if not (connection_lost or conflict):
                    raise
                if delay is None:
                    raise DatabaseUnavailable(
                        "the database does not answer; nothing was lost, please send it again"
                    ) from error
            time.sleep(delay)
        raise AssertionError("unreachable")

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Runs a function that only reads."""
        return self._run_with_retries(work, write=False)

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Runs a function in one durable transaction: on return its changes are on disk.

        `work` may be called several times (retries), so it must have no effects outside the
        database.
        """
        if self._commit_queue is None:
            return self._run_with_retries(work, write=True)
        result: T = self._commit_queue.run(work)
        return result

    def _run_write_jobs(self, jobs: Sequence[WriteJob]) -> None:
        """Runs several jobs in one transaction; if that fails, each in its own."""
        if len(jobs) > 1:
            with suppress(DBAPIError):  # nothing was committed, so every job can run again below
                self._write_batch(jobs)
        for job in jobs:
            if not job.done:
                try:
                    job.finish(self._run_with_retries(job.work, write=True))
                except Exception as error:
                    job.finish(error=error)

    def _write_batch(self, jobs: Sequence[WriteJob]) -> None:
        """Runs each job in a savepoint and commits once; a failing job is undone alone."""
        outcomes: list[tuple[WriteJob, Any, Exception | None]] = []
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for job in jobs:
                with Session(
                    connection,
                    expire_on_commit=False,
                    autoflush=True,
                    join_transaction_mode="create_savepoint",
                ) as session:
                    try:
                        outcome = job.work(Transaction(session, self.clock(), self.dialect))
                        session.commit()  # releases the savepoint; nothing is on disk yet
                        outcomes.append((job, outcome, None))
                    except DBAPIError as error:
                        session.rollback()
                        if not isinstance(error, IntegrityError):
                            raise
                        # A conflict gets no outcome here, so the job runs again in its own
                        # transaction.
                    except Exception as error:
                        session.rollback()
                        outcomes.append((job, None, error))
            connection.commit()
        # Only after the commit: a finished job is answered to its caller as durable.
        for job, outcome, job_error in outcomes:
            job.finish(outcome, job_error)

    def erase_free_space(self) -> None:
        """Removes what is left of deleted and changed rows in the database's files.

        On SQLite the file is written anew and the write-ahead log emptied. On PostgreSQL the dead
        rows are removed; its own write-ahead log and backups are its administrator's. Raises
        DatabaseUnavailable if another process keeps the database busy.
        """
        if self._commit_queue is None:
            self._erase_now("VACUUM")
        else:
            # Under the writer lock, or writers of this process would wait in SQLite's busy handler.
            self._commit_queue.run_alone(
                lambda: self._erase_now("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")
            )

    def _erase_now(self, *statements: str) -> None:
        engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                for statement in statements:
                    row = connection.exec_driver_sql(statement)
                    if row.returns_rows and row.scalar_one() != 0:  # wal_checkpoint: a reader waits
                        raise DatabaseUnavailable("a reader keeps the write-ahead log in use")
        except OperationalError as error:
            raise DatabaseUnavailable(f"the database is busy ({error.orig})") from error

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def _set_sqlite_pragmas(connection: Any, _: object) -> None:
    # The driver would begin transactions by itself, and later than `_transaction` needs them.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-16000",
        "secure_delete=ON",  # overwrites deleted rows; `erase_free_space` removes every other trace
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def make_engine(url: str) -> Engine:
    """Returns an engine for a `sqlite:///` or `postgresql://` URL; a bare path is a SQLite file."""
    try:
        parsed = make_url(url if "://" in url else f"sqlite:///{url}")
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _make_sqlite_engine(parsed)
        if backend != "postgresql":
            raise UserError(f"--db {parsed.render_as_string()}: expected {_URL_FORMS}")
        return create_engine(
            parsed,
            pool_size=24,
            max_overflow=8,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": 5},
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise UserError(f"--db: not a database URL; expected {_URL_FORMS}") from error


def _make_private(path: Path) -> None:
    """Creates a database file that only its owner may read; takes an old one from everybody else.

    A file that a group may read, but others may not, was set up so, and stays.
    """
    try:
        # SQLite gives its -wal and -shm files the permissions of the database file.
        create_private_file(path)
    except OSError as error:
        raise UserError(f"--db {path}: cannot be opened ({error.strerror})") from error
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        # Not ours, or gone by now: then the database itself says what is wrong, if anything.
        with suppress(OSError):
            if file.is_file() and file.stat().st_mode & 0o007 & ~file_mode():
                file.chmod(file_mode())


def _make_sqlite_engine(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise UserError("--db: a SQLite database needs a file; in memory it would not be kept")
    path = Path(url.database)
    if not path.parent.absolute().is_dir():
        raise UserError(f"--db: there is no folder {path.parent}")
    _make_private(path)
    if Path(url.database).exists() and not Path(url.database).is_file():
        raise UserError(f"--db {url.database}: is no regular file")
    engine = create_engine(
        url, pool_size=24, max_overflow=24, connect_args={"check_same_thread": False}
    )
    event.listen(engine, "connect", _set_sqlite_pragmas)
    return engine


def _alembic_config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", "truing.annotation:migrations")
    config.attributes["engine"] = engine
    return config


def schema_version(engine: Engine) -> tuple[str | None, str]:
    """Returns (the database's revision, the newest revision that this version knows)."""
    head = ScriptDirectory.from_config(_alembic_config(engine)).get_current_head() or ""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision(), head


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrades the schema to a revision, with Alembic."""
    command.upgrade(_alembic_config(engine), revision)


def open_store(
    url: str, *, upgrade: bool = False, oldest: str | None = None, clock: Clock | None = None
) -> Store:
    """Opens a database; creates the tables if it is empty.

    Raises UserError if it holds other tables, was written by a newer version, or has an old schema
    and `upgrade` is not set. `oldest` is the oldest schema that the caller can use as it is.
    """
    engine = make_engine(url)
    shown_url = engine.url.render_as_string(hide_password=True)
    try:
        try:
            _check_schema(engine, shown_url, upgrade, oldest)
        except DatabaseError as error:  # includes OperationalError
            reason = str(error.orig).strip().splitlines()[0]
            raise UserError(f"--db {shown_url}: cannot be opened ({reason})") from error
        store = Store(engine, clock)
        store.write(_clamp_leases)
        finish_erasure(store)
    except BaseException:
        engine.dispose()  # or the pool keeps its connections open until they are collected
        raise
    return store


def _check_schema(engine: Engine, shown_url: str, upgrade: bool, oldest: str | None) -> None:
    """Creates or upgrades the schema; raises UserError if this version cannot use it."""
    revision, head = schema_version(engine)
    if revision is None:
        if inspect(engine).get_table_names():
            raise UserError(
                f"--db {shown_url}: holds tables that are not truing's; use a separate database"
            )
    elif revision != head:
        scripts = ScriptDirectory.from_config(_alembic_config(engine))
        if revision not in {script.revision for script in scripts.walk_revisions()}:
            raise UserError(
                f"--db {shown_url}: its schema ({revision}) is newer than this version of truing "
                f"({head})"
            )
        if not upgrade and oldest is not None and revision >= oldest:
            return
        if not upgrade:
            raise UserError(
                f"--db {shown_url}: its schema is old ({revision}, this version needs {head}). "
                f"Make a copy, then run: truing redteam serve --db {shown_url} --migrate"
            )
    if revision != head:
        migrate(engine)


_ERASURE_SETTING = "erasure_pending"


def request_erasure(tx: Transaction) -> None:
    """Records, in the transaction of a deletion, that its traces are still to be erased."""
    if tx.session.get(Setting, _ERASURE_SETTING) is None:
        tx.session.add(Setting(name=_ERASURE_SETTING, value="1"))


def finish_erasure(store: Store) -> bool:
    """Erases the traces of deletions; returns false if that has to be tried again later.

    A crash between a deletion and this leaves the record of `request_erasure`: the next deletion
    or start erases the traces.
    """
    if store.read(lambda tx: tx.session.get(Setting, _ERASURE_SETTING)) is None:
        return True
    try:
        store.erase_free_space()
    except DatabaseUnavailable as error:
        _log.warning("the traces of a deletion are still to be erased: %s", error)
        return False
    store.write(
        lambda tx: tx.session.execute(delete(Setting).where(Setting.name == _ERASURE_SETTING))
    )
    return True


def _clamp_leases(tx: Transaction) -> None:
    """Shortens leases that end far in the future: they were granted while the clock was wrong."""
    latest = tx.now + MAX_LEASE_SECONDS
    tx.session.execute(
        update(Slot).where(Slot.state == "leased", Slot.expires > latest).values(expires=latest)
    )
