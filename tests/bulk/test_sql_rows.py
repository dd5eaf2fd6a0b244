"""Tables of a database as input: each row once, by ranges of keys; a password stays outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.requirements import require_variable

from truing.bulk.input_shards import ShardRows, find_sources, plan_shards
from truing.bulk.moderation_job import ShardRunner, begin_job, finish_job, plan_job, run_shards
from truing.bulk.row_files import InputRow, RowOptions
from truing.bulk.shard_store import ShardStore
from truing.bulk.sql_rows import parse_sql_table, plan_key_ranges, read_key_range
from truing.core.errors import DataError, RunError
from truing.specs.resolve import resolve


def write_table(url: str, rows: list[dict[str, Any]], key_type: Any = sqlalchemy.Integer) -> None:
    engine = sqlalchemy.create_engine(url)
    metadata = sqlalchemy.MetaData()
    table = sqlalchemy.Table(
        "answers",
        metadata,
        sqlalchemy.Column("id", key_type, index=True),
        sqlalchemy.Column("text", sqlalchemy.Text),
    )
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with engine.begin() as connection:
        if rows:
            connection.execute(table.insert(), rows)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"sqlite:///{tmp_path / 'a.db'}"
    if request.param == "postgresql":
        name = require_variable("TRUING_TEST_POSTGRES")
    monkeypatch.setenv("DATABASE_URL", name)
    return name


def test_moderation_of_a_table(url: str, tmp_path: Path) -> None:
    words = ["murder", "hello"]
    write_table(url, [{"id": 3 * i - 40, "text": words[i % 2]} for i in range(25)])
    judge = resolve("keywords:", "judge")
    job, shards = plan_job(judge, "sql:answers", RowOptions(), "", 320 * 4)
    assert len(shards) == 7
    out = ShardStore(tmp_path / "out")
    commits = begin_job(out, job)
    faults: list[str] = []

    def note(outcome: Any) -> None:
        faults.extend(outcome.faults)
        if outcome.commit is not None:
            commits[outcome.shard] = outcome.commit

    runner = ShardRunner(job, judge, out.url)
    run_shards(runner, shards[:3], note)
    # The same command continues: the plan is the same.
    again, shards_again = plan_job(judge, "sql:answers", RowOptions(), "", 320 * 4)
    assert (again, shards_again) == (job, shards)
    run_shards(runner, shards, note)
    runner.close()
    assert not faults
    manifest = finish_job(out, job, len(shards), commits)
    assert (manifest.totals.rows, manifest.totals.flagged) == (25, 13)
    lines = b"".join(out.read(part.file) or b"" for part in manifest.parts).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [3 * i - 40 for i in range(25)]
    assert url not in (tmp_path / "out/plan.json").read_text()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keys=st.lists(st.integers(-30, 30), max_size=30), rows_per_shard=st.integers(1, 10))
def test_ranges_hold_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[int], rows_per_shard: int
) -> None:
    """Also where keys occur several times."""
    url = f"sqlite:///{tmp_path / 'b.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    rows = [{"id": key, "text": str(number)} for number, key in enumerate(keys)]
    write_table(url, rows)
    source = parse_sql_table("sql:answers,key=id")
    ranges = plan_key_ranges(source, rows_per_shard)
    read = [row for keys_of in ranges for row in read_key_range(source, keys_of)]
    assert sorted(map(str, read)) == sorted(map(str, rows))
    assert [row["id"] for row in read] == sorted(keys)


def test_a_table_that_changes_is_refused(url: str) -> None:
    write_table(url, [{"id": i, "text": "a"} for i in range(10)])
    options = RowOptions()
    shards = plan_shards(find_sources("sql:answers", options), options, 320 * 5)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM answers WHERE id = 7"))
    engine.dispose()
    assert len([r for r in ShardRows(shards[0], options, []) if isinstance(r, InputRow)]) == 5
    with pytest.raises(DataError, match=r"4 rows have a id from 5 to before 10, and had 5"):
        list(ShardRows(shards[1], options, []))


def test_a_table_whose_ranges_have_moved_is_another_input(url: str, tmp_path: Path) -> None:
    """The number of rows, the least and the largest key are the same."""
    write_table(url, [{"id": 2 * i, "text": "a"} for i in range(20)])
    judge = resolve("keywords:", "judge")
    job, shards = plan_job(judge, "sql:answers", RowOptions(), "", 320 * 10)
    out = ShardStore(tmp_path / "out")
    begin_job(out, job)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM answers WHERE id = 4"))
        connection.execute(sqlalchemy.text("INSERT INTO answers VALUES (31, 'a')"))
    engine.dispose()
    later_job, later_shards = plan_job(judge, "sql:answers", RowOptions(), "", 320 * 10)
    assert [s.start for s in later_shards] != [s.start for s in shards]
    with pytest.raises(RunError, match=r"other input files \(sql:answers is new or has changed\)"):
        begin_job(out, later_job)


def test_columns_without_an_order_are_read(url: str) -> None:
    """PostgreSQL orders no JSON; rows of one key come in one order all the same."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS chats"))
        connection.execute(sqlalchemy.text("CREATE TABLE chats (id INTEGER, messages JSON)"))
        for name in "bca":
            chat = json.dumps([{"role": "user", "content": name}])
            values = {"chat": chat}
            connection.execute(sqlalchemy.text("INSERT INTO chats VALUES (1, :chat)"), values)
    options = RowOptions()
    try:
        (shard,) = plan_shards(find_sources("sql:chats", options), options)
        rows = [row for row in ShardRows(shard, options, []) if isinstance(row, InputRow)]
        assert [row.conversation.messages[0].content for row in rows] == ["a", "b", "c"]
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DROP TABLE chats"))
        engine.dispose()


def test_what_cannot_be_read_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(url, [{"id": 1, "text": "a"}, {"id": None, "text": "b"}])
    options = RowOptions()

    def fault_of(path: str) -> str:
        with pytest.raises(DataError) as caught:
            plan_shards(find_sources(path, options), options)
        return str(caught.value)

    assert "1 rows have no 'id' and would be left out" in fault_of("sql:answers")
    assert "no column 'ids'; did you mean 'id'" in fault_of("sql:answers,key=ids")
    assert "the key 'text' is TEXT, no integer" in fault_of("sql:answers,key=text")
    assert "sql:nowhere: NoSuchTableError" in fault_of("sql:nowhere")
    assert "there is no 'keys'" in fault_of("sql:answers,keys=id")
    assert "OTHER_URL with the URL of the database is not set" in fault_of(
        "sql:answers,url_env=OTHER_URL"
    )
    monkeypatch.setenv("DATABASE_URL", "nodb://user:hidden@host/x")
    assert "hidden" not in fault_of("sql:answers")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:name@host:hidden/x")
    assert fault_of("sql:answers") == "sql:answers: the URL in DATABASE_URL is malformed"


def test_a_missing_sqlite_file_is_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    with pytest.raises(DataError, match="the file that DATABASE_URL names does not exist"):
        find_sources("sql:answers", RowOptions())
    assert not path.exists()


def test_a_column_without_a_form_in_json_is_named_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = require_variable("TRUING_TEST_POSTGRES")
    monkeypatch.setenv("DATABASE_URL", url)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS hosts"))
        connection.execute(sqlalchemy.text("CREATE TABLE hosts (id INTEGER, text TEXT, host INET)"))
        connection.execute(sqlalchemy.text("INSERT INTO hosts VALUES (1, 'a', '10.0.0.1')"))
    try:
        with pytest.raises(
            DataError, match=r"column 'host' holds IPv4Address, for which JSON has no form"
        ):
            plan_shards(find_sources("sql:hosts", RowOptions()), RowOptions())
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DROP TABLE hosts"))
        engine.dispose()


def test_a_table_without_a_column_that_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    write_table(url, [{"id": 1, "text": "a"}])
    options = RowOptions(response="body")
    with pytest.raises(DataError, match="no column 'body'"):
        plan_shards(find_sources("sql:answers", options), options)
