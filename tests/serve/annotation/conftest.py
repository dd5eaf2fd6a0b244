"""Fixtures of the page tests: databases on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.annotation.databases import BACKENDS, database, drop_template


@pytest.fixture(scope="session", autouse=True)
def _drop_template() -> Iterator[None]:
    yield
    drop_template()


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as database_url:
        yield database_url


@pytest.fixture
def file_url(tmp_path: Path) -> Iterator[str]:
    """SQLite only, for tests in which the database makes no difference."""
    with database("sqlite", tmp_path) as database_url:
        yield database_url
