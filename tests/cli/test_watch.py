"""`truing watch`: each row once, labels in order, the alarm, and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from truing.bulk import watched_rows
from truing.cli.moderate_rows import RowFlags
from truing.cli.watch import WatchFlags, command
from truing.core.errors import DataError, RunError, UserError
from truing.runs.write_lock import acquire_write_lock

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


def read_metrics(path: Path) -> dict[str, float]:
    """Returns the values as Prometheus' own parser reads them."""
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["judge"] for sample in samples} == {"keywords:"}
    return {sample.name.removeprefix("truing_watch_"): sample.value for sample in samples}


def test_an_alarm_and_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, metrics = tmp_path / "a.jsonl", tmp_path / "out", tmp_path / "watch.prom"
    append_rows(source, ["hello"] * 200)
    flags = WatchFlags(tolerated=0.1, false_alarm=0.1, audit_rate=0.5, metrics=metrics)
    watch(source, out, capsys, flags)
    values = read_metrics(metrics)
    assert (values["rows_total"], values["alarm"], values["labelled_total"]) == (200, 0, 0)
    assert "corrected_rate" not in values, "nothing is corrected without a label"
    # The judge saw none of them.
    label_rows(out, True)
    state = watch(source, out, capsys, flags)
    assert state["raised_at"] is not None
    values = read_metrics(metrics)
    assert (values["rows_total"], values["alarm"]) == (200, 1)
    assert values["log_evidence"] > values["needed_log_evidence"]
    assert values["labelled_total"] == values["audited_total"] > 0
    assert command(str(source), judge="keywords:", out=out, flags=flags) == 2
    assert "ALARM at row" in capsys.readouterr().out


def test_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    append_rows(source, ["hello"] * 9)
    watch(source, out, capsys)
    with pytest.raises(RunError, match=r"watches with other settings \(tolerated, "):
        watch(source, out, capsys, WatchFlags(tolerated=0.2))
    source.write_text(json.dumps({"text": "x"}) + "\n")
    with pytest.raises(DataError, match="it was cut short or written again"):
        watch(source, out, capsys)
    for flags in (WatchFlags(tolerated=0), WatchFlags(every=0)):
        with pytest.raises(UserError, match="--tolerated|--every"):
            watch(source, tmp_path / "new", capsys, flags)
    with pytest.raises(UserError, match="only files on a disk"):
        command("s3://bucket/logs", judge="keywords:", out=out)


def test_two_watches_do_not_write_to_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    append_rows(source, ["hello"])
    out.mkdir()
    lock = acquire_write_lock(out)
    with pytest.raises(RunError, match="another process is writing"):
        watch(source, out, capsys)
    lock.close()
    assert watch(source, out, capsys)["rows"] == 1
    # A range that was judged twice, by whatever, is refused and not counted twice.
    log = out / "judged.jsonl"
    log.write_bytes(log.read_bytes() * 2)
    with pytest.raises(RunError, match="judged to 18, and then from 0"):
        watch(source, out, capsys)


def test_files_whose_judged_part_changes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "logs", tmp_path / "out"
    source.mkdir()
    log = source / "app.jsonl"
    append_rows(log, ["hello"] * 3)
    watch(source, out, capsys)
    # Rotated by a rename within the folder: neither the old rows again, nor new ones in part.
    log.rename(source / "app-1.jsonl")
    append_rows(log, ["murder"] * 9)
    append_rows(source / "b.jsonl", ["hello"])
    with pytest.raises(DataError) as caught:
        watch(source, out, capsys)
    assert "app-1.jsonl: holds what was judged as" in caught.value.faults[0]
    assert "app.jsonl: does not begin with the bytes that were judged" in caught.value.faults[1]
    assert json.loads(capsys.readouterr().out)["rows"] == 4  # b.jsonl was judged

    table = tmp_path / "rows.csv"
    table.write_text("text\nhello\n")
    assert watch(table, tmp_path / "of_table", capsys)["rows"] == 1
    with table.open("a") as stream:
        stream.write("murder\n")
    with pytest.raises(DataError, match="tables must be complete when they appear"):
        watch(table, tmp_path / "of_table", capsys)
    with pytest.raises(DataError, match="--out lies in what is watched"):
        watch(source, source / "out", capsys)


def test_an_unfinished_line_longer_than_a_range_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_rows, "_RANGE_BYTES", 8)
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    source.write_text('{"text": "a line of ')
    assert watch(source, out, capsys)["rows"] == 0
    with source.open("a") as stream:
        stream.write('three ranges"}\n')
    assert watch(source, out, capsys)["rows"] == 1


def test_skipped_rows_are_counted_and_the_flag_may_come_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, metrics = tmp_path / "logs", tmp_path / "out", tmp_path / "watch.prom"
    source.mkdir()
    append_rows(source / "a.jsonl", ["hello"])
    with (source / "a.jsonl").open("a") as stream:
        stream.write("{no row\n")
    append_rows(source / "b.jsonl", ["murder"])
    with pytest.raises(DataError, match="a.jsonl:2"):
        watch(source, out, capsys)
    flags = WatchFlags(tolerated=0.1, false_alarm=0.1, audit_rate=0.5, metrics=metrics)
    rows = RowFlags(skip_malformed=True)
    command(str(source), judge="keywords:", out=out, rows=rows, flags=flags, json=True)
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(state["rows"], state["skipped"]) for state in states] == [(1, 0), (2, 1)]
    text = metrics.read_text()
    assert 'truing_watch_skipped_total{judge="keywords:"} 1' in text
    assert 'truing_watch_needed_log_evidence{judge="keywords:"} 2.302585093' in text
