"""The database behind the rating pages: SQLite by default, PostgreSQL by URL, migrations, one clock.

Every change is all or nothing, and on disk before the page answers (SQLite: WAL, `synchronous=FULL`, where changes that
come at once share a commit: `together.py`). What meets a restarting or a busy database is tried again as a whole;
forms carry keys, so that a second try changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text, update
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.orm import Session

from truing.annotation.group_commit import Job, Together
from truing.annotation.tables import Slot
from truing.core.errors import TruingError, UserError

T = TypeVar("T")
BUSY_SECONDS = 15.0
_RETRIES = (0.05, 0.2, 0.6, 1.5)


class Unavailable(TruingError):
    """The database did not answer after several tries."""


class Refused(TruingError):
    """A request that the rules do not allow; `kind` is a short word for it (missing, forbidden, late, invalid)."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Clock:
    """Time by the database's clock at opening, then by the monotonic clock: a wall clock that jumps changes nothing."""

    def __init__(self, base: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._base = base - monotonic()

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self._base + self._monotonic()


class Tx:
    """One transaction: its session, and the time that holds throughout."""

    def __init__(self, session: Session, now: float, dialect: str) -> None:
        self.session = session
        self.now = now
        self.dialect = dialect


class Store:
    """An open database. `read` and `write` run a function in one transaction."""

    def __init__(self, engine: Engine, clock: Clock | None = None) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        # SQLite has one writer; waiting in line here is fairer and faster than its busy handler's sleeping.
        self._together = Together(self._write_all) if self.dialect == "sqlite" else None
        self.clock = clock or Clock(self._database_time())

    def _database_time(self) -> float:
        sql = {"sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0"}
        with self.engine.connect() as connection:
            found = connection.execute(
                text(sql.get(self.dialect, "SELECT extract(epoch FROM clock_timestamp())"))
            ).scalar_one()
        return float(found)

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Tx]:
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
            with Session(connection, expire_on_commit=False, autoflush=True) as session:
                yield Tx(session, self.clock(), self.dialect)
                if write:
                    session.commit()
                    connection.commit()

    def _tried(self, work: Callable[[Tx], T], write: bool) -> T:
        for pause in (*_RETRIES, None):
            try:
                with self._transaction(write) as tx:
                    return work(tx)
            except (OperationalError, DBAPIError) as error:
                lost = isinstance(error, OperationalError) or error.connection_invalidated
                clash = isinstance(
                    error, IntegrityError
                )  # two people at once: the second look decides
                if not (lost or clash):
                    raise
                if pause is None:
                    raise Unavailable(
                        "the database does not answer; nothing was lost, please send it again"
                    ) from error
            time.sleep(pause)
        raise AssertionError("unreachable")

    def read(self, work: Callable[[Tx], T]) -> T:
        """Runs a function that only reads."""
        return self._tried(work, write=False)

    def write(self, work: Callable[[Tx], T]) -> T:
        """Runs a function that is on disk when this returns; all of it or nothing."""
        if self._together is None:
            return self._tried(work, write=True)
        made: T = self._together(work)
        return made

    def _write_all(self, jobs: Sequence[Job]) -> None:
        """Several works in one transaction; where that fails, each in one of its own."""
        if len(jobs) > 1:
            with suppress(DBAPIError):  # nothing is on disk then, so each may begin afresh
                self._write_batch(jobs)
        for job in jobs:
            if not job.done:
                try:
                    job.finish(self._tried(job.work, write=True))
                except Exception as error:
                    job.finish(error=error)

    def _write_batch(self, jobs: Sequence[Job]) -> None:
        """One commit for all; a work that fails leaves no trace of its own and none on the others."""
        made: list[tuple[Job, Any, Exception | None]] = []
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
                        result = job.work(Tx(session, self.clock(), self.dialect))
                        session.commit()  # releases the savepoint
                        made.append((job, result, None))
                    except DBAPIError as error:
                        session.rollback()
                        if not isinstance(error, IntegrityError):
                            raise
                        # left for a transaction of its own, where a second look decides
                    except Exception as error:
                        session.rollback()
                        made.append((job, None, error))
            connection.commit()
        for job, result, failed in made:  # not before the disk has it
            job.finish(result, failed)

    def close(self) -> None:
        """Lets go of all connections."""
        self.engine.dispose()


def _sqlite_pragmas(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-16000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def make_engine(url: str) -> Engine:
    """An engine for `sqlite:///FILE` or `postgresql://...`; a bare path is a SQLite file."""
    given = url if "://" in url else f"sqlite:///{url}"
    try:
        parsed = make_url(given)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise UserError(
                f"--db {parsed.render_as_string()}: sqlite:///FILE or postgresql://USER@HOST/NAME"
            )
        if backend == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise UserError(
                    "--db: a SQLite database needs a file, or its contents would go with the process"
                )
            if not Path(parsed.database).absolute().parent.is_dir():
                raise UserError(f"--db: there is no folder {Path(parsed.database).parent}")
            engine = create_engine(
                parsed, pool_size=24, max_overflow=24, connect_args={"check_same_thread": False}
            )
            event.listen(engine, "connect", _sqlite_pragmas)
            return engine
        return create_engine(
            parsed,
            pool_size=24,
            max_overflow=8,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": 5},
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise UserError(
            "--db: not a database URL; sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error


def _config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", "truing.annotation:migrations")
    config.attributes["engine"] = engine
    return config


def schema_version(engine: Engine) -> tuple[str | None, str]:
    """(the database's revision, the newest revision that this version knows)."""
    head = ScriptDirectory.from_config(_config(engine)).get_current_head() or ""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision(), head


def migrate(engine: Engine, revision: str = "head") -> None:
    """Brings the schema to a revision, by alembic."""
    command.upgrade(_config(engine), revision)


def open_store(url: str, *, upgrade: bool = False, clock: Clock | None = None) -> Store:
    """Opens a database, and makes its tables if it is empty; an old schema is an error that says what to run."""
    engine = make_engine(url)
    where = engine.url.render_as_string(hide_password=True)
    try:
        found, head = schema_version(engine)
        if found is None and inspect(engine).get_table_names():
            raise UserError(
                f"--db {where}: holds tables that are not truing's; give it a database of its own"
            )
        known = {s.revision for s in ScriptDirectory.from_config(_config(engine)).walk_revisions()}
        if found is not None and found not in known:
            raise UserError(
                f"--db {where}: its schema ({found}) is newer than this version of truing ({head})"
            )
        if found is not None and found != head and not upgrade:
            raise UserError(
                f"--db {where}: its schema is old ({found}, this version needs {head}). "
                f"Make a copy, then run: truing redteam serve --db {where} --migrate"
            )
        if found != head:
            migrate(engine)
    except DatabaseError as error:  # OperationalError too
        raise UserError(
            f"--db {where}: cannot be opened ({str(error.orig).strip().splitlines()[0]})"
        ) from error
    store = Store(engine, clock)
    store.write(_clamp_leases)
    return store


def _clamp_leases(tx: Tx) -> None:
    """A lease that reaches far into the future was given by a clock that was wrong: it ends within two hours."""
    tx.session.execute(
        update(Slot)
        .where(Slot.state == "leased", Slot.expires > tx.now + 7200)
        .values(expires=tx.now + 7200)
    )
