"""Moderation on a Ray cluster of this machine: the rows of one process, also when processes die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.bulk.ray_marks import RAY_MARKS, find_ray_processes
from tests.requirements import require_package

from truing.bulk.moderate_on_ray import moderate_on_ray
from truing.bulk.moderation_job import plan_job
from truing.bulk.ray_cluster import RayOptions, _start_ray
from truing.bulk.row_files import RowOptions
from truing.cli.moderate import command
from truing.cli.ray_flags import RayFlags
from truing.core.errors import DataError
from truing.specs.resolve import resolve

pytestmark = RAY_MARKS
require_package("ray")

OPTIONS = RayOptions(workers=2, cpus=0.5)


@pytest.fixture(scope="module", autouse=True)
def pid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers with the judge of these tests leave their process ids."""
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module", autouse=True)
def cluster(pid_folder: Path) -> Iterator[None]:
    import ray

    os.environ["TRUING_TEST_PIDS"] = str(pid_folder)
    root = Path(__file__).resolve().parents[2]
    os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    # Tries again where a busy machine is too slow for the 30 s that Ray gives itself.
    _start_ray(ray, OPTIONS, {"log_to_driver": False, "logging_level": "ERROR"})
    yield
    ray.shutdown()
    del os.environ["TRUING_TEST_PIDS"]


def write_rows(path: Path, n: int) -> Path:
    rows = ({"id": str(i), "text": ["murder", "hello"][i % 2]} for i in range(n))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_parts(out: Path, parts: Any) -> bytes:
    return b"".join((out / part.file).read_bytes() for part in parts)


def slow_verdict(prompt: str, answer: str) -> bool:
    """A judge for tests: says where it works, and takes its time."""
    folder = Path(os.environ["TRUING_TEST_PIDS"]) if "TRUING_TEST_PIDS" in os.environ else None
    if folder is not None:
        (folder / str(os.getpid())).touch()
    time.sleep(0.01)
    return "murder" in answer


def moderate(source: Path, out: Path, judge_spec: str = "keywords:") -> Any:
    job, shards = plan_job(resolve(judge_spec, "judge"), str(source), RowOptions(), "", 400)
    return moderate_on_ray(
        job, shards, judge_spec, str(out), OPTIONS, lambda done, total, failures: None
    )


def test_the_command_writes_the_rows_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", 200)
    command(judge="keywords:", in_=source, out=tmp_path / "local.jsonl", json=True)
    capsys.readouterr()
    flags = RayFlags(on="ray", workers=2, worker_cpus=0.5)
    out = tmp_path / "out"
    assert (
        command(judge="keywords:", in_=source, out=out, ray=flags, shard_mib=0.001, json=True) == 0
    )
    counts = json.loads(capsys.readouterr().out)
    assert (counts["rows"], counts["flagged"], counts["resumed_at"]) == (200, 100, 0)
    assert counts["shards"] > 4
    manifest = json.loads((out / "manifest.json").read_bytes())
    parts = b"".join((out / part["file"]).read_bytes() for part in manifest["parts"])
    assert parts == (tmp_path / "local.jsonl").read_bytes()
    assert command(judge="keywords:", in_=source, out=out, ray=flags, shard_mib=0.001) == 0
    assert f"{counts['shards']} of {counts['shards']} shards were finished" in (
        capsys.readouterr().out
    )


def test_workers_are_added_while_shards_wait(tmp_path: Path, pid_folder: Path) -> None:
    """One worker begins, and the second of two is started beside it."""
    for pid in pid_folder.iterdir():
        pid.unlink()
    source = write_rows(tmp_path / "in.jsonl", 1500)
    moderate(source, tmp_path / "out", "python:tests.bulk.test_moderate_on_ray:slow_verdict")
    assert len(list(pid_folder.iterdir())) == 2


def test_workers_that_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_rows(tmp_path / "in.jsonl", 150)
    spec = "python:tests.bulk.test_moderate_on_ray:slow_verdict"
    expected, _ = moderate(source, tmp_path / "undisturbed", spec)
    out = tmp_path / "out"
    killed: list[int] = []
    ended = threading.Event()

    def kill_workers() -> None:
        while not ended.wait(0.5):
            for commit in list((out / "commits").glob("*.json"))[:1]:
                pids = find_ray_processes("MapWorker")
                if commit.exists() and pids and len(killed) < 3:
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(pids[0])

    thread = threading.Thread(target=kill_workers)
    thread.start()
    try:
        manifest, _ = moderate(source, out, spec)
    finally:
        ended.set()
        thread.join()
    assert killed
    assert manifest == expected
    assert read_parts(out, manifest.parts) == read_parts(tmp_path / "undisturbed", expected.parts)


def test_faults_of_the_input_come_together_and_other_shards_are_done(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", 100)
    lines = source.read_text().splitlines(keepends=True)
    lines[10], lines[90] = '{"text": 1}\n', "no json\n"
    source.write_text("".join(lines))
    with pytest.raises(DataError) as caught:
        moderate(source, tmp_path / "out")
    *faults, rest = caught.value.faults
    assert len(faults) == 2 and "shards are finished; the same command continues" in rest
    assert len(list((tmp_path / "out/commits").glob("*.json"))) >= 5


def test_a_driver_that_is_killed_is_continued(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", 300)
    spec = "python:tests.bulk.test_moderate_on_ray:slow_verdict"
    words = ["moderate", "--judge", spec, "--in", str(source), "--out", str(tmp_path / "out")]
    words += ["--on", "ray", "--workers", "1", "--shard-mib", "0.0004"]
    environment = {**os.environ, "RAY_ADDRESS": ""}
    driver = subprocess.Popen(
        [sys.executable, "-m", "truing", *words], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and driver.poll() is None:
        if len(list((tmp_path / "out/commits").glob("*.json"))) >= 2:
            break
        time.sleep(0.1)
    driver.kill()
    driver.wait()
    n_finished = len(list((tmp_path / "out/commits").glob("*.json")))
    assert n_finished >= 2
    time.sleep(2)  # its workers end with it
    job, shards = plan_job(resolve(spec, "judge"), str(source), RowOptions(), "", 419)
    manifest, n_before = moderate_on_ray(
        job, shards, spec, str(tmp_path / "out"), OPTIONS, lambda *counts: None
    )
    assert n_before >= 2
    assert manifest.totals.rows == 300
    ids = [
        json.loads(line)["id"] for line in read_parts(tmp_path / "out", manifest.parts).splitlines()
    ]
    assert ids == [str(i) for i in range(300)]


def test_a_cluster_by_the_port_of_rays_client(tmp_path: Path, root: Path) -> None:
    """The driver is no node of the cluster: it sends its work through the head's client server."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "RAY_ADDRESS": ""}
    environment["RAY_AUTH_MODE"] = "disabled"  # also where this user has a token
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    ray += [f"--port={_free_port()}", "--ray-client-server-port=10001", "--num-cpus=2"]
    ray += ["--include-dashboard=false", "--disable-usage-stats"]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"id": "{i}", "text": "the murder of {i}"}}\n' for i in range(40)))
    words = ["moderate", "--judge", "keywords:", "--in", str(source)]
    words += ["--out", str(tmp_path / "out")]
    words += ["--on", "ray://127.0.0.1", "--shard-mib", "0.0005", "--json"]
    # Ray's sockets lie in its folder, and their paths may have 107 bytes.
    ray_folder = tempfile.mkdtemp(prefix="ray")
    head = _start_head([*ray, f"--temp-dir={ray_folder}"], tmp_path / "head.log", environment)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "truing", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        head.terminate()
        head.wait()
        shutil.rmtree(ray_folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert (counts["rows"], counts["flagged"]) == (40, 40) and counts["shards"] > 2


def _start_head(
    command: list[str], log: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Starts a head; again where a busy machine is too slow for the 30 s that Ray gives itself."""
    for _ in range(3):
        with log.open("wb") as stream:
            head = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        while head.poll() is None:
            if "Ray runtime started" in log.read_text():
                return head
            time.sleep(0.5)
    pytest.fail(f"Ray's head did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
