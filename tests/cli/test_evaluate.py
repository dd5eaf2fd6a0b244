"""`truing evaluate` and `judge`, as a user calls them: exit status, interruption, faults all together."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

TRUING = [sys.executable, "-m", "truing"]


def truing(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRUING, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def test_a_run_a_judge_and_what_they_print(tmp_path: Path) -> None:
    first = truing(
        "evaluate",
        "--model",
        "scripted:mixed",
        "--data",
        "builtin:safety",
        "--judge",
        "rules:refusal",
        "--out",
        "run",
        "--limit",
        "20",
        "--json",
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert (made["responses"], made["failures"], made["model"]) == (20, {}, "scripted:mixed")
    second = truing("judge", "run", "--judge", "rules:degenerate", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "rules:degenerate" in second.stdout
    assert len(list((tmp_path / "run" / "judgements").glob("*.jsonl"))) == 2


def test_all_faults_together_and_nothing_made(tmp_path: Path) -> None:
    done = truing(
        "evaluate",
        "--model",
        "scripted:mixd",
        "--data",
        "file:rows.jsonl",
        "--judge",
        "rules:refsal",
        "--out",
        "run",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    for said in ("did you mean 'mixed'", "rows.jsonl: no such file", "did you mean 'refusal'"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_model_that_never_answers_is_status_1(tmp_path: Path) -> None:
    done = truing(
        "evaluate",
        "--model",
        "scripted:fail",
        "--data",
        "builtin:safety",
        "--out",
        "run",
        "--limit",
        "3",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "3 of 3 answers failed: 3 x scripted" in done.stderr


def test_the_same_trouble_is_counted_together(tmp_path: Path) -> None:
    done = truing(
        "evaluate",
        "--model",
        "openai:m,base_url=http://127.0.0.1:9/v1,retries=1",
        "--data",
        "builtin:safety",
        "--out",
        "run",
        "--limit",
        "3",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "3 of 3 answers failed: 3 x connect (no connection to 127.0.0.1:9" in done.stderr
    assert "asked" not in done.stderr


def test_interrupted_it_says_so_and_goes_on(tmp_path: Path) -> None:
    command = [
        *TRUING,
        "evaluate",
        "--model",
        "scripted:mixed,delay=0.1",
        "--data",
        "builtin:safety",
        "--judge",
        "rules:refusal",
        "--out",
        "run",
        "--concurrency",
        "2",
        "--limit",
        "60",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    responses = tmp_path / "run" / "responses.jsonl"
    deadline = time.monotonic() + 30
    while not (responses.exists() and responses.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; what is finished is saved, and the same command continues" in said
    assert "Traceback" not in said
    kept = responses.read_bytes().count(b"\n")
    assert 0 < kept < 60
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    assert responses.read_bytes().count(b"\n") == 60
