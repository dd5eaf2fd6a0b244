"""With the real tools: what garak, PyRIT and promptfoo write is read, what we write Inspect AI
reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.peers import peer_program, peer_python, promptfoo_program

from truing.analysis.summary import summarise
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.exchange.inspect_log import write_inspect_log
from truing.specs.resolve import resolve

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]


def python(name: str, code: str, *arguments: str, cwd: Path) -> Any:
    """Runs code in a peer's environment; gives the JSON of its last line."""
    home = {f"XDG_{k}_HOME": str(cwd / k.lower()) for k in ("DATA", "CACHE", "CONFIG")}
    process = subprocess.run(
        [peer_python(name), "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.strip().splitlines()[-1])


@pytest.fixture
def mock(root: Path) -> Iterator[str]:
    command = [sys.executable, str(root / "benchmarks" / "engine" / "mock.py"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[1]
    process.terminate()
    process.wait()
    process.stdout.close()


READ = """
import json, sys
from inspect_ai.log import read_eval_log, list_eval_logs, read_eval_log_sample_summaries
from inspect_ai.analysis import evals_df, samples_df
log = read_eval_log(sys.argv[1])
s = log.samples[0]
frame = samples_df(sys.argv[1])
print(json.dumps({
    "status": log.status, "model": log.eval.model, "samples": len(log.samples), "listed": len(list_eval_logs(".")),
    "summaries": len(read_eval_log_sample_summaries(sys.argv[1])), "scorers": [x.name for x in log.results.scores],
    "mean": log.results.scores[0].metrics["mean"].value, "unscored": log.results.scores[0].unscored_samples,
    "completion": s.output.completion, "roles": [m.role for m in s.messages], "tokens": s.output.usage.total_tokens,
    "rows": len(frame), "evals": len(evals_df(sys.argv[1])), "columns": [c for c in frame.columns if c.startswith("score")],
}))
"""


def test_inspect_reads_what_we_write(tmp_path: Path) -> None:
    options = EvaluateOptions(limit=30, sampling=Sampling(n=2, temperature=1.0))
    judges = [resolve(j, "judge") for j in ("rules:refusal", "rules:degenerate")]
    run = evaluate(
        resolve("scripted:mixed", "model"),
        resolve("builtin:safety", "data"),
        judges,
        tmp_path / "run",
        options=options,
    )
    file = tmp_path / "logs" / "run.eval"
    write_inspect_log(run, file)
    read_log = python("inspect", READ, str(file), cwd=tmp_path)
    refused = next(
        r for r in summarise(run).rates if r.question == "refused" and r.category is None
    )
    assert (
        read_log["status"],
        read_log["model"],
        read_log["samples"],
        read_log["rows"],
        read_log["summaries"],
    ) == (
        "success",
        "scripted:mixed",
        60,
        60,
        60,
    )
    assert read_log["mean"] == pytest.approx(refused.events / refused.scored)
    assert (read_log["evals"], read_log["listed"]) == (1, 1)
    assert read_log["scorers"] == ["rules:refusal", "rules:degenerate"]
    assert read_log["roles"][-1] == "assistant"
    assert read_log["tokens"] > 0
    assert len(read_log["columns"]) == 2
    program = peer_program("inspect", "inspect")
    dumped = subprocess.run(
        [program, "log", "dump", str(file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert len(json.loads(dumped.stdout)["samples"]) == 60
    view = [
        program,
        "view",
        "bundle",
        "--log-dir",
        str(file.parent),
        "--output-dir",
        str(tmp_path / "site"),
    ]
    process = subprocess.run(view, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr[-1000:]
    assert (tmp_path / "site" / "index.html").exists()


GARAK = """
import sys, json
from garak.cli import main
main(["--target_type", "test.Repeat", "--spec", "probes.test.Test", "--generations", "2", "--report_prefix", sys.argv[1]])
print(json.dumps("done"))
"""


def test_garaks_report(tmp_path: Path) -> None:
    python("garak", GARAK, str(tmp_path / "g"), cwd=tmp_path)
    file = tmp_path / "g.report.jsonl"
    rows = list(resolve(f"garak:{file}", "data").rows())
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    (total,) = (e for e in entries if e["entry_type"] == "eval")
    judged = [j for r in rows for j in r.judgements]
    assert len(judged) == total["total_evaluated"] > 0
    assert sum(j.verdict is False for j in judged) == total["passed"]
    assert all(len(r.responses) == 2 for r in rows)
    assert {r.model for row in rows for r in row.responses} == {"test.Repeat"}


def test_pyrits_database(tmp_path: Path, mock: str, root: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "prompt": f"Say hello to {i}"}) + "\n" for i in range(12))
    )
    script = root / "benchmarks" / "engine" / "peers" / "pyrit_run.py"
    command = [
        peer_python("pyrit"),
        str(script),
        "--data",
        str(tmp_path / "rows.jsonl"),
        "--concurrency",
        "4",
        "--base-url",
        mock,
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert process.returncode == 0, process.stderr[-2000:]
    rows = list(resolve(f"pyrit:{tmp_path}/out/pyrit.db", "data").rows())
    assert {r.sample.prompt for r in rows} == {f"Say hello to {i}" for i in range(12)}
    for row in rows:
        (answer,), (judged,) = row.responses, row.judgements
        assert (answer.model, judged.judge) == ("mock", "pyrit:SubStringScorer")
        assert judged.verdict is ("overview of the topic" in answer.text)
        assert row.sample.tags["outcome"] == ("success" if judged.verdict else "failure")
    assert len({j.verdict for r in rows for j in r.judgements}) == 2


CONFIG = """
prompts: ["Say hello to {{name}}", "file://chat.json"]
providers: [{id: echo, label: echo-model}]
tests:
  - vars: {name: Ann}
    assert: [{type: contains, value: Ann}, {type: not-contains, value: Bob}]
  - vars: {name: Bob}
    assert: [{type: contains, value: Ann}]
"""


def test_promptfoos_results(tmp_path: Path) -> None:
    program = promptfoo_program()
    (tmp_path / "promptfooconfig.yaml").write_text(CONFIG)
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Greet {{name}}"},
    ]
    (tmp_path / "chat.json").write_text(json.dumps(chat))
    env = {
        **os.environ,
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        "PROMPTFOO_CONFIG_DIR": str(tmp_path / "home"),
    }
    command = [program, "eval", "-c", "promptfooconfig.yaml", "-o", "out.json", "--no-cache"]
    process = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=240
    )
    assert process.returncode in (0, 100), process.stderr[
        -2000:
    ]  # 100: some tests failed, as they should
    rows = list(resolve(f"promptfoo:{tmp_path}/out.json", "data").rows())
    passed = {r.sample.prompt: [j.verdict for j in r.judgements] for r in rows}
    assert passed == {
        "Say hello to Ann": [True, True, True],
        "Greet Ann": [True, True, True],
        "Say hello to Bob": [False, False],
        "Greet Bob": [False, False],
    }
    assert {r.responses[0].model for r in rows} == {"echo-model"}
    run = evaluate(None, resolve(f"promptfoo:{tmp_path}/out.json", "data"), [], tmp_path / "run")
    assert run.manifest.model == "echo-model"
