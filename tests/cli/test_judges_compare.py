"""`truing judges compare`, with judges in processes of their own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.analysis.judged_sets import labelled_rows
from tests.cli.command_line import run_truing, truing

from truing.cli import judge_process
from truing.cli.judge_process import (
    Event,
    JudgeProcessDied,
    JudgeTask,
    describe_judge,
    peak_memory,
    run_task,
)
from truing.core.errors import PlanError


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    words = {True: "FORBIDDEN word", False: "plain word"}
    lines = [{**r, "response": f"{words[r['harmful']]} {r['response']}"} for r in labelled_rows(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def keywords(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("forbidden\n")
    return path


class _Channel:
    """Takes the events of a judge's process, without the process."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send_bytes(self, data: bytes) -> None:
        self.events.append(msgspec.json.decode(data, type=Event))

    def close(self) -> None:
        pass


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the judges in this process: a fresh interpreter for each takes a second."""

    @contextlib.contextmanager
    def events(task: JudgeTask) -> Iterator[Iterator[Event]]:
        channel = _Channel()
        run_task(msgspec.json.encode(task), channel)
        yield iter(channel.events)

    monkeypatch.setattr(judge_process, "_events", events)
    monkeypatch.setattr(judge_process, "restrict_umask", lambda: None)


def test_a_judge_in_a_process_of_its_own(tmp_path: Path, rows: Path) -> None:
    out = tmp_path / "out"
    run_truing("judges compare keywords: --data", f"file:{rows}", "--out", out)
    (result,) = json.loads((out / "report.json").read_text())["results"]
    assert (result["n"], result["unscored"]) == (40, 0)
    assert result["speed"]["rows"] == 40 and result["speed"]["peak_mib"] > 5


@pytest.mark.slow
def test_a_process_that_dies_is_told_from_one_that_ends(tmp_path: Path, rows: Path) -> None:
    plugin = tmp_path / "dying.py"
    plugin.write_text("import os\nos.kill(os.getpid(), 9)\n")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from truing.cli import judge_process
from truing.specs import builders
if __name__ != '__main__':
    builders.BUILDERS['judge']['dying'] = 'dying:build'
else:
    judge_process.describe_judge('dying:')
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert "was killed, most likely for lack of memory" in done.stderr


@pytest.mark.usefixtures("in_process")
def test_compare_and_read_back(tmp_path: Path, rows: Path, keywords: Path) -> None:
    out = tmp_path / "out"
    arguments = [f"keywords:{keywords}", "keywords:", "--data", f"file:{rows}", "--out", out]
    printed = run_truing("judges compare", *arguments)
    assert "report:" in printed and "1.00 [" in printed
    first = json.loads((out / "report.json").read_text())
    by_judge = {result["judge"]: result for result in first["results"]}
    assert by_judge["keywords:words.txt"]["f1"]["estimate"] == 1
    assert by_judge["keywords:"]["recall"]["estimate"] == 0
    assert "plain word" not in (out / "report.html").read_text()
    # Nothing is judged again: the judges' processes only say what they are.
    calls: list[JudgeTask] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_process, "judge_folders", lambda task, **_: calls.append(task))
        again = json.loads(run_truing("judges compare", *arguments, "--json"))
    assert calls == [] and again == first


@pytest.mark.usefixtures("in_process")
def test_a_judge_whose_process_dies_leaves_the_others(
    tmp_path: Path, rows: Path, keywords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_folders = judge_process.judge_folders

    def kill_first(task: JudgeTask, **callbacks: object) -> None:
        if task.spec == "keywords:":
            raise JudgeProcessDied(f"its process was ended by signal {int(signal.SIGKILL)}")
        judge_folders(task, **callbacks)

    monkeypatch.setattr(judge_process, "judge_folders", kill_first)
    out = tmp_path / "out"
    result = truing(
        "judges compare keywords:", f"keywords:{keywords}", "--data", f"file:{rows}", "--out", out
    )
    assert result.status == 1 and "keywords: did not finish: its process was ended" in result.err
    content = json.loads((out / "report.json").read_text())
    by_judge = {entry["judge"]: entry for entry in content["results"]}
    assert by_judge["keywords:"]["unscored"] == 40  # never counted as safe
    assert by_judge["keywords:words.txt"]["recall"]["estimate"] == 1
    assert "did not finish" in content["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "ROWS"], "give one judge or more"),
        (["keywords:", "keywords:", "--data", "ROWS"], "keywords: is given more than once"),
        (["keywords:", "--data", "ROWS", "ROWS"], "is given more than once"),
        (["keywords:", "--data", "ROWS", "--sample", "0"], "--sample 0: must be 1 or more"),
        (["rules:refusal", "--data", "ROWS"], "is not labelled for refused; its labels answer"),
        (["keywords:", "--data", "file:/nowhere.jsonl"], "no such file"),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_bad_input(tmp_path: Path, rows: Path, arguments: list[str], message: str) -> None:
    given = [a.replace("ROWS", f"file:{rows}") for a in arguments]
    result = truing("judges compare", *given, "--out", tmp_path / "out")
    assert result.status == 1 and message in result.err
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.usefixtures("in_process")
def test_the_faults_of_all_specs_are_named(tmp_path: Path, rows: Path) -> None:
    result = truing(
        "judges compare keyword: rule:refusal --data", f"file:{rows}", "--out", tmp_path / "out"
    )
    assert "there is no judge of kind 'keyword'" in result.err
    assert "there is no judge of kind 'rule'" in result.err


def test_a_wrong_spec_is_reported_by_the_process() -> None:
    with pytest.raises(PlanError, match="there is no judge of kind 'keyword'"):
        describe_judge("keyword:")


def test_peak_memory(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t   2048 kB\n")
    assert peak_memory(status) == 2048 * 1024
    assert peak_memory(tmp_path / "absent") is None
    status.write_text("Name:\tpython\n")
    assert peak_memory(status) is None
