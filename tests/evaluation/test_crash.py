"""Killed processes, full disks, concurrent processes: the same command continues to equal bytes."""

from __future__ import annotations

import importlib.util
import os
import random
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel
from tests.requirements import skip_or_fail

from truing.core.errors import RunError
from truing.evaluation.evaluate import evaluate
from truing.http import session
from truing.runs.folder import Run, RunWriter


def _load_kill_benchmark(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "kill", root / "benchmarks" / "engine" / "kill.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(root: Path, tmp_path: Path) -> Iterator[tuple[ModuleType, object]]:
    kill = _load_kill_benchmark(root)
    server, url = kill.start_mock()
    yield kill, kill.KillBenchmark(tmp_path, url)
    server.terminate()
    server.communicate()  # waits, and closes the pipe


def test_killed_run_continues_to_equal_bytes(bench: tuple[ModuleType, object]) -> None:
    _, benchmark = bench
    rng = random.Random(11)
    # The slow test has the other places, and many more kills.
    for number, place in enumerate(("write", "judge", "finish")):
        model = "http" if place == "finish" else "scripted"
        row = benchmark.kill(number, place, model, rng)  # type: ignore[attr-defined]
        assert row["equal"], row


@pytest.mark.slow
def test_many_killed_runs_continue_to_equal_bytes(bench: tuple[ModuleType, object]) -> None:
    kill, benchmark = bench
    rng = random.Random(2026)
    rows = []
    for number in range(36):
        place = kill.PLACES[number % len(kill.PLACES)]
        model = "http" if place == "clock" else rng.choice(("http", "scripted"))
        rows.append(benchmark.kill(number, place, model, rng))  # type: ignore[attr-defined]
    assert [r for r in rows if not r["equal"]] == []
    interrupted = [(r["place"], k) for r in rows for k in r["kills"] if not k.endswith("before)")]
    assert len(interrupted) >= 25
    assert sum(place == "write" for place, _ in interrupted) >= 5
    assert sum(place == "judge" for place, _ in interrupted) >= 3
    assert sum(place == "summary" for place, _ in interrupted) >= 3


@pytest.mark.slow
def test_killed_run_of_a_local_model_in_float32(
    bench: tuple[ModuleType, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models.local.conftest import write

    write(tmp_path / "tiny", "llama")
    _, benchmark = bench
    # For a tiny model threads only wait for one another.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = benchmark.data.read_text().splitlines(keepends=True)[:12]  # type: ignore[attr-defined]
    benchmark.data.write_text("".join(rows))  # type: ignore[attr-defined]
    benchmark.models["local"] = f"local:{tmp_path / 'tiny'},dtype=float32"  # type: ignore[attr-defined]
    row = benchmark.kill(0, "write", "local", random.Random(5))  # type: ignore[attr-defined]
    assert row["equal"], row
    assert any(not k.endswith("before)") for k in row["kills"])


SCRIPT = """
    import resource, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel
    from truing.core.errors import RunError
    from truing.evaluation.evaluate import evaluate
    limit = int(sys.argv[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        evaluate(SeedModel(), MemoryDataset.of_size(300), [EvenJudge()], sys.argv[1])
    except RunError as error:
        print(error)
        sys.exit(1)
"""


def test_full_disk_is_reported_and_loses_nothing(tmp_path: Path, root: Path) -> None:
    out = tmp_path / "run"
    script = textwrap.dedent(SCRIPT).format(root=str(root))

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, str(out), str(limit)], capture_output=True, text=True
        )

    evaluate(SeedModel(), MemoryDataset.of_size(300), [EvenJudge()], tmp_path / "complete")
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "complete").rglob("*.jsonl")}
    cut = sizes["responses.jsonl"] // 2 + 11
    first = run(max(cut, sizes["samples.jsonl"] + 1))
    assert first.returncode == 1, first.stderr
    assert (
        "the disk is full; what was written before is safe, and the same command continues from there"
        in first.stdout
    )
    stored = (out / "responses.jsonl").read_bytes()
    assert stored.endswith(b"\n")
    assert 0 < len(stored) < sizes["responses.jsonl"]
    assert run(0).returncode == 0
    for path in (tmp_path / "complete").rglob("*.jsonl"):
        assert (out / path.relative_to(tmp_path / "complete")).read_bytes() == path.read_bytes()


def test_full_file_system(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    as_root = ["sudo", "-n"] if os.getuid() and shutil.which("sudo") else []
    options = f"size=128k,uid={os.getuid()}"
    mounted = subprocess.run(
        [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True
    )
    if mounted.returncode:
        skip_or_fail(f"mounting a file system is not permitted: {mounted.stderr[-200:]!r}")
    try:
        with pytest.raises(RunError, match="the disk is full"):
            evaluate(SeedModel(), MemoryDataset.of_size(2000), [EvenJudge()], mount / "run")
        assert (
            not (mount / "run" / "manifest.json").exists() or Run(mount / "run").manifest.plan_hash
        )
    finally:
        subprocess.run([*as_root, "umount", str(mount)], check=True)


def test_second_process_is_refused(tmp_path: Path, root: Path) -> None:
    run = evaluate(SeedModel(), MemoryDataset.of_size(3), [EvenJudge()], tmp_path / "run")
    writer = RunWriter(run.path, run.manifest)
    script = (
        textwrap.dedent(SCRIPT)
        .format(root=str(root))
        .replace("MemoryDataset.of_size(300)", "MemoryDataset.of_size(3)")
        .replace("[EvenJudge()]", "[EvenJudge('test:two')]")
    )
    second = subprocess.run(
        [sys.executable, "-c", script, str(run.path), "0"], capture_output=True, text=True
    )
    assert second.returncode == 1
    assert "another process is writing to this run folder" in second.stdout
    writer.close()
    assert subprocess.run([sys.executable, "-c", script, str(run.path), "0"]).returncode == 0


def test_limit_of_open_files_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
        session._raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(
            4096, hard if hard > 0 else 4096
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="file/run: cannot create the folder"):
        evaluate(SeedModel(), MemoryDataset.of_size(2), [], tmp_path / "file" / "run")
    broken = tmp_path / "broken"
    run = evaluate(SeedModel(), MemoryDataset.of_size(2), [], broken)
    (broken / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"manifest\.json: cannot be read as a manifest"):
        evaluate(SeedModel(), MemoryDataset.of_size(2), [EvenJudge()], broken)
    assert len(list(run.responses())) == 2
    assert os.path.exists(broken / "samples.jsonl")
