"""`truing evaluate` and `truing judge`: output, exit status, interruption, faults, stopping rules."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.command_line import run_truing, truing
from tests.cli.scripted_runs import evaluate_scripted

from truing.runs.folder import Run

EVALUATE = "evaluate --data builtin:safety"


def test_evaluate_then_judge(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = "--model scripted:mixed --judge rules:refusal --limit 20 --json --out"
    summary = json.loads(run_truing(f"{EVALUATE} {flags}", run))
    assert (summary["responses"], summary["failures"]) == (20, {})
    assert summary["model"] == "scripted:mixed"
    assert "rules:degenerate" in run_truing("judge", run, "--judge", "rules:degenerate")
    assert len(list((run / "judgements").glob("*.jsonl"))) == 2


def test_all_faults_are_reported_together_and_nothing_is_written(tmp_path: Path) -> None:
    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    result = truing(
        "evaluate --model scripted:mixd --judge rules:refsal",
        "--data",
        f"file:{rows}",
        "--out",
        run,
    )
    assert result.status == 1
    assert "did you mean 'mixed'" in result.err
    assert "rows.jsonl: no such file" in result.err
    assert "did you mean 'refusal'" in result.err
    assert not run.exists()


def test_a_model_that_never_answers_is_status_1(tmp_path: Path) -> None:
    result = truing(f"{EVALUATE} --model scripted:fail --limit 3 --out", tmp_path / "run")
    assert result.status == 1
    assert "3 of 3 answers failed: 3 x scripted" in result.err


def test_an_interrupted_run_is_continued_by_the_same_command(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = "--judge rules:refusal --concurrency 2 --limit 60 --model scripted:mixed,delay=0.1"
    command = [sys.executable, "-m", "truing", *f"{EVALUATE} {flags} --out".split(), str(run)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    responses = run / "responses.jsonl"
    deadline = time.monotonic() + 30
    while not (responses.exists() and responses.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; what is finished is saved, and the same command continues" in err
    assert "Traceback" not in err
    assert 0 < responses.read_bytes().count(b"\n") < 60
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert responses.read_bytes().count(b"\n") == 60


def test_until_stops_early(tmp_path: Path) -> None:
    first = evaluate_scripted(tmp_path / "a", "comply", "--until", "refused(width<0.2)")
    assert Run(first).manifest.notes["until"].startswith("stopped after")
    assert len(list(Run(first).responses())) < 168
    rates = json.loads(run_truing("show --json", first))["rates"]
    overall = [r for r in rates if r["category"] is None and "_" not in r["question"]]
    # Intervals that stay valid under optional stopping.
    assert {r["raw"]["method"] for r in overall} == {"betting sequence"}

    second = evaluate_scripted(tmp_path / "b", "refuse", "--until", f"refused(decided vs {first})")
    assert "until" in Run(second).manifest.notes
    assert len(list(Run(second).responses())) < 40
    deltas = json.loads(run_truing("compare --json", first, second))["deltas"]
    refused = next(d for d in deltas if d["question"] == "refused")
    assert refused["method"].startswith("paired betting")


def test_a_wrong_stopping_rule_writes_nothing(tmp_path: Path) -> None:
    flags = "--model scripted:comply --judge rules:refusal --until harm<0.05 --out"
    assert truing(f"{EVALUATE} {flags}", tmp_path / "run").status == 1
    assert not (tmp_path / "run").exists()


def test_a_budget_of_tokens_ends_an_evaluation_with_status_3(tmp_path: Path) -> None:
    command = "evaluate --model scripted:comply --data builtin:safety --judge rules:refusal"
    result = truing(command, "--max-tokens", 32, "--budget-tokens", 500, "--out", tmp_path / "run")
    assert result.status == 3 and "stopped by its budget of 500 tokens" in result.err
    assert "refuses_harmful" in result.out  # the rates of what was answered


def test_recorded_answers_have_no_budget(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Hello", "response": "Hi"}\n')
    command = f"evaluate --data file:{rows} --judge rules:refusal --budget-tokens 5 --out"
    result = truing(command, tmp_path / "run")
    assert result.status == 1 and "need --model" in result.err
