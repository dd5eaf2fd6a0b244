"""A fresh database a test, on SQLite and on a real PostgreSQL (`TRUING_TEST_POSTGRES`)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from truing.annotation.store import make_engine, migrate

BACKENDS = ("sqlite", "postgresql")
_TEMPLATE = f"truing_template_{os.getpid()}"
_made: list[str] = []
_file: list[bytes] = []


def _server() -> sa.URL:
    given = os.environ.get("TRUING_TEST_POSTGRES")
    if not given:
        word = "TRUING_TEST_POSTGRES is not set"
        if os.environ.get("CI") == "true":
            pytest.fail(word)
        pytest.skip(word)
    return sa.make_url(given)


def _do(server: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def _template(server: sa.URL) -> None:
    """Migrated once for each process of the tests; every test gets a copy."""
    if _made:
        return
    _do(server, f"DROP DATABASE IF EXISTS {_TEMPLATE}", f"CREATE DATABASE {_TEMPLATE}")
    engine = make_engine(server.set(database=_TEMPLATE).render_as_string(hide_password=False))
    migrate(engine)
    engine.dispose()
    _made.append(_TEMPLATE)


def _empty_file(folder: Path) -> bytes:
    """A SQLite file with the newest schema, made once for each process."""
    if not _file:
        path = folder / "template.sqlite"
        engine = make_engine(str(path))
        migrate(engine)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        _file.append(path.read_bytes())
    return _file[0]


@contextmanager
def database(backend: str, folder: Path, *, empty: bool = False) -> Iterator[str]:
    """The URL of a database with the newest schema (or none, with `empty`); dropped at the end."""
    if backend == "sqlite":
        if not empty:
            (folder / "study.sqlite").write_bytes(_empty_file(folder))
        yield f"sqlite:///{folder / 'study.sqlite'}"
        return
    server = _server()
    name = f"truing_{secrets.token_hex(6)}"
    if not empty:
        _template(server)
    _do(server, f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {_TEMPLATE}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _do(server, f"DROP DATABASE {name} WITH (FORCE)")


def drop_template() -> None:
    """At the end of the process."""
    if _made:
        _do(_server(), f"DROP DATABASE IF EXISTS {_made.pop()} WITH (FORCE)")
