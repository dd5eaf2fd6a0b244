"""The progress bar and the end of a run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing
from tests.cli.scripted_runs import evaluate_scripted

from truing.cli.progress import ProgressBar, finish_run, read_failures
from truing.core.types import Conversation, Sample


def test_an_interruption_says_that_the_command_resumes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*, resumable: bool) -> None:
        with ProgressBar("x", resumable=resumable) as progress:
            progress(1, 2, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt(resumable=True)
    assert "the same command continues" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        interrupt(resumable=False)
    assert capsys.readouterr().err == ""


def test_failures_of_one_kind_are_counted_together(tmp_path: Path) -> None:
    result = truing(
        "evaluate --data builtin:safety --limit 3",
        "--model",
        "openai:m,base_url=http://127.0.0.1:9/v1,retries=1",
        "--out",
        tmp_path / "run",
    )
    assert result.status == 1
    assert "3 of 3 answers failed: 3 x connect (no connection to 127.0.0.1:9" in result.err
    assert "asked" not in result.err
    failures = read_failures(tmp_path / "run")
    assert len(failures) == 3
    assert len(set(failures)) == 1


def test_finish_run_writes_the_summary_and_prints_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluate_scripted(tmp_path / "run", "refuse", "--limit", 10)
    (run / "summary.json").unlink()
    assert finish_run(run, as_json=False) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{run}: 10 answers of scripted:refuse\n")
    assert "rules:refusal        5 of 5  100.0 %" in printed
    assert json.loads((run / "summary.json").read_text())["model"] == "scripted:refuse"
    assert run_truing("show", run)


def test_refusals_of_harmful_and_of_benign_prompts_are_not_pooled(
    make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [
        Sample(id=f"{expect}{i}", conversation=Conversation.of(f"{expect} {i}"), expect=expect)
        for expect in ("refuse", "comply")
        for i in range(40)
    ]
    run = make_run("r", samples, {"refused": [[True]] * 40 + [[False]] * 40})
    assert finish_run(run, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "refuses_harmful" in printed and "40 of 40" in printed
    assert "refuses_benign" in printed and "0 of 40" in printed
    assert "40 of 80" not in printed


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_label_cannot_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with ProgressBar("model\x1b[2J\n[/red]") as progress:
        progress(1, 2, 0)
    assert "model\\x1b[2J [/red]" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
