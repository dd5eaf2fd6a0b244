"""A fresh database for each test, on SQLite and on PostgreSQL (`TRUING_TEST_POSTGRES`)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.requirements import require_variable

from truing.annotation.store import make_engine, migrate

BACKENDS = ("sqlite", "postgresql")
_TEMPLATE = f"truing_template_{os.getpid()}"
_created_templates: list[str] = []
_template_file: list[bytes] = []


def _server() -> sa.URL:
    return sa.make_url(require_variable("TRUING_TEST_POSTGRES"))


def _execute(server: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def _create_template(server: sa.URL) -> None:
    """Creates a migrated template database once a process; every test gets a copy of it."""
    if _created_templates:
        return
    _execute(server, f"DROP DATABASE IF EXISTS {_TEMPLATE}", f"CREATE DATABASE {_TEMPLATE}")
    engine = make_engine(server.set(database=_TEMPLATE).render_as_string(hide_password=False))
    migrate(engine)
    engine.dispose()
    _created_templates.append(_TEMPLATE)


def _migrated_file(folder: Path) -> bytes:
    """Returns the bytes of a SQLite file with the newest schema, created once a process."""
    if not _template_file:
        path = folder / "template.sqlite"
        engine = make_engine(str(path))
        migrate(engine)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        _template_file.append(path.read_bytes())
    return _template_file[0]


@contextmanager
def database(backend: str, folder: Path, *, empty: bool = False) -> Iterator[str]:
    """Yields the URL of a new database with the newest schema (`empty`: without any); drops it."""
    if backend == "sqlite":
        if not empty:
            (folder / "study.sqlite").write_bytes(_migrated_file(folder))
        yield f"sqlite:///{folder / 'study.sqlite'}"
        return
    server = _server()
    name = f"truing_{secrets.token_hex(6)}"
    if not empty:
        _create_template(server)
    _execute(server, f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {_TEMPLATE}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database."""
    with database(request.param, tmp_path) as database_url:
        yield database_url


@pytest.fixture(scope="session", autouse=True)
def _drop_template() -> Iterator[None]:
    """Drops the template database at the end of the tests."""
    yield
    if _created_templates:
        _execute(_server(), f"DROP DATABASE IF EXISTS {_created_templates.pop()} WITH (FORCE)")
