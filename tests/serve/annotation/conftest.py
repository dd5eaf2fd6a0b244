"""Fixtures of the page tests: databases on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.annotation.databases import _drop_template as _drop_template
from tests.annotation.databases import database
from tests.annotation.databases import url as url


@pytest.fixture
def file_url(tmp_path: Path) -> Iterator[str]:
    """SQLite only, for tests in which the database makes no difference."""
    with database("sqlite", tmp_path) as database_url:
        yield database_url
