"""`truing watch`: each row once, labels in order, the alarm, and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.cli.watch import WatchFlags, command
from truing.core.errors import DataError, RunError, UserError

FLAGS = WatchFlags(tolerated=0.1, false_alarm=0.1, audit_rate=0.5)


def append_rows(path: Path, texts: list[str]) -> None:
    with path.open("a") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def watch(source: Path, out: Path, capsys: Any, flags: WatchFlags = FLAGS) -> dict[str, Any]:
    status = command(str(source), judge="keywords:", out=out, flags=flags, json=True)
    state: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status == (0 if state["raised_at"] is None else 2)
    return state


def label_rows(out: Path, harmful: bool | None, n: int | None = None) -> None:
    rows = [json.loads(line) for line in (out / "to_label.jsonl").read_text().splitlines()]
    lines = (json.dumps({"id": row["id"], "harmful": harmful}) + "\n" for row in rows[:n])
    (out / "labels.jsonl").write_text("".join(lines))


def test_new_rows_are_judged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "logs", tmp_path / "out"
    source.mkdir()
    append_rows(source / "a.jsonl", ["murder", "hello"] * 5)
    assert watch(source, out, capsys)["rows"] == 10
    assert watch(source, out, capsys)["rows"] == 10
    append_rows(source / "a.jsonl", ["hello"] * 3)
    append_rows(source / "b.jsonl", ["murder"])
    with (source / "b.jsonl").open("a") as stream:
        stream.write('{"text": "half a li')
    state = watch(source, out, capsys)
    assert (state["rows"], state["flagged"]) == (14, 6)
    with (source / "b.jsonl").open("a") as stream:
        stream.write('ne"}\n')
    assert watch(source, out, capsys)["rows"] == 15
    audits = (out / "to_label.jsonl").read_text().splitlines()
    assert watch(source, out, capsys)["audited"] == len(audits)


def test_labels_count_in_the_order_of_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    append_rows(source, ["hello"] * 60)
    state = watch(source, out, capsys)
    assert 15 < state["audited"] < 45
    assert 0 < state["waiting"] <= 60
    label_rows(out, False, 5)
    fewer = watch(source, out, capsys)
    assert fewer["labelled"] == 5 and 0 < fewer["waiting"] < state["waiting"]
    label_rows(out, False)
    done = watch(source, out, capsys)
    assert (done["waiting"], done["corrected_rate"], done["raised_at"]) == (0, 0.0, None)
    # What people could not tell counts as harmful.
    label_rows(out, None)
    assert watch(source, out, capsys)["corrected_rate"] > 0.5


def test_an_alarm_and_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, metrics = tmp_path / "a.jsonl", tmp_path / "out", tmp_path / "watch.prom"
    append_rows(source, ["hello"] * 200)
    flags = WatchFlags(tolerated=0.1, false_alarm=0.1, audit_rate=0.5, metrics=metrics)
    watch(source, out, capsys, flags)
    assert 'truing_watch_alarm{judge="keywords:"} 0' in metrics.read_text()
    # The judge saw none of them.
    label_rows(out, True)
    state = watch(source, out, capsys, flags)
    assert state["raised_at"] is not None
    text = metrics.read_text()
    assert 'truing_watch_alarm{judge="keywords:"} 1' in text
    assert 'truing_watch_rows_total{judge="keywords:"} 200' in text
    assert command(str(source), judge="keywords:", out=out, flags=flags) == 2
    assert "ALARM at row" in capsys.readouterr().out


def test_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    append_rows(source, ["hello"] * 9)
    watch(source, out, capsys)
    with pytest.raises(RunError, match="watches with other settings"):
        watch(source, out, capsys, WatchFlags(tolerated=0.2))
    source.write_text(json.dumps({"text": "x"}) + "\n")
    with pytest.raises(DataError, match="it was cut short or written again"):
        watch(source, out, capsys)
    for flags in (WatchFlags(tolerated=0), WatchFlags(every=0)):
        with pytest.raises(UserError, match="--tolerated|--every"):
            watch(source, tmp_path / "new", capsys, flags)
    with pytest.raises(UserError, match="only files on a disk"):
        command("s3://bucket/logs", judge="keywords:", out=out)
