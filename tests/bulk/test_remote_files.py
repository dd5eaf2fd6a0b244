"""Object stores: one that throttles is asked again, and stale lists lose and double nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from truing.bulk import remote_files
from truing.bulk.input_shards import ShardRows, find_sources, plan_shards
from truing.bulk.moderation_job import (
    ShardOutcome,
    ShardRunner,
    begin_job,
    finish_job,
    plan_job,
    run_shards,
    sum_input_ids,
)
from truing.bulk.remote_files import repeat_passing_errors
from truing.bulk.row_files import RowOptions
from truing.bulk.shard_store import ShardStore
from truing.core.errors import DataError, RunError
from truing.specs.resolve import resolve


class ThrottlingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A store that refuses two calls in three, and lists nothing that is newer than its list."""

    protocol = "slowstore"
    store: dict[str, Any] = {}  # noqa: RUF012
    calls = 0
    stale: list[str] | None = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        inner: str = MemoryFileSystem._strip_protocol(path.replace("slowstore://", "memory://"))
        return inner

    @classmethod
    def _throttle(cls) -> None:
        cls.calls += 1
        if cls.calls % 3:
            raise OSError("An error occurred (SlowDown): please reduce your request rate")

    def cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        self._throttle()
        data: bytes = super().cat_file(path, *args, **options)
        return data

    def pipe_file(self, path: str, value: bytes, *args: Any, **options: Any) -> None:
        self._throttle()
        super().pipe_file(path, value, *args, **options)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        if self.stale is not None:
            return [name for name in self.stale if name.rsplit("/", 1)[0] == path]
        listed: list[Any] = super().ls(path, detail, **options)
        return listed


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote_files, "_FIRST_WAIT_SECONDS", 0.0)
    fsspec.register_implementation("slowstore", ThrottlingFileSystem, clobber=True)
    ThrottlingFileSystem.store.clear()
    ThrottlingFileSystem.stale = None
    yield "slowstore://bucket"
    ThrottlingFileSystem.store.clear()


def test_moderation_from_and_to_a_store(store: str, tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("slowstore")
    lines = [json.dumps({"id": i, "text": f"row {i}"}) + "\n" for i in range(30)]
    for number in range(3):
        data = "".join(lines[10 * number : 10 * number + 10]).encode()
        MemoryFileSystem.pipe_file(filesystem, f"/bucket/in/{number}.jsonl", data)
    judge = resolve("keywords:", "judge")
    job, shards = plan_job(judge, f"{store}/in", RowOptions(), "", 100)
    out = ShardStore(f"{store}/out")
    outcomes: dict[int, ShardOutcome] = {}
    commits = begin_job(out, job)
    assert commits == {}
    run_shards(
        ShardRunner(job, judge, out.url), shards[:4], lambda o: outcomes.update({o.shard: o})
    )
    # The list is from before the work: finished shards are done again, and count once.
    ThrottlingFileSystem.stale = []
    commits = begin_job(out, job)
    assert commits == {}
    run_shards(ShardRunner(job, judge, out.url), shards, lambda o: outcomes.update({o.shard: o}))
    assert all(not outcome.faults for outcome in outcomes.values())
    commits = {o.shard: o.commit for o in outcomes.values() if o.commit is not None}
    manifest = finish_job(out, job, len(shards), commits)
    expected = sum_input_ids(job, shards)
    assert (manifest.totals.rows, manifest.totals.ids) == (30, expected.ids)
    written = [out.read(part.file) or b"" for part in manifest.parts]
    assert [json.loads(line)["id"] for line in b"".join(written).splitlines()] == list(range(30))


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise PermissionError("access denied")

    with pytest.raises(PermissionError):
        repeat_passing_errors(fail)
    assert len(calls) == 1


def test_waits_grow_and_end() -> None:
    waits: list[float] = []

    def fail() -> None:
        raise OSError("503 Service Unavailable")

    with pytest.raises(OSError, match="503"):
        repeat_passing_errors(fail, waits.append)
    assert len(waits) == 6
    assert all(0.2 * 2**i / 2 <= w <= 0.2 * 2**i for i, w in enumerate(waits))


def test_stores_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nostore://x/\*\.jsonl: .*nostore"):
        find_sources("nostore://x/*.jsonl", RowOptions())
    with pytest.raises(DataError, match=r"memory://nothing/rows\.jsonl"):
        find_sources("memory://nothing/rows.jsonl", RowOptions())
    with pytest.raises(DataError, match="no files of rows"):
        find_sources("memory://nothing/*.jsonl", RowOptions())


def test_tables_and_parquet_in_a_store(store: str) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/tables/a.csv", b"text,n\na,1\nb,2\n")
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"text": "a"}, {"text": "b"}]), stream, row_group_size=1)
    filesystem.pipe_file("/tables/a.parquet", stream.getvalue())
    for name in ("a.csv", "a.parquet"):
        shards = plan_shards(find_sources(f"memory://tables/{name}", RowOptions()), RowOptions(), 1)
        assert len(shards) == 2
        rows = [row for shard in shards for row in ShardRows(shard, RowOptions(), [])]
        assert [getattr(row, "fields", row)["text"] for row in rows] == ["a", "b"]


def test_a_folder_of_another_job(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    judge = resolve("keywords:", "judge")
    job, _ = plan_job(judge, str(tmp_path / "rows.jsonl"), RowOptions(), "", 100)
    with pytest.raises(RunError, match="holds other files"):
        begin_job(ShardStore(tmp_path / "out"), job)
