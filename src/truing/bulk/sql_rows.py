"""Rows of a table of a database, as input of many rows: `sql:TABLE,key=COLUMN,url_env=VARIABLE`.

The key is a column of integers with an index. A shard is a range of keys, so that a worker reads
its rows by one range scan whatever the size of the table, and a later command plans the same
ranges. The URL of the database (SQLAlchemy's) is read from the environment of each machine: it
holds a password, and the plan of a job is a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import DataError, did_you_mean
from truing.specs.extras import needs_extra
from truing.specs.parser import parse_spec

_PREFIX = "sql:"
_DEFAULT_VARIABLE = "DATABASE_URL"
_ROWS_AT_ONCE = 1000


class SqlTable(Struct, frozen=True, kw_only=True):
    """A table, its key, and the variable of the environment that holds the database's URL.

    `table` may have a schema: audit.answers.
    """

    table: str
    key: str = "id"
    url_env: str = _DEFAULT_VARIABLE


class KeyRange(Struct, frozen=True, kw_only=True):
    """The rows whose key is `start` or more and below `end`, and how many there were."""

    start: int
    end: int
    rows: int


class TableFacts(Struct, frozen=True, kw_only=True):
    """The columns of a table with their types, its number of rows, and its least and largest key
    (None: it is empty).
    """

    columns: dict[str, str]
    rows: int
    least: int | None
    largest: int | None


def is_sql(path: str) -> bool:
    """Whether an input is a table of a database."""
    return path.startswith(_PREFIX)


def parse_sql_table(path: str) -> SqlTable:
    """Returns the table of `sql:TABLE,key=COLUMN,url_env=VARIABLE`; raises SpecError."""
    spec = parse_spec(path)
    unknown = set(spec.args) - {"key", "url_env"}
    if not spec.name or unknown:
        raise DataError(
            f"{path}: expected sql:TABLE,key=COLUMN,url_env=VARIABLE"
            + (f"; there is no {sorted(unknown)[0]!r}" if unknown else "")
        )
    return SqlTable(
        table=str(spec.name),
        key=str(spec.args.get("key", "id")),
        url_env=str(spec.args.get("url_env", _DEFAULT_VARIABLE)),
    )


@contextmanager
def _connect(source: SqlTable) -> Iterator[tuple[Any, Any]]:
    """Yields a connection and the reflected table; raises DataError if there is none."""
    with needs_extra("reading tables of a database", "serve"):
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    url = os.environ.get(source.url_env)
    label = f"sql:{source.table}"
    if not url:
        raise DataError(
            f"{label}: the variable {source.url_env} with the URL of the database is not set on "
            "this machine"
        )
    _check_sqlite_file(url, source)
    schema, _, name = source.table.rpartition(".")
    engine = None
    try:
        try:
            engine = sqlalchemy.create_engine(url)
        except ValueError:
            # The message holds the part of the URL that is wrong, perhaps of the password.
            raise DataError(f"{label}: the URL in {source.url_env} is malformed") from None
        table = sqlalchemy.Table(
            name, sqlalchemy.MetaData(), schema=schema or None, autoload_with=engine
        )
        if source.key not in table.c:
            columns = list(table.c.keys())
            raise DataError(
                f"{label}: no column {source.key!r}{did_you_mean(source.key, columns)}; name the "
                f"column to read by as key=COLUMN; columns: {', '.join(columns)}"
            )
        with engine.connect() as connection:
            yield connection, table
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        # The message of some drivers holds the URL.
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(url, "the URL")
        raise DataError(f"{label}: {type(error).__name__}: {reason}") from error
    finally:
        if engine is not None:
            engine.dispose()


def _check_sqlite_file(url: str, source: SqlTable) -> None:
    """Raises DataError for an SQLite file that does not exist: a connection would create it."""
    path = url.partition("?")[0].removeprefix("sqlite:///")
    is_file = url.startswith("sqlite:///") and path not in ("", ":memory:")
    if is_file and not path.startswith("file:") and not os.path.exists(path):
        raise DataError(f"sql:{source.table}: the file that {source.url_env} names does not exist")


def read_table_facts(source: SqlTable) -> TableFacts:
    """Returns what a table holds; raises DataError where its key is no column of integers."""
    from sqlalchemy import Integer, func, select

    with _connect(source) as (connection, table):
        key = table.c[source.key]
        if not isinstance(key.type, Integer):
            raise DataError(f"sql:{source.table}: the key {source.key!r} is {key.type}, no integer")
        query = select(func.count(), func.count(key), func.min(key), func.max(key))
        rows, with_key, least, largest = connection.execute(query.select_from(table)).one()
        columns = {column.name: str(column.type) for column in table.c}
    if rows != with_key:
        raise DataError(
            f"sql:{source.table}: {rows - with_key} rows have no {source.key!r} and would be left "
            "out; give another key"
        )
    return TableFacts(columns=columns, rows=rows, least=least, largest=largest)


def plan_key_ranges(source: SqlTable, rows_per_shard: int) -> list[KeyRange]:
    """Returns ranges of keys that together hold the rows of a table, each about as many.

    Each is found from the end of the one before (keyset pagination), so that the table is scanned
    once, by its index.
    """
    from sqlalchemy import func, select

    facts = read_table_facts(source)
    ranges: list[KeyRange] = []
    if facts.least is None or facts.largest is None:
        return ranges
    start = facts.least
    with _connect(source) as (connection, table):
        key = table.c[source.key]
        _check_values(source, dict(connection.execute(select(table).limit(1)).mappings().one()))
        while start <= facts.largest:
            ordered = select(key).where(key >= start).order_by(key)
            last = connection.execute(ordered.limit(1).offset(rows_per_shard - 1)).scalar()
            end = (facts.largest if last is None else min(last, facts.largest)) + 1
            count = select(func.count()).select_from(table).where(key >= start, key < end)
            ranges.append(
                KeyRange(start=start, end=end, rows=int(connection.execute(count).scalar_one()))
            )
            start = end
    return ranges


def _check_values(source: SqlTable, row: Mapping[str, Any]) -> None:
    """Raises DataError for a row with a value that JSON has no form for, such as an address."""
    for column, value in row.items():
        try:
            msgspec.json.encode(value)
        except TypeError:
            raise DataError(
                f"sql:{source.table}: the column {column!r} holds {type(value).__name__}, "
                "for which JSON has no form; give a view that casts it to text"
            ) from None


def read_key_range(source: SqlTable, keys: KeyRange) -> Iterator[dict[str, Any]]:
    """Yields the rows of a range, in the order of their keys.

    Raises DataError at the end if there were not as many rows as when the range was planned.
    """
    from sqlalchemy import select

    n_rows = 0
    with _connect(source) as (connection, table):
        key = table.c[source.key]
        query = select(table).where(key >= keys.start, key < keys.end).order_by(key)
        streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query)
        for _, rows in groupby(map(dict, streamed.mappings()), itemgetter(source.key)):
            # The order of rows with equal keys must not differ from read to read. The database
            # cannot tell it: PostgreSQL does not order JSON.
            for row in sorted(rows, key=repr):
                n_rows += 1
                yield row
    if n_rows != keys.rows:
        raise DataError(
            f"sql:{source.table}: {n_rows:,} rows have a {source.key} from {keys.start} to before "
            f"{keys.end}, and had {keys.rows:,} when the work was planned; the work needs a table "
            "that stays as it is (give a view, or a copy)"
        )
