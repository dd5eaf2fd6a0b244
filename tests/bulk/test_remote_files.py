"""Object stores: one that throttles is asked again, and stale lists lose and double nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.requirements import require_package

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
from truing.bulk.remote_files import list_remote_files, open_remote, repeat_passing_errors
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


@pytest.mark.parametrize(
    ("message", "is_repeated"),
    [
        ("503 Service Unavailable", True),
        ("An error occurred (SlowDown)", True),
        ("access denied: s3://logs-500/2026/429.jsonl", False),
        ("no key 5003", False),
    ],
)
def test_a_number_in_a_path_is_no_code(message: str, is_repeated: bool) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise OSError(message)

    with pytest.raises(OSError, match=message[:8]):
        repeat_passing_errors(fail, lambda seconds: None)
    assert (len(calls) > 1) == is_repeated


def test_reads_that_the_store_throttles_are_repeated(store: str) -> None:
    data = bytes(range(256)) * 40
    MemoryFileSystem.pipe_file(fsspec.filesystem("slowstore"), "/bucket/a.bin", data)
    before = ThrottlingFileSystem.calls
    with open_remote(f"{store}/a.bin") as stream:
        assert stream.read(5) == data[:5]
        assert (stream.seek(-10, 2), stream.read()) == (len(data) - 10, data[-10:])
        stream.seek(300)
        assert stream.readline() == data[300 : data.index(b"\n", 300) + 1]
        assert stream.read() == data[data.index(b"\n", 300) + 1 :]
    assert ThrottlingFileSystem.calls > before + 2
    with pytest.raises(DataError, match="none.bin"):
        open_remote(f"{store}/none.bin")


class _WebServer(BaseHTTPRequestHandler):
    """A server that sends whole files alone, as that of Python does."""

    content = b"".join(b'{"text": "row %d"}\n' % i for i in range(9))
    tells_size = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        if self.tells_size:
            self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.startswith("/locked"):
            self.send_error(403)
            return
        self.do_HEAD()
        self.wfile.write(self.content)


@pytest.mark.parametrize("tells_size", [True, False])
def test_a_web_server_without_ranges_or_sizes_loses_no_row(
    tells_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_WebServer, "tells_size", tells_size)
    options = RowOptions()
    with ThreadingHTTPServer(("127.0.0.1", 0), _WebServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/rows.jsonl"
        if tells_size:
            # The whole file is read as one range; a part of it would be another part.
            (shard,) = plan_shards(find_sources(url, options), options)
            assert len(list(ShardRows(shard, options, []))) == 9
            _, later, *_ = plan_shards(find_sources(url, options), options, 40)
            with pytest.raises(DataError, match="the store knows no ranges"):
                list(ShardRows(later, options, []))
        else:
            with pytest.raises(DataError, match="does not tell its size"):
                find_sources(url, options)
        # aiohttp's error is no OSError.
        with pytest.raises(DataError, match=r"locked/\*\.jsonl: ClientResponseError: 403"):
            find_sources(url.replace("rows.jsonl", "locked/*.jsonl"), options)
        server.shutdown()


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/*.jsonl", "{}/b.jsonl"])
def test_names_of_files_can_be_opened_again(tmp_path: Path, form: str) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n')
    for scheme in ("file://", "memory://"):
        folder = f"{scheme}{tmp_path}"
        filesystem, inner = fsspec.core.url_to_fs(f"{folder}/b.jsonl")
        filesystem.pipe_file(inner, b'{"text": "a"}\n')
        (name,) = list_remote_files(form.format(folder), [".jsonl"])
        with open_remote(name) as stream:
            assert stream.read() == b'{"text": "a"}\n'


def test_urls_of_the_web_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Web:
        def find(self, path: str) -> list[str]:
            return [path + "/rows.jsonl"]

    monkeypatch.setattr(remote_files, "open_filesystem", lambda path: (Web(), path))
    for url in ("https://host/rows.jsonl", "https://host/folder"):
        names = list_remote_files(url, [".jsonl"])
        assert names == [url if url.endswith("l") else url + "/rows.jsonl"]


def test_many_files_are_read_at_once(store: str, tmp_path: Path) -> None:
    for url in (f"{store}/many", str(tmp_path)):
        folder = ShardStore(url)
        for number in range(5):
            folder.write(f"ids/{number}", bytes([number]))
        names = [f"ids/{number}" for number in (4, 7, 0)]
        assert list(folder.read_many(names)) == [
            (names[0], b"\4"),
            (names[1], None),
            (names[2], b"\0"),
        ]


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


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket of moto's server, a real HTTP server of S3's protocol."""
    require_package("s3fs")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.client("s3").create_bucket(Bucket="logs")
    yield "s3://logs"
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_moderation_from_and_to_s3(s3: str) -> None:
    """The command with its output continued, from JSON lines and from Parquet."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    import s3fs

    files = s3fs.S3FileSystem()
    rows = [{"id": i, "text": ["murder", "hello"][i % 2]} for i in range(40)]
    for number in range(2):
        lines = "".join(json.dumps(row) + "\n" for row in rows[20 * number : 20 * number + 20])
        files.pipe_file(f"logs/in/{number}.jsonl", lines.encode())
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=7)
    files.pipe_file("logs/table/a.parquet", stream.getvalue())
    judge = resolve("keywords:", "judge")
    for source, n_first in ((f"{s3}/in", 5), (f"{s3}/in/*.jsonl", 0), (f"{s3}/table/a.parquet", 2)):
        job, shards = plan_job(judge, source, RowOptions(), "", 100)
        assert {shard.path.rsplit("/", 1)[0] for shard in shards} <= {f"{s3}/in", f"{s3}/table"}
        out = ShardStore(f"{s3}/out-{n_first}")
        outcomes: list[ShardOutcome] = []
        assert begin_job(out, job) == {}
        runner = ShardRunner(job, judge, out.url)
        run_shards(runner, shards[:n_first], outcomes.append)
        commits = begin_job(out, job)
        assert len(commits) == n_first
        run_shards(runner, shards[n_first:], outcomes.append)
        runner.close()
        assert not [fault for outcome in outcomes for fault in outcome.faults]
        commits |= {o.shard: o.commit for o in outcomes if o.commit is not None}
        manifest = finish_job(out, job, len(shards), commits)
        assert (manifest.totals.rows, manifest.totals.flagged) == (40, 20)
        assert manifest.totals.ids == sum_input_ids(job, shards).ids
        assert begin_job(out, job) == commits
    files.pipe_file("logs/in/1.jsonl", b'{"text": "other"}\n')
    with pytest.raises(RunError, match=r"s3://logs/in/1\.jsonl is new or has changed"):
        begin_job(ShardStore(f"{s3}/out-5"), plan_job(judge, f"{s3}/in", RowOptions(), "", 100)[0])
